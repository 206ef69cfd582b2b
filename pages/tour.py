"""Five steps from "why prune" to "why OBS beats OBD here", each with a live figure of sample runs and a link of its own."""

from dataclasses import replace
from typing import Any

import streamlit as st

from pruneviz.figures import FIGURES, base, two_weights
from pruneviz.figures._neuron import Neuron
from pruneviz.records.stages import BEFORE_TRAINING, Stage
from pruneviz.ui import card, tour, words
from pruneviz.ui.nine import run_all_nine
from pruneviz.ui.stores import open_store

HEIGHT = 400  # of the curves, in pixels: a step fits a laptop's screen
LAST = len(tour.STEPS)

words.head(
    "Tour",
    "From why one prunes to why one method beats another, in five steps and two minutes.",
    "accuracy", "curvature", "dense", "layer", "logarithmic", "loss", "nats", "neuron", "one shot", "pruning",
    "rank correlation", "round", "saliency", "sample", "score", "sparsity", "survivor", "weight",
)  # fmt: skip
with st.container(horizontal=True, vertical_alignment="center"):
    number = st.segmented_control(
        "Step", range(1, LAST + 1), default=1, key="step", required=True, bind="query-params", label_visibility="collapsed",
    )  # fmt: skip
    st.caption(f"Step {number:d} of {LAST}. Press N for the next one, B to go back.", width="content")
step = tour.STEPS[number - 1]


def go(to: int) -> None:
    st.session_state["step"] = to


def move() -> None:
    """Back and next, at the foot of the window wherever one has scrolled."""
    with st.container(horizontal=True, key="tour-move"):
        if number > 1:
            st.button("Back", on_click=go, args=(number - 1,), icon=":material/arrow_back:", shortcut="B")
        if number < LAST:
            told = f"Next: {tour.STEPS[number].title}"
            st.button(told, on_click=go, args=(number + 1,), type="primary", shortcut="N")
    st.html(tour.STYLE)


st.header(step.title, anchor=False)
left, right = st.columns([5, 9], gap="medium")
left.markdown(step.text)
found = tour.runs(tour.samples(), number)
if not found and number != 4:
    right.info(
        "This step shows sample runs, which are not here. The fourth step needs none; or make runs of your own.",
        icon=":material/inventory_2:",
    )
    right.page_link("pages/run.py", label="Run a pruning method", icon=":material/play_circle:")
    move()
    st.stop()

# keys of its own: a link would lose what it carries to a page whose control has the same
choices: dict[str, Any] = {}
link: dict[str, Any] = {"runs": tour.few(found)}
with left:
    match number:
        case 1:
            again = st.toggle("Train again after the last removal", True, key="again", bind="query-params")
            choices["stage"] = Stage.TUNED if again else Stage.PRUNED
        case 2:
            options = sorted(set.intersection(*(set(base.sparsities(run)) for run in found)))
            sparsity = st.select_slider(
                "Sparsity", options, base.SPARSITY, format_func=base.percent, key="share", bind="query-params"
            )
            choices = {"sparsity": sparsity, "layer": base.chosen(found[:1], None)}
            link = {"runs": found[0].id, "sparsity": base.percent(sparsity)}
        case 3:
            seeds = sorted({run.config.seed for run in found})
            seed = st.segmented_control(
                "Network, each trained from other first weights", seeds, default=seeds[0], key="network", required=True,
                format_func=lambda k: str(k + 1), bind="query-params",
            )  # fmt: skip
            found = [run for run in found if run.config.seed == seed]
            link["runs"] = tour.few(found)
        case 4:
            together = st.slider(
                "How much the two inputs go together", 0.0, 0.95, 0.9, 0.05, key="inputs", bind="query-params"
            )
            link = {"together": f"{together:g}", "size": f"{tour.SIZE:g}"}
        case 5:
            metric = st.segmented_control(
                "Show", ["accuracy", "loss"], default="accuracy", key="show", required=True, bind="query-params"
            )
            unmoved = st.toggle("Also with nothing moved", key="unmoved", bind="query-params")
            choices = {"metric": metric, "stage": BEFORE_TRAINING if unmoved else Stage.PRUNED}
            link["metric"] = metric
if step.figure == "curves":
    link["stage"] = tour.stages(choices["stage"])

if number == 4:
    figure, table, chart = two_weights.FIGURE, two_weights.data(Neuron(together, tour.SIZE)), None
else:
    figure = FIGURES[step.figure]
    table, chart = card.drawn(step.figure, found[:1] if number == 2 else found, **choices)
    if step.figure == "curves" and chart is not None:
        chart.update_layout(height=HEIGHT)
said = {
    1: lambda: tour.most_can_go(table, sum(base.layers(found).values())),
    2: lambda: tour.which_leave(table, found, sparsity),
    3: lambda: tour.score_is_right(table),
    4: lambda: tour.survivors_help(table),
    5: lambda: tour.surgeon_wins(found, metric, unmoved),
}[number]()
with left:
    st.info(f"**What to see.** {said}")
    st.page_link(step.page, label="See it on its own page", icon=":material/open_in_new:", query_params=link)
with right:
    card.show(replace(figure, caption=step.caption, formula=""), table, chart, key=f"tour-{number:d}")
if number == LAST:
    st.subheader("And now?", anchor=False)
    with st.container(horizontal=True, vertical_alignment="center"):
        run_all_nine(open_store())
        st.page_link(
            "pages/compare.py", label="Compare these runs side by side", icon=":material/view_column:",
            query_params={"runs": tour.few(found)},
        )  # fmt: skip
        st.page_link(
            "pages/methods.py", label="Play with two weights", icon=":material/menu_book:",
            query_params={"together": "0.9", "size": f"{tour.SIZE:g}"},
        )  # fmt: skip
move()

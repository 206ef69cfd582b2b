"""The catalogue: what each method asks, answers and cites."""

import streamlit as st

from pruneviz.figures import base, two_weights
from pruneviz.figures._neuron import Neuron
from pruneviz.methods import METHODS, method_class
from pruneviz.ui import card, taxonomy, words

words.head(
    "Methods",
    "Every pruning method answers the same six questions: from which network it **starts**, by which **criterion** it scores "
    "which **units**, over which **scope** it ranks them, what becomes of the **survivors**, and on which **schedule**. "
    "Below the table: one method in full, and a [play with two weights](#two-weights).",
    "bias", "channel", "convolution", "cross-entropy", "curvature", "damping", "dense", "direction", "eigenbasis",
    "eigenvalue", "eigenvector", "epoch", "filter", "fine-tuning", "Fisher", "Gauss-Newton", "gradient", "Hessian",
    "inverse", "kernel", "Kronecker factor", "layer", "logit", "loss", "mask", "mini-batch", "nats", "neuron",
    "normalisation", "one shot", "orthogonal", "patch", "pruning", "repair", "rotation", "round", "sample",
    "schedule", "scope", "score", "singular value", "sparsity", "stage", "standard deviation", "survivor",
    "switch", "threshold", "unit", "variance", "weight",
)  # fmt: skip


def show_all() -> None:
    st.session_state.update({question: [] for question in taxonomy.QUESTIONS})


with st.container(horizontal=True):
    wanted = {
        question: st.pills(title, taxonomy.answers(question), selection_mode="multi", key=question, wrap=True, bind="query-params")
        for question, (title, _) in taxonomy.QUESTIONS.items()
    }  # fmt: skip
keys = taxonomy.matching(wanted)


def open_method() -> None:
    if rows := st.session_state["catalogue"].selection.rows:
        st.session_state["method"] = keys[rows[0]]


if keys:
    st.dataframe(
        taxonomy.coloured(taxonomy.table(keys)), hide_index=True, height="content", key="catalogue",
        on_select=open_method, selection_mode="single-row",
        alt=f"{len(keys)} of {len(METHODS)} methods and their answers", column_config={"Mark": st.column_config.Column(width=44)},
    )  # fmt: skip
    st.caption(f"{len(keys)} of {len(METHODS)} methods. Tick one to open it below.")
else:
    st.info("No method answers all of these so.", icon=":material/filter_alt_off:")
    st.button("Show all methods", on_click=show_all)

key = st.segmented_control(
    "Method", list(METHODS), default=next(iter(METHODS)), key="method", format_func=lambda k: METHODS[k].title, required=True,
    bind="query-params",
)  # fmt: skip
about = METHODS[key]
st.header(about.title, anchor="chosen")
st.markdown(f"*{about.idea}*")
left, right = st.columns([3, 2], gap="large")
with left:
    for part in about.formula.split(r"\qquad"):  # one line each: together they are wider than a phone
        st.latex(part.strip(", "))
    symbols = dict(about.symbols)
    if about.formula.startswith("s_") and "s_q" not in symbols:
        symbols = {"s": "the score; the lowest leave", **symbols}
    st.markdown("\n".join(f"* ${symbol}$: {meaning}" for symbol, meaning in symbols.items()))
    st.subheader("Step by step")
    st.markdown("\n".join(f"1. {step}" for step in about.steps))
with right:
    if about.paper:
        st.subheader("Paper")
        st.markdown(f"{about.paper.citation} {about.paper.section[:1].upper()}{about.paper.section[1:]}.")
        st.link_button("Read it", about.paper.url, icon=":material/open_in_new:")
        with st.expander("BibTeX"):
            st.code(about.paper.bibtex, language="bibtex")
    switched = [text for text in about.departures if "=" in text.split(" ")[0]]
    for heading, texts in (
        ("Switches, and what they change", switched),
        ("What always differs", [text for text in about.departures if text not in switched]),
    ):
        if texts:
            st.subheader(heading)
            st.markdown("\n".join(f"* {text}" for text in texts))
if fields := method_class(key).model_fields:
    st.subheader("All switches")
    st.markdown(
        "\n".join(f"* **{name}**, usually {field.default}: {field.description}" for name, field in fields.items())
    )
st.page_link(
    "pages/run.py", label=f"Run {about.title}", icon=":material/play_circle:", query_params={"methods": about.title}
)
st.html(f"<style>h2#chosen {{ border-left: 6px solid {base.colour(key)}; padding-left: .6rem !important; }}</style>")

st.header("Try it on two weights", anchor="two-weights")
st.markdown(
    "One neuron, trained to the bottom of its loss. Each method removes **one** of its two weights. Let the inputs go "
    "together, and moving the other weight helps; shrink an input, and its large weight matters less than it looks."
)


@st.fragment
def removing_one() -> None:
    left, right = st.columns(2)
    correlation = left.slider(
        "How much the two inputs go together (correlation)", -0.95, 0.95, 0.8, 0.05, key="together", bind="query-params"
    )
    size = right.slider(
        "Size of the second input; the first has 1", 0.2, 3.0, 0.5, 0.1, key="size", bind="query-params"
    )
    card.show(two_weights.FIGURE, two_weights.data(Neuron(correlation, size)), key="two-weights")


removing_one()

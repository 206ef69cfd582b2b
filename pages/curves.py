"""Accuracy against sparsity, parameters, FLOPs, latency or training spent; and what each layer alone can lose."""

import streamlit as st

from pruneviz.figures import FIGURES, base
from pruneviz.figures.curves import LATENCIES
from pruneviz.records.stages import MEASURED, Stage
from pruneviz.ui import card, departures, pick, words
from pruneviz.ui.stores import open_store
from pruneviz.ui.text import plain

AXES = {
    "sparsity": "Sparsity", "core": "Sparsity without rotations", "parameters": "Parameters left", "flops": "FLOPs",
    LATENCIES[0]: "Latency, 256 samples", LATENCIES[1]: "Latency, one sample", "epochs": "Training epochs spent",
}  # fmt: skip
STAGES = dict(zip(MEASURED, ("by zeroing only", "after pruning, before training", "after training"), strict=True))

words.head(
    "Curves",
    "What is left of the accuracy as more and more weights leave, and what it saves.",
    "accuracy", "bias", "dense", "direction", "epoch", "filter", "FLOPs", "isometry", "latency", "layer", "loss",
    "median", "parameter", "pruning", "repair", "rotation", "sample", "score", "seed", "sparsity", "survivor",
    "validation", "weight",
)  # fmt: skip
store = open_store()
runs = pick.runs(store)
departures.of_runs(runs)
axis_column, metric_column, stage_column, seeds_column = st.columns([1.4, 0.9, 3, 0.9], vertical_alignment="bottom")
axis = axis_column.selectbox("Against", list(AXES), key="x", format_func=AXES.__getitem__, bind="query-params")
metric = metric_column.selectbox("Show", ["accuracy", "loss"], key="metric", bind="query-params")
moved = any(
    (run.metrics["stage"] == Stage.ZEROED).any() for run in runs
)  # survivors moved: two networks before training
stages = stage_column.segmented_control(
    "Measured", [name for name in STAGES if moved or name != Stage.ZEROED], selection_mode="multi", default=[Stage.TUNED], key="stage",
    format_func=STAGES.__getitem__, wrap=True, bind="query-params",
)  # fmt: skip
if seeds_column.toggle(
    "All seeds", True, key="seeds", bind="query-params", help="Add the runs that differ in the seed alone."
):
    runs = pick.every_seed(store, runs)
table = card.of("curves", runs, metric=metric, x=axis, stage=tuple(stages) or Stage.TUNED)
if axis == "flops":
    st.caption(
        "Zeroed single weights are counted as saved here, but ordinary hardware multiplies by zero just as slowly."
    )
if axis == "core":
    st.caption(
        "EigenDamage puts three layers in the place of one: two rotations and a core. Here only the core is counted, as in the "
        "paper's tables; under Sparsity, Parameters, FLOPs and Latency the rotations count too. Other methods have none."
    )
if axis in LATENCIES and (timeless := [run for run in runs if run.config.method not in set(table["method"])]):
    which = ", ".join(dict.fromkeys(base.labels(timeless, seeds=False).values()))
    st.caption(
        f"{plain(which)}: no latency was measured. Add a run of a method that removes filters on the same network."
    )
names = base.labels(runs, seeds=False)
limits = [
    f"{names[run.id]} cannot reach {base.percent(asked)}: whole {run.about.removes} reach at most {base.percent(most)} here."
    for run in runs
    for asked, most in base.beyond(run).items()
]
for limit in dict.fromkeys(limits):  # seeds say the same
    st.caption(plain(limit))

tried, chart = card.drawn("sensitivity", runs)
if len(tried):
    st.header("One layer at a time")
    st.markdown(
        "Remove the lowest filters of **one** layer, leave all others whole, do not train, and look how the accuracy falls. "
        "Layers whose line falls early should lose less."
    )
    card.show(FIGURES["sensitivity"], tried, chart, key="sensitivity-plot")

"""Accuracy against sparsity, parameters, FLOPs or training spent."""

import streamlit as st

from pruneviz.ui import card, departures, pick
from pruneviz.ui.stores import open_store

AXES = {"sparsity": "Sparsity", "parameters": "Parameters left", "flops": "FLOPs", "epochs": "Training epochs spent"}
STAGES = {"zeroed": "by zeroing only", "pruned": "after pruning, before training", "tuned": "after training"}

st.title("Curves")
st.markdown("What is left of the accuracy as more and more weights leave.")
store = open_store()
runs = pick.runs(store)
departures.of_runs(runs)
axis_column, metric_column, stage_column, seeds_column = st.columns([1.2, 0.9, 3, 0.9], vertical_alignment="bottom")
axis = axis_column.selectbox("Against", list(AXES), key="x", format_func=AXES.__getitem__, bind="query-params")
metric = metric_column.selectbox("Show", ["accuracy", "loss"], key="metric", bind="query-params")
moved = any((run.metrics["stage"] == "zeroed").any() for run in runs)  # survivors moved: two networks before training
stages = stage_column.segmented_control(
    "Measured", [name for name in STAGES if moved or name != "zeroed"], selection_mode="multi", default=["tuned"], key="stage",
    format_func=STAGES.__getitem__, wrap=True, bind="query-params",
)  # fmt: skip
if seeds_column.toggle(
    "All seeds", True, key="seeds", bind="query-params", help="Add the runs that differ in the seed alone."
):
    runs = pick.every_seed(store, runs)
card.of("curves", runs, metric=metric, x=axis, stage=tuple(stages) or "tuned")
if axis == "flops":
    st.caption(
        "Zeroed single weights are counted as saved here, but ordinary hardware multiplies by zero just as slowly."
    )

"""Accuracy against sparsity, parameters, FLOPs or training spent."""

import streamlit as st

from pruneviz.figures import FIGURES
from pruneviz.ui import card, pick
from pruneviz.ui.stores import open_store

AXES = {"sparsity": "Sparsity", "parameters": "Parameters left", "flops": "FLOPs", "epochs": "Training epochs spent"}
STAGES = {"tuned": "after training", "pruned": "right after pruning", "both": "both"}

st.title("Curves")
st.markdown("What is left of the accuracy as more and more weights leave.")
store = open_store()
runs = pick.runs(store)
axis_column, metric_column, stage_column, seeds_column = st.columns([1.2, 1, 2.4, 1], vertical_alignment="bottom")
axis = axis_column.selectbox("Against", list(AXES), key="x", format_func=AXES.__getitem__, bind="query-params")
metric = metric_column.selectbox("Show", ["accuracy", "loss"], key="metric", bind="query-params")
stage = stage_column.segmented_control(
    "Measured",
    list(STAGES),
    default="tuned",
    key="stage",
    format_func=STAGES.__getitem__,
    required=True,
    bind="query-params",
)
if seeds_column.toggle(
    "All seeds", True, key="seeds", bind="query-params", help="Add the runs that differ in the seed alone."
):
    runs = pick.every_seed(store, runs)
figure = FIGURES["curves"]
card.show(figure, figure.data(runs, metric=metric, x=axis, stage=stage), key="curves-plot")
if axis == "flops":
    st.caption(
        "Zeroed single weights are counted as saved here, but ordinary hardware multiplies by zero just as slowly."
    )

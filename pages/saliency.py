"""How each method scores what it may remove, which of it leaves, and whether the score is right."""

import streamlit as st

from pruneviz.figures import FIGURES, base
from pruneviz.ui import card, departures, pick, words
from pruneviz.ui.stores import open_store
from pruneviz.ui.text import plain

words.head(
    "Saliency",
    "Each method gives every weight a **score**, or every filter, or every direction, whichever it removes. The lowest leave. The "
    "bars count them by their score.",
    "convolution", "direction", "eigenbasis", "filter", "isometry", "Jaccard index", "layer", "logarithmic", "loss",
    "mask", "nats", "pruning", "rank correlation", "repair", "round", "saliency", "sample", "score", "seed",
    "sparsity", "survivor", "unit", "weight",
)  # fmt: skip
runs = pick.runs(open_store())
departures.of_runs(runs)
left, right = st.columns(2)
with left:
    sparsity = pick.sparsity(runs)
with right:
    layer = pick.layer(runs)

table = card.of("saliency", runs, sparsity=sparsity, layer=layer)
if missing := [run for run in runs if run.id not in set(table["run"])]:
    names = ", ".join(base.label(run, runs) for run in missing)
    st.caption(plain(f"No scores of layer {layer}: {names}. Choose another layer: nothing leaves from this one."))
card.of("layers", runs, sparsity=sparsity, layer=layer, on_click=pick.clicked_layer)
st.caption("Click a layer: the histograms above, and the other pages, follow.")

st.header("Do they agree?")
over = st.segmented_control(
    "Compare the masks and scores of",
    ["the whole network", "this layer"],
    default="the whole network",
    required=True,
    key="over",
    bind="query-params",
)
card.of("agreement", runs, sparsity=sparsity, layer=layer if over == "this layer" else None)

st.header("What the first layer looks like")
card.of("first", runs, sparsity=sparsity)
table, chart = card.drawn("inputs", runs, sparsity=sparsity)
if len(table):
    card.show(FIGURES["inputs"], table, chart, key="inputs-plot")

table, chart = card.drawn("change", runs)
if len(table):
    st.header("Is the score right?")
    st.markdown(
        "A score is a cheap guess of what a weight, filter or direction is worth. Here is the answer: remove **one** from the whole "
        "network, measure how much the loss rises, put it back, take the next. A good score puts them in the same order as "
        "the measured rise, so the points climb from left to right."
    )
    card.show(FIGURES["change"], table, chart, key="change-plot")

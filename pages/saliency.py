"""How each method scores the weights, which it removes, and whether the score is right."""

import streamlit as st

from pruneviz.figures import FIGURES
from pruneviz.ui import card, departures, pick
from pruneviz.ui.stores import open_store

st.title("Saliency")
st.markdown("Each method gives every weight a **score**. The lowest leave. The bars count weights by their score.")
runs = pick.runs(open_store())
departures.of_runs(runs)
left, right = st.columns(2)
with left:
    sparsity = pick.sparsity(runs)
with right:
    layer = pick.layer(runs)

card.of("saliency", runs, sparsity=sparsity, layer=layer)
card.of("layers", runs, sparsity=sparsity)

table, chart = card.drawn("change", runs)
if len(table):
    st.header("Is the score right?")
    st.markdown(
        "A score is a cheap guess of what a weight is worth. Here is the answer: remove **one** weight from the whole network, "
        "measure how much the loss rises, put it back, take the next. A good score puts the weights in the same order as the "
        "measured rise, so the points climb from left to right."
    )
    card.show(FIGURES["change"], table, chart, key="change-plot")

"""How each method scores the weights, and which it removes."""

import streamlit as st

from pruneviz.figures import FIGURES
from pruneviz.ui import card, pick
from pruneviz.ui.stores import open_store

st.title("Saliency")
st.markdown("Each method gives every weight a **score**. The lowest leave. The bars count weights by their score.")
runs = pick.runs(open_store())
left, right = st.columns(2)
with left:
    sparsity = pick.sparsity(runs)
with right:
    layer = pick.layer(runs)

figure = FIGURES["saliency"]
card.show(figure, figure.data(runs, sparsity, layer), key="saliency-plot")
figure = FIGURES["layers"]
card.show(figure, figure.data(runs, sparsity), key="layers-plot")

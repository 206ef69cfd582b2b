"""Singular values of the layers' Jacobians: what happens to a signal on its way."""

import streamlit as st

from pruneviz.figures import FIGURES
from pruneviz.ui import card, pick
from pruneviz.ui.stores import open_store

st.title("Jacobians")
st.markdown(
    "How much each layer stretches or shrinks a small change of its input. Values near **1** let signals and gradients "
    "through; pruning pushes them down, and training has to lift them again."
)
runs = pick.runs(open_store())
sparsity = pick.sparsity(runs)
figure = FIGURES["jacobians"]
card.show(figure, figure.data(runs, sparsity), key="jacobians-plot")
layer = pick.layer(runs)
figure = FIGURES["trend"]
card.show(figure, figure.data(runs, layer), key="trend-plot")

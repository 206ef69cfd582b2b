"""Singular values of the layers' Jacobians: what happens to a signal on its way, and whether repairing it helps."""

import streamlit as st

from pruneviz.figures import FIGURES, jacobians
from pruneviz.figures.jacobians import END
from pruneviz.figures.repair import family, repaired
from pruneviz.ui import card, departures, pick
from pruneviz.ui.stores import open_store

st.title("Jacobians")
st.markdown(
    "How much each layer stretches or shrinks a small change of its input. Values near **1** let signals and gradients "
    "through; pruning pushes them down, and a repair or training has to lift them again."
)
store = open_store()
runs = pick.runs(store)
departures.of_runs(runs)
sparsity = pick.sparsity(runs)
table = jacobians.data(runs, sparsity)
card.show(jacobians, table[table["layer"] != END], key="jacobians-plot")
if (table["layer"] == END).any():
    card.show(FIGURES["ends"], table[table["layer"] == END], key="ends-plot")
layer = pick.layer(runs)
figure = FIGURES["trend"]
card.show(figure, figure.data(runs, layer), key="trend-plot")

if repaired(runs):
    figure = FIGURES["repair"]
    st.header("Does the repair help training?")
    st.markdown(
        "The same weights leave, then the layers are left as they are, or rescaled, or made isometric, and all train alike. "
        "The chosen runs are joined by those in the store that differ in the repair or the seed alone."
    )
    card.show(figure, figure.data(pick.every_seed(store, runs, alike=family)), key="repair-plot")

"""Singular values of the layers' Jacobians: what happens to a signal on its way, and whether repairing it helps."""

import streamlit as st

from pruneviz.figures import FIGURES
from pruneviz.figures.repair import family, repaired
from pruneviz.ui import card, departures, pick, words
from pruneviz.ui.stores import open_store

words.head(
    "Jacobians",
    "How much each layer stretches or shrinks a small change of its input. Values near **1** let signals and gradients "
    "through; pruning pushes them down, and a repair or training has to lift them again.",
    "accuracy", "gradient", "isometry", "Jacobian", "layer", "logarithmic", "logit", "loss", "mask", "median",
    "pruning", "repair", "sample", "score", "seed", "singular value", "sparsity", "survivor", "weight",
)  # fmt: skip
store = open_store()
runs = pick.runs(store)
departures.of_runs(runs)
left, right = st.columns(2)
with left:
    sparsity = pick.sparsity(runs)
with right:
    layer = pick.layer(runs)
card.of("jacobians", runs, sparsity=sparsity, layer=layer)
table, chart = card.drawn("ends", runs, sparsity=sparsity)
if len(table):
    card.show(FIGURES["ends"], table, chart, key="ends-plot")
card.of("trend", runs, layer=layer)

if repaired(runs):
    st.header("Does the repair help training?")
    st.markdown(
        "The same weights leave, then the layers are left as they are, or rescaled, or made isometric, and all train alike. "
        "The chosen runs are joined by those in the store that differ in the repair or the seed alone."
    )
    card.of("repair", pick.every_seed(store, runs, alike=family))

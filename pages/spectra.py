"""Eigenvalues of the Kronecker factors, before and after pruning; which directions matter, and what they look like."""

import streamlit as st

from pruneviz.figures.spectra import summary
from pruneviz.ui import card, departures, pick, words
from pruneviz.ui.stores import open_store

words.head(
    "Kronecker spectra",
    "How sharply the loss bends around the network's weights, layer by layer. The curvature of a layer is close to a "
    "product of two small matrices: **A**, from what comes into the layer, and **S**, from the slopes that come back to it. "
    "Few large eigenvalues mean that few directions matter.",
    "channel", "condition number", "convolution", "curvature", "dense", "direction", "effective rank",
    "eigenbasis", "eigenvalue", "eigenvector", "filter", "Fisher", "gradient", "isometry", "Kronecker factor",
    "layer", "loss", "nats", "patch", "pruning", "repair", "sample", "score", "seed", "sparsity", "survivor",
    "weight",
)  # fmt: skip
runs = pick.runs(open_store())
departures.of_runs(runs)
left, right = st.columns(2)
with left:
    sparsity = pick.sparsity(runs)
with right:
    layer = pick.layer(runs)
table = card.of("spectra", runs, sparsity=sparsity, layer=layer)
if len(table):
    st.dataframe(
        summary(table),
        hide_index=True,
        column_config={
            f"{what} {when}": st.column_config.NumberColumn(f"{title}, {when}", format=look)
            for what, title, look in (
                ("rank", "effective rank", "%.1f"),
                ("condition", "condition number", "scientific"),
            )
            for when in ("before", "after")
        },
    )

st.header("Which directions matter")
st.markdown(
    "In the eigenbasis of A and S the layer's weights hardly depend on each other, so each entry has a price of its own. Filters "
    "that leave take rows of S away; EigenDamage takes the cheapest rows and columns of this very matrix."
)
card.of("importance", runs, sparsity=sparsity, layer=layer)

st.header("What the leading directions look like")
card.of("eigenvectors", runs)

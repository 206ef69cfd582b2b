"""Eigenvalues of the Kronecker factors, before and after pruning."""

import streamlit as st

from pruneviz.figures.spectra import summary
from pruneviz.ui import card, departures, pick
from pruneviz.ui.stores import open_store

st.title("Kronecker spectra")
st.markdown(
    "How sharply the loss bends around the network's weights, layer by layer. The curvature of a layer is close to a "
    "product of two small matrices: **A**, from what comes into the layer, and **S**, from the slopes that come back to it. "
    "Few large eigenvalues mean that few directions matter."
)
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
            "condition": st.column_config.NumberColumn("condition number", format="scientific"),
            "rank": st.column_config.NumberColumn("effective rank", format="%.1f"),
        },
    )

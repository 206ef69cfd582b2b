"""The four views side by side: columns are runs, rows are views."""

import streamlit as st

from pruneviz.figures import base
from pruneviz.ui import card, departures, pick
from pruneviz.ui.compare_grid import compare_grid
from pruneviz.ui.stores import open_store

st.title("Compare")
st.markdown("One column for each run. Move the **sparsity** or choose a **layer**: every panel follows.")
runs = pick.runs(open_store())
departures.of_runs(runs)
if len(runs) < 2:
    st.info("Choose two or more runs to see them side by side.", icon=":material/view_column:")
if runs:
    asked = st.query_params.get("sparsity", "")
    start = float(asked) if asked.replace(".", "", 1).isdigit() and float(asked) < 1 else base.SPARSITY
    sparsity, layer = compare_grid(runs, sparsity=start, layer=st.query_params.get("layer"))
    for name, value in (("sparsity", f"{sparsity:g}" if sparsity is not None else ""), ("layer", layer or "")):
        if value and st.query_params.get(name) != value:
            st.query_params[name] = value
    box = st.expander("As a figure, to download", key="static", on_change="rerun")
    if box.open:  # it takes a second to draw, and few ask for it
        with box:
            card.of("compare", runs, sparsity=sparsity or start, layer=layer)
    card.report(runs, sparsity=sparsity, layer=layer)

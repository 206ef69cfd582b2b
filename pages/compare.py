"""Every view side by side: columns are runs or methods, rows are views."""

import streamlit as st

from pruneviz.ui import card, departures, pick, words
from pruneviz.ui.compare_grid import View, compare_grid
from pruneviz.ui.stores import open_store

words.head(
    "Compare",
    "Move the **sparsity**, or click a **layer**: every panel follows. Columns can be moved, pinned and hidden; the address "
    "keeps what you see. A column is a run, or a **method**: then accuracy is the mean over its seeds, with their range.",
    "accuracy", "dense", "direction", "effective rank", "eigenvalue", "filter", "Fisher", "gradient", "Jacobian",
    "Kronecker factor", "layer", "mask", "median", "parameter", "pruning", "saliency", "score", "seed", "singular value",
    "sparsity", "survivor", "threshold", "weight",
)  # fmt: skip
columns = st.segmented_control(
    "Columns", ["Runs", "Methods"], default="Runs", required=True, key="columns", bind="query-params"
)
store = open_store()
runs = pick.runs(store)
departures.of_runs(runs)
seeds = pick.by_configuration(store, runs) if columns == "Methods" else None
shown = [run for run in runs if seeds is None or run.id in seeds]
if len(runs) < 2:
    pick.another(store, runs)
if shown:
    view = compare_grid(shown, View.asked(shown), seeds=seeds)
    box = st.expander("As a figure, to download", key="static", on_change="rerun")
    if box.open:  # it takes a second to draw, and few ask for it
        order = [run for id_ in view.order for run in shown if run.id == id_ and id_ not in view.hidden]
        with box:
            card.of("compare", order, sparsity=view.sparsity, layer=view.layer)
    card.report(shown, sparsity=view.sparsity, layer=view.layer)

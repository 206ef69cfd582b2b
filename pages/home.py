"""What this is, and a real comparison at once."""

import streamlit as st

from pruneviz.figures import base
from pruneviz.store import UNREADABLE
from pruneviz.ui import live, pick, words
from pruneviz.ui.compare_grid import View, compare_grid
from pruneviz.ui.nine import run_all_nine
from pruneviz.ui.stores import open_store, readable
from pruneviz.ui.text import plain

words.head(
    "PruneViz",
    "A trained neural network can lose most of its weights and still work: that is **pruning**. The art is to know which "
    "weights to lose. PruneViz runs the methods of the best-known papers on your machine and shows, side by side, how each "
    "one scores the weights, what it does to the network, and what is left of the accuracy.",
    "accuracy", "dense", "direction", "effective rank", "eigenvalue", "filter", "Fisher", "gradient", "Jacobian",
    "Kronecker factor", "layer", "median", "parameter", "pruning", "saliency", "score", "singular value",
    "sparsity", "survivor", "threshold", "weight",
)  # fmt: skip
store = open_store()
with st.container(horizontal=True, vertical_alignment="center"):
    run_all_nine(store)
    if st.button("Take the tour: two minutes", icon=":material/explore:"):
        st.switch_page("pages/tour.py")
    if st.button("Choose a network to prune", icon=":material/play_circle:"):
        st.switch_page("pages/run.py")
    st.page_link("pages/compare.py", label="**Compare** side by side", icon=":material/view_column:")
    st.page_link("pages/methods.py", label="**Read** how each works", icon=":material/menu_book:")

table = store.runs()
finished = table.loc[table["state"] == "succeeded"]
samples = finished.loc[finished["source"] == "samples"]
shown = samples if len(samples) else finished
if shown.empty:
    st.info(
        "No finished run yet, so there is nothing to compare. Run all nine, or choose a network to prune.",
        icon=":material/play_circle:",
    )
    st.stop()
rows = shown.to_dict("records")
first = rows[0]
same = shown.loc[[pick.network(row) == pick.network(first) for row in rows]]
usual = [pick.usual(row) for row in same.to_dict("records")]
runs = readable(store, pick.one_of_each(same.loc[usual], 4))

st.header(f"{plain(pick.network(first))}: {len(runs)} runs side by side")
st.markdown("Move the **sparsity**: more and more weights leave, and every panel follows.")
compare_grid(runs, View.asked(runs), fixed=True, key="home-grid")

recent = table.loc[(table["source"] == "store") & (table["state"] != UNREADABLE)].head(6)
if len(recent):
    st.header("Recent runs")
    found = [store.asked(id_) for id_ in recent["id"]]
    names = base.labels(found)
    for i in range(0, len(found), 3):
        for column, run_ in zip(st.columns(3), found[i : i + 3], strict=False):
            with column.container(border=True):
                st.markdown(f"**{plain(names[run_.id])}**")
                live.badge(run_.state)
                st.caption(plain(live.summary(run_) if run_.state == "succeeded" else pick.network_of(run_)))
                st.page_link(
                    "pages/run.py", label="Open", icon=":material/open_in_new:", query_params={"watch": run_.id}
                )

"""What this is, and a real comparison at once."""

import streamlit as st

from pruneviz.comparison import nine
from pruneviz.figures import base
from pruneviz.methods import METHODS
from pruneviz.ui import live, pick
from pruneviz.ui.compare_grid import View, compare_grid
from pruneviz.ui.stores import open_store

st.title("PruneViz")
st.markdown(
    "A trained neural network can lose most of its weights and still work: that is **pruning**. The art is to know which "
    "weights to lose. PruneViz runs the methods of the best-known papers on your machine and shows, side by side, how each "
    "one scores the weights, what it does to the network, and what is left of the accuracy."
)
store = open_store()
every, run, compare, methods = st.columns(4, vertical_alignment="center")
asked = every.button(
    "Run all nine on digits",
    type="primary",
    icon=":material/rocket_launch:",
    width="stretch",
    disabled=store.readonly,
    help="One method of each paper, a small network, six sparsities: about a minute. You watch the curves fill in.",
)
run.page_link("pages/run.py", label="**Run** a method yourself", icon=":material/play_circle:", width="stretch")
compare.page_link("pages/compare.py", label="**Compare** side by side", icon=":material/view_column:", width="stretch")
methods.page_link("pages/methods.py", label="**Read** how each works", icon=":material/menu_book:", width="stretch")
if asked:
    st.switch_page("pages/run.py", query_params={"watch": ",".join(store.queue(nine().configs))})

table = store.runs()
finished = table[table["state"] == "succeeded"]
samples = finished[finished["source"] == "samples"]
shown = samples if len(samples) else finished
if shown.empty:
    st.info(
        "No finished run yet, so there is nothing to compare. Start one on the Run page.", icon=":material/play_circle:"
    )
    st.stop()
first = shown.iloc[0]
same = shown[[pick.network(row) == pick.network(first) for row in shown.to_dict("records")]]
usual = [METHODS[row["method"]].starts == row["start"] for row in same.to_dict("records")]
runs = [store.run(id_) for id_ in pick.one_of_each(same[usual], 4)]

st.header(f"{pick.network(first)}: {len(runs)} runs side by side")
st.markdown("Move the **sparsity**: more and more weights leave, and every panel follows.")
compare_grid(runs, View(base.SPARSITY), fixed=True, key="home-grid")

recent = table[table["source"] == "store"].head(6)
if len(recent):
    st.header("Recent runs")
    found = [store.run(id_) for id_ in recent["id"]]
    names = base.labels(found)
    for i in range(0, len(found), 3):
        for column, run_ in zip(st.columns(3), found[i : i + 3], strict=False):
            with column.container(border=True):
                st.markdown(f"**{names[run_.id]}**")
                live.badge(run_.state)
                st.caption(live.summary(run_) if run_.state == "succeeded" else pick.network(run_.config.model_dump()))
                st.page_link(
                    "pages/run.py", label="Open", icon=":material/open_in_new:", query_params={"watch": run_.id}
                )

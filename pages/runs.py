"""Every run: find, look, download, resume, tag, delete."""

import hashlib
import json

import pandas as pd
import streamlit as st

from pruneviz.arguments import command
from pruneviz.datasets import DATASETS
from pruneviz.figures import base
from pruneviz.methods import METHODS
from pruneviz.store import STATES
from pruneviz.ui import actions, live, pick, words
from pruneviz.ui.stores import open_store

words.head(
    "Runs",
    "Every run made here, and those that came with the program: what each was, how it went, and its numbers to take away.",
    "filter", "seed",
)  # fmt: skip
store = open_store()
table = store.runs()
if table.empty:
    st.info("No run yet. Start one on the Run page.", icon=":material/play_circle:")
    st.page_link("pages/run.py", label="Run a pruning method", icon=":material/play_circle:")
    st.stop()

# which ones
everything = len(table)
known = sorted(set(table["tag"]) - {""})
menus = {
    "state": ("State", [s for s in STATES if s in set(table["state"])], live.word),
    "method": ("Method", [m for m in METHODS if m in set(table["method"])], lambda key: METHODS[key].title),
    **({"tag": ("Tag", known, str)} if known else {}),
}
search_column, *columns = st.columns([1.5, *(1 for _ in menus)])
search = search_column.text_input(
    "Search", key="q", bind="query-params", icon=":material/search:", placeholder="network, data, tag, seed, id …",
)  # fmt: skip
for column, (name, (label, options, text)) in zip(columns, menus.items(), strict=True):
    chosen = column.multiselect(label, options, key=name, format_func=text, placeholder="all", bind="query-params")
    if chosen:
        table = table[table[name].isin(chosen)]
rows = table.to_dict("records")
shown = pd.DataFrame(
    {
        "Method": [METHODS[row["method"]].title for row in rows],
        "State": [[live.word(row["state"])] for row in rows],
        "Tag": [row["tag"] for row in rows],
        "Network": [pick.model(row) for row in rows],
        "Data": [DATASETS[row["dataset"]].title for row in rows],
        "Seed": [row["seed"] for row in rows],
        "Start": [str(row["start"]) for row in rows],
        "Sparsities": [", ".join(base.percent(s) for s in row["sparsities"]) for row in rows],
        "Done": [float(row["fraction"]) for row in rows],
        "From": [row["source"] for row in rows],
        "Asked": pd.to_datetime([row["queued"] or None for row in rows], unit="s"),
        "id": [row["id"] for row in rows],
    }
)
texts = shown.drop(columns=["Done", "Asked"]).astype(str)
shown = shown[[all(part in " ".join(row).lower() for part in search.lower().split()) for row in texts.to_numpy()]]
if shown.empty:
    st.info(f"None of the {everything} runs is like that. Search for less.", icon=":material/search_off:")
    st.stop()

# The rows that are ticked are in the address by their ids. Another list of runs is another table: a tick belongs to a place.
ids = list(shown["id"])
asked = st.query_params.get("picked", "").split(",")
event = st.dataframe(
    shown, hide_index=True, on_select="rerun", selection_mode="multi-row", placeholder="–",
    key=f"table-{hashlib.sha256(','.join(ids).encode()).hexdigest()[:12]}",
    selection_default={"selection": {"rows": [i for i, id_ in enumerate(ids) if id_ in asked]}},
    column_order=[name for name in shown.columns if name != "id" and (name != "Tag" or known)],
    column_config={
        "State": st.column_config.MultiselectColumn(
            options=[live.word(state) for state in STATES], color=[live.colour(state) for state in STATES], disabled=True
        ),
        "Tag": st.column_config.TextColumn(width=110),
        "Done": st.column_config.ProgressColumn(format="percent", min_value=0, max_value=1),
        "Asked": st.column_config.DatetimeColumn(format="distance"),
    },
)  # fmt: skip
picked = [ids[i] for i in event.selection.rows if i < len(ids)]
if picked != [id_ for id_ in asked if id_]:
    st.query_params.update(picked=",".join(picked))
    if not picked:
        del st.query_params["picked"]
count = f"{len(ids)} of {everything} runs." if len(ids) < everything else f"{everything} runs."
if not picked:
    st.caption(f"{count} Tick some to open, compare, download, tag or delete them.")
    st.stop()

# what to do with them
st.caption(f"{count} {len(picked)} ticked.")
runs = [store.run(id_) for id_ in picked]
actions.toolbar(store, runs)
names = base.labels(runs)
for run in runs:
    with st.container(border=True):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(f"**{names[run.id]}**", width="content")
            live.badge(run.state)
            if run.row["tag"]:
                st.badge(live.escaped(run.row["tag"]), icon=":material/label:", color="gray")
        st.caption(f"{pick.network(run.config.model_dump())}, seed {run.config.seed}")
        if run.state == "succeeded":
            st.caption(live.summary(run))
        elif run.state == "running":
            st.progress(float(run.row["fraction"]), live.escaped(run.row["message"]))
        elif run.row["error"]:
            st.error(live.escaped(run.row["error"]), icon=":material/error:")
        elif run.state in ("queued", "lost"):
            st.caption(live.escaped(run.row["message"]) or "Waits for its turn.")
        for warning in json.loads(run.row["warnings"]):
            st.caption(f":orange[:material/warning:] {live.escaped(warning)}")
        with st.expander("Configuration and log", key=f"more-{run.id}", type="compact", on_change="rerun") as more:
            if more.open:
                st.caption(f"Run {run.id}. On the command line:")
                st.code(command(run.config), language=None, wrap_lines=True)
                st.json(run.config.model_dump(mode="json"), expanded=False)
                if run.row.get("traceback"):
                    st.code(run.row["traceback"], language=None)

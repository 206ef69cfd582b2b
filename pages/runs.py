"""Every run: find, look, download, resume, tag, delete."""

import hashlib
import json

import pandas as pd
import streamlit as st

from pruneviz.basics.errors import PrunevizError
from pruneviz.figures import base
from pruneviz.store import STATES, UNREADABLE
from pruneviz.ui import actions, live, pick, words
from pruneviz.ui.stores import open_store
from pruneviz.ui.text import plain

LABELS = {"state": "State", "method": "Method", "tag": "Tag"}

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

# which ones; where a sample stands beside an unfinished run of the store with its id, a tick says which of the two it is
own = set(table.loc[table["source"] == "store", "id"])
table["key"] = [
    id_ if source == "store" or id_ not in own else f"{id_}@samples"
    for id_, source in zip(table["id"], table["source"], strict=True)
]
everything = len(table)
known = sorted(set(table["tag"]) - {""})
looks = [state for state in (*STATES, UNREADABLE) if state in set(table["state"])]
methods = dict(
    table.sort_values("place", kind="stable")[["method", "title"]].dropna().itertuples(index=False, name=None)
)
menus = {
    "state": (looks, live.word),
    "method": (list(methods), methods.__getitem__),
    **({"tag": (known, str)} if known else {}),
}
search_column, *columns = st.columns([1.5, *(1 for _ in menus)])
search = search_column.text_input(
    "Search", key="q", bind="query-params", icon=":material/search:", placeholder="network, data, tag, seed, id …",
)  # fmt: skip
for column, (name, (options, text)) in zip(columns, menus.items(), strict=True):
    chosen = column.multiselect(
        LABELS[name], options, key=f"only-{name}", format_func=text, placeholder="all", bind="query-params"
    )
    if chosen:
        table = table.loc[table[name].isin(chosen)]
rows = table.to_dict("records")
shown = pd.DataFrame(
    {
        "Method": [row["title"] for row in rows],
        "State": [[live.word(row["state"])] for row in rows],
        "Tag": [row["tag"] for row in rows],
        "Network": [row["network"] for row in rows],
        "Data": [row["data"] for row in rows],
        "Seed": [str(row["seed"]) if row["seed"] is not None else "" for row in rows],
        "Start": [str(row["start"] or "") for row in rows],
        "Sparsities": [", ".join(base.percent(s) for s in row["sparsities"] if isinstance(s, float)) for row in rows],
        "Done": [float(row["fraction"]) for row in rows],
        "From": [row["source"] for row in rows],
        "Asked": pd.to_datetime([float(row["queued"] or "nan") for row in rows], unit="s"),
        "Warnings": [" · ".join(json.loads(row["warnings"])) for row in rows],
        "id": [row["id"] for row in rows],
        "key": [row["key"] for row in rows],
    }
)
hidden = {"id", "key", *(() if known else ("Tag",)), *(() if any(shown["Warnings"]) else ("Warnings",))}
texts = shown.drop(columns=["Done", "Asked"]).astype(str)
shown = shown.loc[[all(part in " ".join(row).lower() for part in search.lower().split()) for row in texts.to_numpy()]]
if shown.empty:
    st.info(f"None of the {everything} runs is like that. Search for less.", icon=":material/search_off:")
    st.stop()

# The rows that are ticked are in the address by their ids. Another list of runs is another table: a tick belongs to a place.
ids = list(shown["key"])
asked = st.query_params.get("picked", "").split(",")
event = st.dataframe(
    shown, hide_index=True, on_select="rerun", selection_mode="multi-row", placeholder="–",
    key=f"table-{hashlib.sha256(','.join(ids).encode()).hexdigest()[:12]}",
    selection_default={"selection": {"rows": [i for i, id_ in enumerate(ids) if id_ in asked]}},
    column_order=[name for name in shown.columns if name not in hidden],
    column_config={
        "State": st.column_config.MultiselectColumn(
            options=list(map(live.word, looks)), color=list(map(live.colour, looks)), disabled=True
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
places = {row["key"]: row for row in rows}
runs, broken = {}, list[str]()
for key in picked:
    row = places[key]
    try:
        runs[key] = store.asked(row["id"]) if row["source"] == "store" else store.run(row["id"])
    except PrunevizError as error:
        st.error(plain(f"{row['id']}: {error}"), icon=":material/broken_image:")
        broken += [row["id"]] if row["source"] == "store" else []
actions.toolbar(store, list(runs.values()), broken)
names = base.labels(runs.values())
for key, run in runs.items():
    with st.container(border=True):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(f"**{plain(names[run.id])}**", width="content")
            live.badge(run.state)
            if run.row["tag"]:
                st.badge(plain(run.row["tag"]), icon=":material/label:", color="gray")
        st.caption(plain(f"{pick.network_of(run)}, seed {run.config.seed}"))
        if run.state == "succeeded":
            st.caption(plain(live.summary(run)))
        elif run.state == "running":
            st.progress(float(run.row["fraction"]), plain(run.row["message"]))
        elif run.row["error"]:
            st.error(plain(run.row["error"]), icon=":material/error:")
        elif run.state in ("queued", "lost"):
            st.caption(plain(run.row["message"]) or "Waits for its turn.")
        for warning in json.loads(run.row["warnings"]):
            st.caption(f":orange[:material/warning:] {plain(warning)}")
        with st.expander("Configuration and log", key=f"more-{key}", type="compact", on_change="rerun") as more:
            if more.open:
                st.caption(plain(f"Run {run.id}. On the command line:"))
                actions.command_line(run.config)
                st.json(run.config.model_dump(mode="json"), expanded=False)
                if run.row.get("traceback"):
                    st.code(run.row["traceback"], language=None)

"""Every run: state, log, downloads, resume, delete."""

import io
import zipfile

import pandas as pd
import streamlit as st

from pruneviz.datasets import DATASETS
from pruneviz.figures import base
from pruneviz.methods import METHODS
from pruneviz.store import ENDED, STATES, Run
from pruneviz.ui import live, pick, words
from pruneviz.ui.stores import SHARED, open_store

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

with st.container(horizontal=True, vertical_alignment="bottom"):
    states = st.pills(
        "State",
        [s for s in STATES if s in set(table["state"])],
        selection_mode="multi",
        key="state",
        bind="query-params",
    )
    found = [m for m in METHODS if m in set(table["method"])]
    methods = st.pills(
        "Method",
        found,
        selection_mode="multi",
        key="method",
        format_func=lambda k: METHODS[k].title,
        wrap=True,
        bind="query-params",
    )
table = table[(table["state"].isin(states or STATES)) & (table["method"].isin(methods or found))]
shown = pd.DataFrame(
    {
        "Method": [METHODS[m].title for m in table["method"]],
        "Network": [pick.model(row) for row in table.to_dict("records")],
        "Data": [DATASETS[d].title for d in table["dataset"]],
        "Seed": table["seed"],
        "Start": table["start"],
        "Sparsities": [", ".join(base.percent(s) for s in values) for values in table["sparsities"]],
        "State": table["state"],
        "Done": table["fraction"].astype(float),
        "From": table["source"],
        "Asked": pd.to_datetime(table["queued"].where(table["queued"] > 0), unit="s"),
    }
)
event = st.dataframe(
    shown, hide_index=True, on_select="rerun", selection_mode="multi-row", key="table",
    column_config={
        "Done": st.column_config.ProgressColumn(format="percent", min_value=0, max_value=1),
        "Asked": st.column_config.DatetimeColumn(format="distance"),
    },
)  # fmt: skip
st.caption("Tick runs to open, compare, download or delete them.")
picked = [table["id"].iloc[i] for i in event.selection.rows if i < len(table)]
if not picked:
    st.stop()


def packed(runs: list[Run]) -> bytes:
    """Arrays, weights and numbers of finished runs as one zip."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for run in runs:
            archive.writestr(f"{run.id}/config.json", run.config.model_dump_json(indent=1))
            archive.writestr(f"{run.id}/metrics.csv", run.metrics.to_csv(index=False))
            archive.writestr(f"{run.id}/history.csv", run.history.to_csv(index=False))
            for name in run.files:
                archive.write(run.folder / f"{name}.safetensors", f"{run.id}/{name}.safetensors")
    return content.getvalue()


runs = [store.run(id_) for id_ in picked]
with st.container(horizontal=True):
    ids = ",".join(picked)
    st.page_link("pages/compare.py", label="Compare", icon=":material/view_column:", query_params={"runs": ids})
    st.page_link("pages/run.py", label="Watch", icon=":material/visibility:", query_params={"watch": ids})
    st.download_button(
        "Numbers (CSV)",
        lambda: store.metrics(picked).to_csv(index=False).encode(),
        "metrics.csv",
        "text/csv",
        on_click="ignore",
    )
    st.download_button("Everything (zip)", lambda: packed(runs), "runs.zip", "application/zip", on_click="ignore")
    own = [run.id for run in runs if run.source == "store" and run.state in ENDED]
    if own and not SHARED and st.button(f"Delete {len(own)}", icon=":material/delete:"):
        for id_ in own:
            store.delete(id_)
        st.rerun()
names = base.labels(runs)
for run in runs:
    with st.container(border=True):
        st.markdown(f"**{names[run.id]}**")
        live.badge(run.state)
        st.code(run.id, language=None)
        st.caption(live.summary(run))
        if run.row["error"]:
            st.error(run.row["error"])
        if run.row.get("traceback"):
            with st.expander("Log"):
                st.code(run.row["traceback"], language=None)
        with st.expander("Configuration"):
            st.json(run.config.model_dump(mode="json"))

"""What may be done with chosen runs: look, compare, download, resume, cancel, tag, delete."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from typing import Literal

import streamlit as st

from pruneviz.basics.errors import PrunevizError
from pruneviz.figures.base import MAX_RUNS
from pruneviz.plan.about import about
from pruneviz.plan.arguments import command
from pruneviz.plan.config import RunConfig
from pruneviz.store import ENDED, Run, Store
from pruneviz.ui import card
from pruneviz.ui.stores import SHARED
from pruneviz.ui.text import plain

STOPPED = ("failed", "cancelled", "lost")


def unknown(config: RunConfig) -> str:
    """Why a run cannot be made or resumed here, where its method, network or data are not known; else nothing."""
    try:
        about(config)
    except PrunevizError as error:
        return f"{error} Without it this run can be looked at, and neither be resumed nor made again."
    return ""


def command_line(config: RunConfig) -> None:
    """The command that asks for a run, or why there is none."""
    if why := unknown(config):
        st.caption(plain(why))
    else:
        st.code(command(config), language=None, wrap_lines=True)


def toolbar(store: Store, runs: Sequence[Run], broken: Sequence[str] = ()) -> None:
    """A row of buttons: only what these runs allow; ``broken`` are ids of the store's runs that cannot be read."""
    ids = [run.id for run in runs]
    finished = [run for run in runs if run.state == "succeeded"]
    mine = [run for run in runs if run.source == "store" and not store.readonly]
    stuck = {run.id: why for run in mine if run.state in STOPPED and (why := unknown(run.config))}
    stopped = [run.id for run in mine if run.state in STOPPED and run.id not in stuck]
    states = {run.id: run.state for run in mine}
    states |= {id_: store.status(id_)["state"] for id_ in broken if not store.readonly}
    going = [id_ for id_, state in states.items() if state not in ENDED]
    ended = [id_ for id_, state in states.items() if state in ENDED]
    with st.container(horizontal=True, vertical_alignment="center"):
        if finished:
            asked = {"runs": ",".join(run.id for run in finished[:MAX_RUNS])}
            st.page_link("pages/compare.py", label="Compare", icon=":material/view_column:", query_params=asked)
        if mine:
            watched = {"watch": ",".join(run.id for run in mine)}
            st.page_link("pages/run.py", label="Watch", icon=":material/visibility:", query_params=watched)
        if going:
            _each(f"Cancel{_count(going)}", going, store.cancel, icon="stop_circle")
        if stopped:
            _each(f"Resume{_count(stopped)}", stopped, store.resume, icon="restart_alt")
        if 1 <= len(runs) <= MAX_RUNS:
            card.report(runs)
        if runs:
            st.download_button(
                "Numbers (CSV)", lambda: store.metrics(ids).to_csv(index=False).encode(), "metrics.csv", "text/csv",
                icon=":material/table:", on_click="ignore",
            )  # fmt: skip
            st.download_button(
                "Everything (zip)", lambda: packed(runs), "runs.zip", "application/zip", icon=":material/folder_zip:",
                on_click="ignore", help="Configuration, numbers, arrays and weights.",
            )  # fmt: skip
        if mine:
            with st.popover("Tag", icon=":material/label:"):
                _tag(store, mine)
        if ended and not SHARED:
            with st.popover("Delete", icon=":material/delete:"):
                st.markdown(f"{len(ended)} run{'s' if len(ended) > 1 else ''} and all files go for good.")
                _each("Delete for good", ended, store.delete, icon="delete_forever", type="primary")
    for why in dict.fromkeys(stuck.values()):
        st.caption(plain(why))
    if len(runs) > MAX_RUNS:
        st.caption(f"A report takes up to {MAX_RUNS} runs, and so does Compare: the first {MAX_RUNS} finished ones.")


def _each(
    label: str, ids: Sequence[str], does, *, icon: str, type: Literal["primary", "secondary"] = "secondary"
) -> None:
    """A button that does one thing to each of the runs, before the page is drawn again."""

    def act() -> None:
        for id_ in ids:
            does(id_)

    st.button(label, icon=f":material/{icon}:", on_click=act, type=type)


def _count(ids: Sequence[str]) -> str:
    return f" {len(ids):d}" if len(ids) > 1 else ""


def _tag(store: Store, runs: Sequence[Run]) -> None:
    """One tag for all of them."""
    with st.form("tag-form", border=False):
        have = {str(run.row["tag"]) for run in runs}
        text = st.text_input(
            "Tag", have.pop() if len(have) == 1 else "", max_chars=64, placeholder="e.g. lecture 3",
            help="Letters, digits, spaces, dots, - and _. Empty takes the tag away.",
        )  # fmt: skip
        if st.form_submit_button("Save", type="primary"):
            try:
                for run in runs:
                    store.tag(run.id, text)
            except PrunevizError as error:
                st.error(plain(error), icon=":material/error:")
            else:
                st.rerun()


def packed(runs: Sequence[Run]) -> bytes:
    """Configuration, numbers, arrays and weights of runs as one zip."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for run in runs:
            archive.writestr(f"{run.id}/config.json", run.config.model_dump_json(indent=1))
            archive.writestr(f"{run.id}/metrics.csv", run.metrics.to_csv(index=False))
            archive.writestr(f"{run.id}/history.csv", run.history.to_csv(index=False))
            for name in run.files:
                archive.write(run.folder / f"{name}.safetensors", f"{run.id}/{name}.safetensors")
    return content.getvalue()

"""Runs as they go: state, progress, queue position, loss so far, cancel and resume."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Literal

import streamlit as st

from pruneviz.basics.errors import NoSuchRun, PrunevizError
from pruneviz.figures import FIGURES, base
from pruneviz.records.metrics import ACCURACY, TEST
from pruneviz.records.stages import SAID, Stage
from pruneviz.store import ENDED, UNREADABLE, Run, Store
from pruneviz.ui import card
from pruneviz.ui.actions import unknown
from pruneviz.ui.stores import SHARED
from pruneviz.ui.text import plain

_LOOK: dict[str, tuple[str, Literal["gray", "blue", "green", "red", "orange"], str]] = {
    "queued": ("waiting", "gray", "schedule"),
    "running": ("running", "blue", "autorenew"),
    "succeeded": ("finished", "green", "check_circle"),
    "failed": ("failed", "red", "error"),
    "cancelled": ("cancelled", "orange", "cancel"),
    "lost": ("lost", "red", "heart_broken"),
    UNREADABLE: ("unreadable", "red", "broken_image"),
}


def panel(store: Store, ids: Sequence[str]) -> None:
    """Progress of these runs, polled once a second while any of them goes on; their curves, which cost more, every third."""
    active = any(run.state not in ENDED for run in _seen(tuple(ids), store)[0])
    st.fragment(_panel, run_every=1.0 if active else None)(store, ids, active)
    st.fragment(_curves, run_every=3.0 if active else None)(store, ids)


@st.cache_resource(ttl=0.8, max_entries=50, show_spinner=False)
def _seen(ids: tuple[str, ...], _store: Store) -> tuple[list[Run], dict[str, int], list[str]]:
    """Runs, their places in the queue, and why others cannot be read; once for a class that watches the same ones."""
    runs, problems = list[Run](), list[str]()
    for id_ in ids:
        try:
            runs.append(watched(_store, id_))
        except PrunevizError as error:
            problems.append(str(error))
    table = _store.runs()
    own = table[table["source"] == "store"]
    return runs, dict(zip(own["id"].tolist(), own["position"].tolist(), strict=True)), problems


def watched(store: Store, id_: str) -> Run:
    """The store's own run in whatever state it is, else a sample. Raises NoSuchRun, StoreError."""
    try:
        return store.asked(id_)
    except NoSuchRun:
        return store.run(id_)


def _panel(store: Store, ids: Sequence[str], active: bool) -> None:
    runs, places, problems = _seen(tuple(ids), store)
    for problem in problems:
        st.error(plain(problem), icon=":material/error:")
    if not runs:
        return
    if active == all(run.state in ENDED for run in runs):
        st.rerun()  # the last one ended, or one was resumed: draw the page anew, without or with polling
    names = base.labels(runs)
    done = sum(run.state == "succeeded" for run in runs)
    st.progress(sum(float(run.row["fraction"]) for run in runs) / len(runs), f"{done} of {len(runs)} runs finished")
    if active and not store.workers():
        st.info("The worker is starting.", icon=":material/hourglass_top:")
    for run in runs:
        _line(store, run, names[run.id], places.get(run.id, 0))


def _curves(store: Store, ids: Sequence[str]) -> None:
    with_points = [run for run in _seen(tuple(ids), store)[0] if Stage.TUNED in set(run.metrics["stage"])]
    if with_points:
        table, chart = card.drawn("curves", with_points)  # one drawing for all who watch
        if chart is not None:
            card.show(FIGURES["curves"], table, chart, key="live")


def word(state: str) -> str:
    """A run's state as a person says it."""
    return _LOOK[state][0]


def colour(state: str) -> str:
    """The colour of a run's state, as Streamlit names it."""
    return _LOOK[state][1]


def badge(state: str) -> None:
    """A run's state as a coloured word."""
    text, colour, icon = _LOOK[state]
    st.badge(text, color=colour, icon=f":material/{icon}:")


def _line(store: Store, run: Run, name: str, place: int) -> None:
    with st.container(border=True, key=f"line-{run.id.replace('.', '-')}"):
        what, how, act = st.columns([2.2, 4, 1.4], vertical_alignment="center")
        with what:
            st.markdown(f"**{plain(name)}**")
            badge(run.state)
        with how:
            if run.state == "queued":
                st.caption(f"Number {place:.0f} in the queue" if place > 1 else "Next in the queue")
            elif run.state == "running":
                st.progress(float(run.row["fraction"]), plain(run.row["message"]))
            elif run.state == "succeeded":
                st.caption(plain(summary(run)))
            else:
                st.caption(plain(run.row["error"] or run.row["message"]))
            for warning in json.loads(run.row["warnings"])[-2:]:
                st.caption(f":orange[:material/warning:] {plain(warning)}")
            if run.state == "running":
                _loss(run)
        with act:
            if run.state not in ENDED:
                st.button(
                    "Cancel",
                    key=f"cancel-{run.id}",
                    on_click=_cancel,
                    args=(store, run.id),
                    icon=":material/stop_circle:",
                )
            elif run.state != "succeeded" and (why := unknown(run.config)):
                st.caption(plain(why))
            elif run.state != "succeeded":
                st.button(
                    "Resume",
                    key=f"resume-{run.id}",
                    on_click=_resume,
                    args=(store, run.id),
                    icon=":material/restart_alt:",
                )
            elif run.source == "store" and not SHARED:
                st.page_link(
                    "pages/compare.py", label="Look", icon=":material/visibility:", query_params={"runs": run.id}
                )


def _cancel(store: Store, id_: str) -> None:
    store.cancel(id_)
    _seen.clear()


def _resume(store: Store, id_: str) -> None:
    store.resume(id_)
    _seen.clear()


def summary(run: Run) -> str:
    """What came out, in one line: test accuracy at each sparsity; "no path left" where none leads from input to output."""
    metrics, cut = run.metrics, base.without_path(run)
    at = metrics.loc[(metrics["split"] == TEST) & (metrics["metric"] == ACCURACY)]
    dense = at.loc[at["stage"] == Stage.DENSE, "value"]
    tuned = at.loc[at["stage"] == Stage.TUNED].sort_values("sparsity")
    parts = [f"{SAID[Stage.DENSE]} {base.percent(dense.iloc[0])}"] if len(dense) else []
    parts += [
        f"at {base.percent(s)}: {base.percent(v)}{' (no path left)' if s in cut else ''}"
        for s, v in zip(tuned["sparsity"], tuned["value"], strict=True)
    ]
    return "Test accuracy " + ", ".join(parts)


def _loss(run: Run) -> None:
    """The latest numbers of training."""
    history = run.history
    if history.empty:
        return
    last = history.loc[history["stage"] == run.row["stage"]]
    last = last.loc[last["epoch"] == last["epoch"].max()].set_index("metric")["value"].to_dict()
    if "val_accuracy" in last:
        st.caption(
            f"validation accuracy {base.percent(last['val_accuracy'])}, loss {base.number(last['val_loss'])}, "
            f"training loss {base.number(last['train_loss'])}"
        )

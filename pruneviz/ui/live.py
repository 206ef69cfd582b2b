"""Runs as they go: state, progress, queue position, loss so far, cancel and resume."""

from __future__ import annotations

import json
from collections.abc import Sequence

import streamlit as st

from pruneviz.figures import FIGURES, base
from pruneviz.store import ENDED, Run, Store
from pruneviz.ui import card
from pruneviz.ui.stores import SHARED

_LOOK = {
    "queued": ("waiting", "gray", "schedule"),
    "running": ("running", "blue", "autorenew"),
    "succeeded": ("finished", "green", "check_circle"),
    "failed": ("failed", "red", "error"),
    "cancelled": ("cancelled", "orange", "cancel"),
    "lost": ("lost", "red", "heart_broken"),
}


def panel(store: Store, ids: Sequence[str]) -> None:
    """Progress of these runs, polled once a second while any of them goes on; their curves, which cost more, every third."""
    active = any(run.state not in ENDED for run in _seen(tuple(ids), store)[0])
    st.fragment(_panel, run_every=1.0 if active else None)(store, ids, active)
    st.fragment(_curves, run_every=3.0 if active else None)(store, ids)


@st.cache_resource(ttl=0.8, max_entries=50, show_spinner=False)
def _seen(ids: tuple[str, ...], _store: Store) -> tuple[list[Run], dict[str, int]]:
    """Runs and their places in the queue, read once for a class that watches the same ones."""
    return [_store.run(id_) for id_ in ids], _store.runs().set_index("id")["position"].to_dict()


def _panel(store: Store, ids: Sequence[str], active: bool) -> None:
    runs, places = _seen(tuple(ids), store)
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
    runs, _ = _seen(tuple(ids), store)
    with_points = [run for run in runs if not run.metrics[run.metrics["stage"] == "tuned"].empty]
    if with_points:
        table, chart = card.drawn("curves", with_points)  # one drawing for all who watch
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
            st.markdown(f"**{name}**")
            badge(run.state)
        with how:
            if run.state == "queued":
                st.caption(f"Number {place} in the queue" if place > 1 else "Next in the queue")
            elif run.state == "running":
                st.progress(float(run.row["fraction"]), escaped(run.row["message"]))
            elif run.state == "succeeded":
                st.caption(summary(run))
            else:
                st.caption(escaped(run.row["error"] or run.row["message"]))
            for warning in json.loads(run.row["warnings"])[-2:]:
                st.caption(f":orange[:material/warning:] {escaped(warning)}")
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
    """What came out, in one line: test accuracy at each sparsity."""
    metrics = run.metrics
    at = metrics[(metrics["split"] == "test") & (metrics["metric"] == "accuracy")]
    dense = at[at["stage"] == "dense"]["value"]
    tuned = at[at["stage"] == "tuned"].sort_values("sparsity")
    parts = [f"dense {base.percent(dense.iloc[0])}"] if len(dense) else []
    parts += [
        f"at {base.percent(s)}: {base.percent(v)}" for s, v in zip(tuned["sparsity"], tuned["value"], strict=True)
    ]
    return "Test accuracy " + ", ".join(parts)


def _loss(run: Run) -> None:
    """The latest numbers of training."""
    history = run.history
    if history.empty:
        return
    last = history[history["stage"] == run.row["stage"]]
    last = last[last["epoch"] == last["epoch"].max()].set_index("metric")["value"].to_dict()
    if "val_accuracy" in last:
        st.caption(
            f"validation accuracy {base.percent(last['val_accuracy'])}, loss {base.number(last['val_loss'])}, "
            f"training loss {base.number(last['train_loss'])}"
        )


def escaped(text: str) -> str:
    """Text from a run, without meaning in Markdown."""
    return "".join(f"\\{c}" if c in r"\`*_{}[]()#+-.!|<>~:$" else c for c in str(text))

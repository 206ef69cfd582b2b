"""Where runs depart from their papers, named run by run, with what each departure changes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import streamlit as st

from pruneviz.departures import told
from pruneviz.figures import base
from pruneviz.methods import METHODS

if TYPE_CHECKING:
    from pruneviz.config import RunConfig
    from pruneviz.store import Run


def of_runs(runs: Sequence[Run]) -> None:
    """A folded panel that names every departure of these runs; nothing where there are none."""
    names = base.labels(runs, seeds=False)
    _panel([(names[run.id], run.config) for run in runs], "run")


def of_configs(configs: Iterable[RunConfig]) -> None:
    """The same, before the click."""
    first = {(config.method, config.start): config for config in configs}
    _panel([(METHODS[config.method].title, config) for config in first.values()], "method", expanded=True)


def _panel(named: Sequence[tuple[str, RunConfig]], what: str, *, expanded: bool = False) -> None:
    found = [(name, config) for name, config in named if config.departures and METHODS[config.method].paper]
    if not found:
        return
    how_many = f"{len(found)} of {len(named)} {what}s" if len(named) > 1 else f"This {what}"
    how = "depart from their papers" if len(found) > 1 else "departs from its paper"
    with st.expander(f"{how_many} {how}", expanded, icon=":material/alt_route:"):
        lines = []
        for (name, method), said in {(name, c.method): c.departures for name, c in found}.items():
            paper = METHODS[method].paper
            lines += [
                f"* **{name}** ({paper.short if paper else ''})",
                *(f"    * {explained(text, method)}" for text in said),
            ]
        st.markdown("\n".join(lines))


def explained(departure: str, method: str) -> str:
    """A departure with what it changes, in Markdown: "**rounds** 1 instead of 5: prunes in one shot; …"."""
    found = told(departure, method)
    return f"**{found.what}** {found.rest}"

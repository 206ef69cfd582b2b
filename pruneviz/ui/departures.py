"""Where runs depart from their papers, named run by run, with what each departure changes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import streamlit as st

from pruneviz.figures import base
from pruneviz.plan.about import about
from pruneviz.ui.text import plain

if TYPE_CHECKING:
    from pruneviz.plan.config import RunConfig
    from pruneviz.records.about import About
    from pruneviz.store import Run


def of_runs(runs: Sequence[Run]) -> None:
    """A folded panel that names every departure of these runs; nothing where there are none."""
    names = base.labels(runs, seeds=False)
    _panel([(names[run.id], run.about) for run in runs], "run")


def of_configs(configs: Iterable[RunConfig]) -> None:
    """The same, before the click."""
    first = {(config.method, config.start): config for config in configs}
    words = [about(config) for config in first.values()]
    _panel([(each.method, each) for each in words], "method", expanded=True)


def _panel(named: Sequence[tuple[str, About]], what: str, *, expanded: bool = False) -> None:
    found = [(name, words) for name, words in named if base.changes(words)]
    if not found:
        return
    how_many = f"{len(found)} of {len(named)} {what}s" if len(named) > 1 else f"This {what}"
    how = "depart from their papers" if len(found) > 1 else "departs from its paper"
    with st.expander(f"{how_many} {how}", expanded, icon=":material/alt_route:"):
        lines = []
        for name, words in dict(found).items():
            paper = f" ({plain(words.paper.short)})" if words.paper else ""
            lines += [
                f"* **{plain(name)}**{paper}",
                *(f"    * **{plain(part)}** {plain(rest)}" for part, rest in base.changes(words)),
            ]
        st.markdown("\n".join(lines))

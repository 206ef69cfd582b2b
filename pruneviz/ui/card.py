"""A figure on a page: caption, formula, alt text, and its numbers to look at and to download."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from pruneviz import figures
from pruneviz.basics.errors import PrunevizError
from pruneviz.figures import FIGURES, base
from pruneviz.ui import export
from pruneviz.ui.text import plain

if TYPE_CHECKING:
    from pruneviz.store import Run

_CONFIG = {
    "displaylogo": False,
    "displayModeBar": "hover",
    "showSendToCloud": False,
    "modeBarButtonsToRemove": ["lasso2d", "select2d", "autoScale2d"],
}


def drawn(figure: str, runs: Sequence[Run], **choices: Any) -> tuple[pd.DataFrame, go.Figure | None]:
    """A figure's table and drawing; where a run cannot be read its sentence stands here, and there is no drawing.

    Drawing costs ten times what reading it back does, so both are kept: a class that looks
    at the same runs, and a slider that comes back, do not draw again. They are kept as bytes: as objects they would be
    looked through by the garbage collection after every rerun."""
    try:
        return _drawn(figure, tuple(state(run) for run in runs), tuple(sorted(choices.items())), list(runs))
    except PrunevizError as error:
        st.error(plain(f"{FIGURES[figure].title}: {error}"), icon=":material/broken_image:")
        return FIGURES[figure].data([]), None


def state(run: Run) -> tuple[str, str]:
    """What a run's drawings depend on: a run that goes on is drawn anew."""
    files = sorted((name, entry.get("sha256", "")) for name, entry in run.files.items())
    return run.id, hashlib.sha256(f"{files}{len(run.metrics)}".encode()).hexdigest()


@st.cache_data(max_entries=200, show_spinner=False)
def _drawn(
    figure: str, states: tuple[tuple[str, str], ...], choices: tuple[tuple[str, Any], ...], _runs: list[Run]
) -> tuple[pd.DataFrame, go.Figure]:
    table = FIGURES[figure].data(_runs, **dict(choices))
    chart = FIGURES[figure].plot(table)
    return table, go.Figure(chart.to_dict())  # its keys ordered as when read back: the same bytes are not sent again


def show(
    figure: base.Figure,
    table: pd.DataFrame,
    chart: go.Figure | None = None,
    *,
    key: str,
    on_click: Callable[[str], None] | None = None,
) -> None:
    """A figure's table as a card, drawn here unless its drawing is given. ``on_click`` is called with ``key`` after a click."""
    chart, name = chart or figure.plot(table), key.removesuffix("-plot")
    with st.container(border=True):
        with st.container(key=f"{key}-scroll"):
            clicks = {"on_select": partial(on_click, key), "selection_mode": "points"} if on_click else {}
            st.plotly_chart(chart, key=key, alt=base.alt(chart) or figure.title, config=_CONFIG, **clicks)
        if least := base.least(chart):  # on a phone facets and legends would run into each other: the chart scrolls
            st.html(
                f"<style>.st-key-{key}-scroll {{ overflow-x: auto; }} .st-key-{key}-scroll > * {{ min-width: {least:d}px; }}</style>"
            )
        st.caption(plain(" ".join(text for text in (figure.caption, base.note(chart)) if text)))
        with st.container(horizontal=True):
            if figure.formula:
                with st.popover("Formula", type="tertiary", icon=":material/function:"):
                    st.latex(figure.formula)
            if len(table):
                with st.popover("Download", type="tertiary", icon=":material/download:", key=f"{key}-download"):
                    st.download_button(
                        "CSV", lambda: table.to_csv(index=False).encode(), f"{name}.csv", "text/csv", key=f"{key}-csv",
                        type="tertiary", icon=":material/table:", on_click="ignore",
                    )  # fmt: skip
                    export.images(key, name=name, least=base.least(chart))
        if len(table):
            _numbers(table, key)


def _numbers(table: pd.DataFrame, key: str) -> None:
    """The table under its chart, folded; sent only once it is opened."""
    box = st.expander(f"Data: {len(table):,} rows", key=f"{key}-data", type="compact", on_change="rerun")
    if box.open:
        columns = sorted(
            table.columns.difference(["colour", "symbol"], sort=False), key=lambda name: name == "run"
        )  # ids are long: last
        box.dataframe(table, hide_index=True, column_order=columns, height=320)


def of(
    figure: str, runs: Sequence[Run], *, on_click: Callable[[str], None] | None = None, **choices: Any
) -> pd.DataFrame:
    """The figure of these runs as a card; returns its table."""
    table, chart = drawn(figure, runs, **choices)
    if chart is not None:
        show(FIGURES[figure], table, chart, key=f"{figure}-plot", on_click=on_click)
    return table


def report(runs: Sequence[Run], **looked_at: Any) -> None:
    """A button that puts these runs into one HTML file; the file is made when it is asked for."""
    st.download_button(
        "Report (HTML)", lambda: figures.report(runs, **looked_at).encode(), "report.html", "text/html", key="report",
        icon=":material/description:", on_click="ignore",
        help="Every figure of these runs in one file that opens in any browser, without a network: 5 to 7 MB.",
    )  # fmt: skip

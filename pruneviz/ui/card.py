"""A figure on a page: caption, formula, alt text, and its numbers to download."""

from __future__ import annotations

from typing import Any

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from pruneviz.figures import base

_CONFIG = {
    "displaylogo": False,
    "displayModeBar": "hover",
    "modeBarButtonsToRemove": ["lasso2d", "select2d", "autoScale2d"],
}
# Squeezed to the width of a phone, facets and legends run into each other: there the chart scrolls in its card.
_SCROLL = """<style>
.st-key-{key}-scroll {{ overflow-x: auto; }}
.st-key-{key}-scroll > * {{ min-width: {least}px; }}
</style>"""


def show(figure: base.Figure, table: pd.DataFrame, *, key: str, plot: Any = None) -> None:
    """Draw a figure's table (by its own ``plot`` unless another is given) as a card."""
    chart: go.Figure = (plot or figure.plot)(table)
    with st.container(border=True):
        with st.container(key=f"{key}-scroll"):
            st.plotly_chart(chart, key=key, alt=base.alt(chart) or figure.title, config=_CONFIG)
        if least := base.least(chart):
            st.html(_SCROLL.format(key=key, least=least))
        st.caption(" ".join(text for text in (figure.caption, base.note(chart)) if text))
        with st.container(horizontal=True):
            if figure.formula:
                with st.popover("Formula", type="tertiary", icon=":material/function:"):
                    st.latex(figure.formula)
            st.download_button(
                "CSV", lambda: table.to_csv(index=False).encode(), f"{key}.csv", "text/csv", key=f"{key}-csv",
                type="tertiary", icon=":material/download:", on_click="ignore",
            )  # fmt: skip

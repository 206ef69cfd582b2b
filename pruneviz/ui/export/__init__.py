"""Charts as PNG and SVG, made by the browser's own Plotly: the server needs no drawing program."""

from __future__ import annotations

from pathlib import Path

from streamlit.components.v2 import component

_PARTS = {
    kind: Path(__file__).with_name(f"export.{kind}").read_text(encoding="utf-8") for kind in ("html", "css", "js")
}
_component = component("pruneviz_export", html=_PARTS["html"], css=_PARTS["css"], js=_PARTS["js"])


def images(chart: str, *, name: str, least: int = 0) -> None:
    """Two buttons that save the chart with this key as ``name.png`` and ``name.svg``, dark on white whatever the theme.

    ``least``: pixels across that it takes to be read.
    """
    _component(key=f"{chart}-images", data={"chart": chart, "name": name, "least": least})

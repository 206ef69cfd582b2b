"""Figures, one file each: every one computes a tidy table from runs, then draws it. ``pv.figures.saliency(runs)`` does both.

``FIGURES`` maps keys to them; ``pv.figures.saliency.data(runs)`` is the table alone, ``.plot(table)`` the drawing.
``report(runs)`` puts all of them into one HTML file. A file exports ``FIGURE``, or ``FIGURES`` where it holds several.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pruneviz.basics.registry import files_of
from pruneviz.figures.base import Figure, alt, colour, label, labels, note

FIGURES: Mapping[str, Figure] = {
    figure.key: figure
    for module in files_of(__name__, list(__path__))
    for figure in getattr(module, "FIGURES", (getattr(module, "FIGURE", None),))
    if figure is not None and figure.of_runs
}
if TYPE_CHECKING:

    def __getattr__(name: str) -> Any: ...


# Last: a file that is imported becomes an attribute of its folder under its own name, which is the figure's.
from pruneviz.figures.report import report  # noqa: E402

globals().update({key.replace("-", "_"): figure for key, figure in FIGURES.items()})

__all__ = ["FIGURES", "Figure", "alt", "colour", "label", "labels", "note", "report"]

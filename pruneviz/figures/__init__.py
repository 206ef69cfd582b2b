"""Figures: each computes a tidy table from runs, then draws it. ``pv.figures.saliency(runs)`` does both.

``FIGURES`` maps keys to them; ``pv.figures.saliency.data(runs)`` is the table alone, ``.plot(table)`` the drawing.
``report(runs)`` puts all of them into one HTML file.
"""

from __future__ import annotations

from collections.abc import Mapping

from pruneviz.figures.agreement import FIGURE as agreement
from pruneviz.figures.base import Figure, alt, colour, label, labels, note
from pruneviz.figures.change import FIGURE as change
from pruneviz.figures.compare import FIGURE as compare
from pruneviz.figures.curves import FIGURE as curves
from pruneviz.figures.eigenvectors import FIGURE as eigenvectors
from pruneviz.figures.first_layer import FIGURE as first
from pruneviz.figures.first_layer import INPUTS as inputs
from pruneviz.figures.importance import FIGURE as importance
from pruneviz.figures.jacobians import ENDS as ends
from pruneviz.figures.jacobians import FIGURE as jacobians
from pruneviz.figures.jacobians import TREND as trend
from pruneviz.figures.repair import FIGURE as repair
from pruneviz.figures.report import report
from pruneviz.figures.saliency import FIGURE as saliency
from pruneviz.figures.saliency import LAYERS as layers
from pruneviz.figures.sensitivity import FIGURE as sensitivity
from pruneviz.figures.spectra import FIGURE as spectra

FIGURES: Mapping[str, Figure] = {
    figure.key: figure
    for figure in (
        saliency, layers, agreement, first, inputs, change, spectra, importance, eigenvectors, jacobians, ends, trend, repair,
        curves, sensitivity, compare,
    )
}  # fmt: skip

__all__ = [
    "FIGURES", "Figure", "agreement", "alt", "change", "colour", "compare", "curves", "eigenvectors", "ends", "first",
    "importance", "inputs", "jacobians", "label", "labels", "layers", "note", "repair", "report", "saliency", "sensitivity",
    "spectra", "trend",
]  # fmt: skip

"""Sensitivity: what each layer alone can lose, without training, as Li et al. 2017 chose their ratios."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.colors import sample_colorscale

from pruneviz.figures import base
from pruneviz.records.arrays import Sensitivity
from pruneviz.records.stages import Stage

if TYPE_CHECKING:
    from pruneviz.store import Run

ORDER = 55
TITLE = "Accuracy without a layer's lowest filters"
COLUMNS = [*base.WHO, "layer", "depth", "of", "ratio", "accuracy", "samples"]
LINES = base.MAX_TRACES - 1  # one is the colour bar's
NAMED = 12  # layers that a legend can name; beyond, a colour bar tells how deep a layer lies
# From shallow to deep: each has a contrast of 3 or more on white and on near-black.
DEPTHS = [[0, "#1d7fd1"], [0.5, "#a057c8"], [1, "#e0532f"]]


def data(runs: Sequence[Run]) -> pd.DataFrame:
    """One row a layer and share of its filters: ``ratio`` removed, validation ``accuracy`` then, over ``samples``.

    ``depth``: the layer's place among those ``of`` the run that may lose filters, from 0.
    """
    runs, names = list(runs), base.labels(runs)
    rows: list[dict[str, Any]] = []
    for run in runs:
        if (found := run.read(Sensitivity, stage=Stage.START)) is None:
            continue
        about = {**base.who(run, names), "of": len(found.layers), "samples": found.samples}
        rows += [
            {**about, "layer": layer, "depth": i, "ratio": float(ratio), "accuracy": float(found.accuracy[i, j])}
            for i, layer in enumerate(found.layers)
            for j, ratio in enumerate(found.ratios)
        ]
    return pd.DataFrame(rows, columns=COLUMNS)


def plot(table: pd.DataFrame) -> go.Figure:
    """A facet a run, a line a layer, coloured by depth."""
    if table.empty:
        return base.empty(TITLE, "Choose a run of L1 filters, Kron-OBD or Kron-OBS: they try each layer alone.")
    parts = [part for _, part in base.groups(table, "run")]
    drawn = parts[: base.MAX_FACETS]
    most, deepest = LINES // len(drawn), int(table["of"].max()) - 1
    fig, height = base.facets([f"<b>{part['label'].iloc[0]}</b>" for part in drawn], space=110, row=230)
    named: set[str] = set()
    for i, part in enumerate(drawn):
        of = int(part["of"].iloc[0])
        for depth in np.unique(np.linspace(0, of - 1, min(most, of)).round().astype(int)):
            line = part[part["depth"] == depth]
            _line(fig, line, deepest, base.place(i, len(drawn)), named)
        fig.update_xaxes(title_text="filters of the layer removed (%)", **base.place(i, len(drawn)))
    if deepest >= NAMED:
        _depths(fig, deepest)
    low = 100 * min(table["accuracy"].min(), table["accuracy"].max() - 0.1)
    fig.update_yaxes(range=[max(low - 4, -2), 102]).update_xaxes(range=[-3, 101], tickvals=[0, 25, 50, 75, 100])
    fig.update_yaxes(title_text="validation accuracy (%)", col=1)
    left_out = [part["of"].iloc[0] for part in drawn if part["of"].iloc[0] > most]
    note = f"Accuracies are over {table['samples'].max():,} validation samples."
    if left_out:
        note += f" {most} of {max(left_out)} layers are drawn of each run, evenly spaced: choose fewer runs to see the others."
    alt = f"Validation accuracy without the lowest filters of one layer: {base.listed([_sentence(part) for part in drawn], 6)}."
    fig = base.finish(fig, TITLE, alt, height=height, note=f"{note} {base.too_many(parts, base.MAX_FACETS)}".strip())
    return fig.update_annotations(font_size=13)


def _line(fig: go.Figure, line: pd.DataFrame, deepest: int, at: dict[str, Any], named: set[str]) -> None:
    first = line.iloc[0]
    shade = sample_colorscale(DEPTHS, [first["depth"] / max(deepest, 1)])[0]
    name = f"layer {first['layer']}"
    fig.add_scatter(
        x=100 * line["ratio"], y=100 * line["accuracy"], mode="lines+markers", name=name, legendgroup=name,
        showlegend=deepest < NAMED and name not in named, line={"color": shade, "width": 2, "dash": base.DASHES[first["depth"] % 4]},
        marker={"size": 5, "color": shade}, hovertemplate=f"{name}, %{{x:.0f}}% of its filters removed: %{{y:.1f}}%<extra></extra>",
        **at,
    )  # fmt: skip
    named.add(name)


def _depths(fig: go.Figure, deepest: int) -> None:
    """The colour bar that tells how deep a layer lies."""
    marker = {
        "color": [0, deepest], "colorscale": DEPTHS, "cmin": 0, "cmax": deepest, "size": 0.1,
        "colorbar": {
            "title": {"text": "layer"}, "thickness": 14, "outlinewidth": 0, "tickvals": [0, deepest], "ticktext": ["first", "last"],
        },
    }  # fmt: skip
    fig.add_scatter(
        x=[None, None], y=[None, None], mode="markers", marker=marker, showlegend=False, hoverinfo="skip", row=1, col=1
    )


def _sentence(part: pd.DataFrame) -> str:
    """The layer that can lose least, by the mean over the ratios."""
    means = part.groupby("layer", sort=False)["accuracy"].mean()
    weakest, toughest = means.idxmin(), means.idxmax()
    half = part[np.isclose(part["ratio"], 0.5)].set_index("layer")["accuracy"].to_dict()
    said = {
        layer: f"{layer} ({base.percent(half[layer])} without half of it)" if layer in half else str(layer)
        for layer in (weakest, toughest)
    }
    return f"{part['label'].iloc[0]}, most sensitive layer {said[weakest]}, least layer {said[toughest]}"


FIGURE = base.Figure(
    "sensitivity",
    TITLE,
    "Counted: the share of validation samples classified rightly when a layer loses the filters of its lowest scores, all other "
    "layers whole and nothing trained again. A line that falls early is a sensitive layer, which Li et al. 2017 prune less or "
    "leave out. Filters that must stay, because a sum reads them, are not tried.",
    r"\text{accuracy}_\ell(r) = \text{accuracy without the } \lfloor r\, n_\ell \rfloor "
    r"\text{ lowest of the } n_\ell \text{ filters of layer } \ell",
    data,
    plot,
)

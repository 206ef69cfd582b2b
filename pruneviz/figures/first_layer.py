"""The first layer as images: its weights, those removed, and which inputs are still read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from pruneviz.figures import base
from pruneviz.figures.eigenvectors import SCALE
from pruneviz.figures.importance import alike
from pruneviz.methods.base import Start
from pruneviz.records.arrays import WHOLE, Kept, Ranking
from pruneviz.records.stages import Stage

if TYPE_CHECKING:
    from pruneviz.store import Run

ORDER = 15
TITLE = "The first layer's weights"
INPUTS_TITLE = "Which inputs are still read"
COLUMNS = [
    *base.WHO, "start", "sparsity", "when", "unit", "channel", "row", "column", "value", "removed",
]  # fmt: skip
INPUT_COLUMNS = [*base.WHO, "sparsity", "asked", "channel", "row", "column", "kept"]
NOTHING = "Choose a run on images that recorded its masks."


def data(runs: Sequence[Run], sparsity: float = base.SPARSITY) -> pd.DataFrame:
    """One row a weight of the first units: ``value`` at ``channel``, ``row``, ``column`` (from 0) of ``unit`` (from 1).

    ``when``: "before", once for each network, and "after" training again, for each run; those after it first, six panels at
    most. ``removed``: 0 there, though not before. Directions have no removed weights.
    """
    runs, names = list(runs), base.labels(runs)
    first: list[np.ndarray] = []
    before, after = [], []
    for run in runs:
        at = base.nearest(run, Kept, sparsity)
        then, now = run.read(Ranking, stage=Stage.START), None if at is None else run.read(Kept, at)
        if then is None or then.weights is None or now is None or now.weights is None:
            continue
        about = {**base.who(run, names), "start": run.config.start}
        if not any(alike(then.weights.astype(float), known) for known in first):
            first.append(then.weights.astype(float))
            before.append(
                (about | {"when": "before", "sparsity": 0.0}, then.weights, np.zeros(then.weights.shape, bool))
            )
        gone = (now.weights == 0) & (now.kept is not None)
        after.append((about | {"when": "after", "sparsity": at}, now.weights, gone))
    room = max(0, base.MAX_FACETS - len(after))
    rows = [row for panel in [*before[:room], *after][: base.MAX_FACETS] for row in _pixels(*panel)]
    return pd.DataFrame(rows, columns=COLUMNS)


def _pixels(about: dict[str, Any], weights: np.ndarray, gone: np.ndarray) -> list[dict[str, Any]]:
    return [
        {
            **about, "unit": u + 1, "channel": c, "row": y, "column": x, "value": float(weights[u, c, y, x]),
            "removed": bool(gone[u, c, y, x]),
        }
        for u, c, y, x in np.ndindex(*weights.shape)
    ]  # fmt: skip


def plot(table: pd.DataFrame) -> go.Figure:
    """A panel before pruning and one a run after it, each a mosaic of units; red and blue are the signs, grey is removed."""
    if table.empty:
        return base.empty(TITLE, NOTHING)
    panels = [part for _, part in base.groups(table, ["run", "when"])]
    fig, height = base.facets([_heading(part) for part in panels], lines=2, space=56, row=200, horizontal_spacing=0.03)
    most = float(table["value"].abs().quantile(0.995)) or 1.0
    for i, part in enumerate(panels):
        _mosaic(fig, part, i, base.place(i, len(panels)))
    units, removed = table["unit"].max(), [_share(part) for part in panels]
    alt = f"Weights of the first {units} units of the first layer as images. " + base.listed(
        [f"{_name(part)}: {base.percent(share)} of them removed" for part, share in zip(panels, removed, strict=True)],
        6,
    )
    fig = base.finish(fig, f"{TITLE}: {units} units", f"{alt}.", height=height - 40)
    shown = {"title": {"text": "weight", "side": "top"}, "thickness": 14, "outlinewidth": 0, "nticks": 5}
    greys = [[0, base.faded(base.NEUTRAL, 0)], [1, base.faded(base.NEUTRAL, 0.45)]]
    fig.update_layout(
        margin={"t": base.TOP + 14, "b": 40},
        coloraxis={"colorscale": SCALE, "cmin": -most, "cmax": most, "colorbar": shown},
        coloraxis2={
            "colorscale": greys,
            "cmin": 0,
            "cmax": 1,
            "showscale": False,
        },
    )
    return _bare(fig, "units, side by side", "rows")


def _bare(fig: go.Figure, across: str, down: str) -> go.Figure:
    """Images without ticks, titled at the first panel."""
    plain = {"showgrid": False, "showline": False, "ticks": "", "showticklabels": False}
    fig.update_xaxes(plain).update_yaxes(plain)
    fig.update_xaxes(title_text=across, row=1, col=1).update_yaxes(title_text=down, row=1, col=1)
    return fig.update_annotations(font_size=13)


def _mosaic(fig: go.Figure, part: pd.DataFrame, facet: int, at: dict[str, Any]) -> None:
    """Units one beside the other, their channels below each other where there are several."""
    shape = [int(part[axis].max()) + 1 for axis in ("channel", "row", "column")]
    images = part["value"].to_numpy().reshape(-1, *shape)
    gone = part["removed"].to_numpy().reshape(images.shape)
    units, channels, rows, columns = images.shape
    across = min(units, max(1, round((1.5 * units * channels * rows / columns) ** 0.5)))
    down = -(-units // across)
    size = (down * (channels * rows + 1) - 1, across * (columns + 1) - 1)
    z = np.full(size, np.nan, np.float32)
    grey, unit = np.zeros(size, np.uint8), np.zeros(size, np.uint8)
    for u, c in np.ndindex(units, channels):
        top, left = u // across * (channels * rows + 1) + c * rows, u % across * (columns + 1)
        place = slice(top, top + rows), slice(left, left + columns)
        z[place] = np.where(gone[u, c], np.nan, images[u, c])
        grey[place] = gone[u, c]
        unit[place] = u + 1
    same = {"x": np.arange(size[1]), "y": np.arange(size[0]), **at}
    if gone.any():
        fig.add_heatmap(z=grey, coloraxis="coloraxis2", hoverinfo="skip", **same)
    fig.add_heatmap(
        z=z, customdata=unit, coloraxis="coloraxis", hoverongaps=False, name="",
        hovertemplate="unit %{customdata}<br>weight %{z:.3g}", **same,
    )  # fmt: skip
    axis = facet + 1 if facet else ""
    fig.update_yaxes(autorange="reversed", scaleanchor=f"x{axis}", constrain="domain", **at)
    fig.update_xaxes(constrain="domain", **at)


def _share(part: pd.DataFrame) -> float:
    return float(part["removed"].mean())


def _name(part: pd.DataFrame) -> str:
    first = part.iloc[0]
    return "Before pruning" if first["when"] == "before" else f"{first['label']}, {base.percent(first['sparsity'])}"


def _heading(part: pd.DataFrame) -> str:
    first = part.iloc[0]
    network = "the trained network" if first["start"] == Start.TRAINED else "the initial network"
    what = network if first["when"] == "before" else f"{base.percent(_share(part))} of these removed"
    return f"<b>{_name(part)}</b><br><span style='font-size:11px'>{what}</span>"


def inputs(runs: Sequence[Run], sparsity: float = base.SPARSITY) -> pd.DataFrame:
    """One row an input of a first linear layer: the share of its connections ``kept`` at ``channel``, ``row``, ``column``."""
    runs, names = list(runs), base.labels(runs)
    rows: list[dict[str, Any]] = []
    for run in runs:
        at = base.nearest(run, Kept, sparsity)
        found = None if at is None else run.read(Kept, at)
        if found is None or (pixels := found.pixels) is None:
            continue
        about = {**base.who(run, names), "sparsity": at, "asked": sparsity}
        rows += [
            {**about, "channel": c, "row": y, "column": x, "kept": float(pixels[c, y, x]) / WHOLE}
            for c, y, x in np.ndindex(*pixels.shape)
        ]
    table = pd.DataFrame(rows, columns=INPUT_COLUMNS)
    return table[table["run"].isin(list(dict.fromkeys(table["run"]))[: base.MAX_FACETS])]


def inputs_plot(table: pd.DataFrame) -> go.Figure:
    """A panel a run: dark where many connections of an input are left; one scale for all."""
    if table.empty:
        return base.empty(
            INPUTS_TITLE, "Choose a run whose first layer is linear and reads images, such as LeNet-300-100."
        )
    panels = [part for _, part in base.groups(table, "run")]
    dead = [int((part["kept"] == 0).sum()) for part in panels]
    titles = [
        f"<b>{part['label'].iloc[0]}</b><br><span style='font-size:11px'>{gone} of {len(part):,} read by none</span>"
        for part, gone in zip(panels, dead, strict=True)
    ]
    fig, height = base.facets(titles, lines=2, space=64, row=190, horizontal_spacing=0.03)
    for i, part in enumerate(panels):
        at = base.place(i, len(panels))
        grid = part.groupby(["row", "column"])["kept"].mean().unstack()
        fig.add_heatmap(
            x=grid.columns, y=grid.index, z=grid.to_numpy(np.float32), coloraxis="coloraxis", name="", xgap=1, ygap=1,
            hovertemplate="row %{y}, column %{x}<br>%{z:.1%} of its connections left", **at,
        )  # fmt: skip
        axis = i + 1 if i else ""
        fig.update_yaxes(autorange="reversed", scaleanchor=f"x{axis}", constrain="domain", **at)
        fig.update_xaxes(constrain="domain", **at)
    most = float(table["kept"].max()) or 1.0
    at = base.percent(table["asked"].iloc[0])
    said = [
        f"{part['label'].iloc[0]}, {gone} of {len(part)} inputs read by none"
        for part, gone in zip(panels, dead, strict=True)
    ]
    alt = f"Share of each input's connections that is left at {at} sparsity: {base.listed(said, 6)}."
    fig = base.finish(fig, f"{INPUTS_TITLE} at {at}", alt, height=height - 40)
    bar = {
        "title": {"text": "left", "side": "top"},
        "tickformat": ".0%",
        "thickness": 14,
        "outlinewidth": 0,
        "nticks": 5,
    }
    fig.update_layout(
        margin={"t": base.TOP + 14, "b": 40},
        coloraxis={"colorscale": "Viridis", "cmin": 0, "cmax": most, "colorbar": bar},
    )
    return _bare(fig, "column", "row")


FIGURE = base.Figure(
    "first",
    TITLE,
    "Shown: the weights of the first layer's first units, each as the image that it looks for; of a convolution, its "
    "filters. Red and blue are the two signs, on one scale; grey: removed. Before pruning, and after pruning and training "
    "again. EigenDamage removes directions, so no single weight of its is gone.",
    r"W_1[u, \cdot] \odot m_1[u, \cdot]",
    data,
    plot,
)
INPUTS = base.Figure(
    "inputs",
    INPUTS_TITLE,
    "Shown: for each input (a pixel), the share of its connections to the first layer that is left; of images in colour, "
    "the mean over the three. An input that lost all of them is no longer seen by the network.",
    r"\frac{1}{n} \sum_{u=1}^{n} m_1[u, p]",
    inputs,
    inputs_plot,
)
FIGURES = (FIGURE, INPUTS)

"""Eigenvectors: the patterns that vary most in what the first layer reads, as images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from pruneviz.figures import base
from pruneviz.figures.importance import alike
from pruneviz.figures.spectra import spectrum
from pruneviz.records.arrays import Directions, Spectra
from pruneviz.records.stages import Stage

if TYPE_CHECKING:
    from pruneviz.store import Run

ORDER = 35
TITLE = "Leading eigenvectors of A in the first layer"
COLUMNS = ["run", "label", "layer", "vector", "share", "channel", "row", "column", "value"]
SHADES = ("red", "green", "blue")
MOST = 24  # images
SCALE = [[0, "#2166ac"], [0.5, "#f7f7f7"], [1, "#b2182b"]]


def data(runs: Sequence[Run]) -> pd.DataFrame:
    """One row a pixel: ``value`` of eigenvector ``vector`` (from 1) at ``channel``, ``row``, ``column`` (from 0).

    ``share``: its eigenvalue as a share of all. Runs that read the same inputs have the same eigenvectors: they stand once.
    """
    runs, names = list(runs), base.labels(runs)
    seen: list[np.ndarray] = []
    rows: list[dict[str, Any]] = []
    for run in runs:
        found, spectra = run.read(Directions, stage=Stage.START), run.read(Spectra, stage=Stage.START)
        for layer, images in zip(found.layers, found.vectors, strict=True) if found else ():
            if images is None or any(alike(np.abs(images.astype(float)), known) for known in seen):
                continue
            seen.append(np.abs(images.astype(float)))
            values = spectrum(spectra, layer).get("A", np.zeros(0))
            shares = np.r_[values[: len(images)] / (values.sum() or 1), np.full(len(images), np.nan)][: len(images)]
            rows += [
                {
                    "run": run.id, "label": names[run.id], "layer": layer, "vector": v + 1, "share": float(shares[v]),
                    "channel": c, "row": y, "column": x, "value": float(images[v, c, y, x]),
                }
                for v, c, y, x in np.ndindex(*images.shape)
            ]  # fmt: skip
    return pd.DataFrame(rows, columns=COLUMNS)


def plot(table: pd.DataFrame) -> go.Figure:
    """A row of images for each channel and kind of input; red and blue are the two signs."""
    if table.empty:
        return base.empty(
            TITLE, "Choose a run of L1 filters, Kron-OBD, Kron-OBS or EigenDamage on images: they record eigenvectors."
        )
    lines = list(base.groups(table, ["run", "channel"]))
    across, channels, several = int(table["vector"].max()), table["channel"].nunique(), table["run"].nunique() > 1
    drawn = lines[: MOST // across]
    first = drawn[0][1].drop_duplicates("vector")
    titles = [
        f"<b>{r.vector}</b>" + (f": {base.percent(r.share)}" if r.share == r.share else "") for r in base.rows(first)
    ]
    fig = make_subplots(len(drawn), across, column_titles=titles, horizontal_spacing=0.02, vertical_spacing=0.05)
    for i, ((_, channel), part) in enumerate(drawn, 1):
        for vector, pixels in part.groupby("vector"):
            _image(fig, pixels, i, int(str(vector)), across)
        shade = SHADES[channel] if channels == 3 else f"channel {channel}" if channels > 1 else ""
        words = (part["label"].iloc[0] if several else "", shade, "row")
        fig.update_yaxes(title_text=", ".join(word for word in words if word), row=i, col=1)
    layer, shares = table["layer"].iloc[0], ", ".join(base.percent(share) for share in first["share"].dropna())
    size = f"{table['row'].max() + 1} x {table['column'].max() + 1}"
    alt = f"The {across} leading eigenvectors of A of layer {layer} as images of {size} pixels" + (
        f"; their shares of all that varies are {shares}." if shares else "."
    )
    height = base.TOP + 150 * len(drawn) + 64
    fig = base.finish(fig, TITLE, alt, height=height, note=base.too_many(lines, len(drawn)), least=104 * across)
    fig.update_layout(
        margin={"l": 48, "b": 48}, coloraxis={"colorscale": SCALE, "cmin": -1, "cmax": 1, "showscale": False}
    )
    fig.update_xaxes(showgrid=False, showline=False, ticks="", showticklabels=False)
    fig.update_xaxes(title_text="column", row=len(drawn), col=1)
    fig.update_yaxes(showgrid=False, showticklabels=False)
    return fig.update_annotations(font_size=13)


def _image(fig: go.Figure, pixels: pd.DataFrame, row: int, col: int, across: int) -> None:
    grid = pixels.pivot(index="row", columns="column", values="value")
    most = float(np.abs(grid.to_numpy()).max()) or 1.0
    fig.add_heatmap(
        x=grid.columns, y=grid.index, z=(grid.to_numpy() / most).astype(np.float32), coloraxis="coloraxis", name="",
        hovertemplate=f"eigenvector {col}, row %{{y}}, column %{{x}}<br>%{{z:.2f}} of its largest pixel", row=row, col=col,
    )  # fmt: skip
    square: dict[str, Any] = {
        "scaleanchor": f"x{(row - 1) * across + col}",
        "constrain": "domain",
        "autorange": "reversed",
    }
    fig.update_yaxes(**square, row=row, col=col).update_xaxes(constrain="domain", row=row, col=col)


FIGURE = base.Figure(
    "eigenvectors",
    TITLE,
    "Shown: the six patterns that vary most in what the first layer reads (patches of a convolution, whole images else), "
    "with their shares of all that varies; of images in colour, a row for each channel. Red and blue are the two signs, "
    "each pattern scaled to its largest pixel. They depend on the data alone, so they are the same before and after "
    "pruning, and for all networks that read the same inputs. Above they are directions 1 to 6 of A, where that layer is "
    "chosen.",
    r"A = E[a a^\top] = \sum_j \lambda_j\, q_j q_j^\top",
    data,
    plot,
)

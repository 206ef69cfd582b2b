"""Importance: what each pair of directions of a layer's Kronecker eigenbasis is worth, as a heatmap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from pruneviz.figures import base
from pruneviz.records.arrays import Directions
from pruneviz.records.stages import Stage

if TYPE_CHECKING:
    from pruneviz.store import Run

ORDER = 30
TITLE = "Importance of directions"
COLUMNS = [
    *base.WHO, "layer", "when", "sparsity", "row", "rows", "column", "columns", "importance", "of_rows",
    "of_columns",
]  # fmt: skip
DECADES = 6  # powers of ten below the largest that are told apart
ROUNDING = 1e-10  # of the largest: what lies below is left blank
NOTHING = "Choose a run that removes filters or directions (L1 filters, Kron-OBD, Kron-OBS, EigenDamage), and a layer."


def data(runs: Sequence[Run], sparsity: float = base.SPARSITY, layer: str | None = None) -> pd.DataFrame:
    """One row a block of the matrix: its first ``row`` and ``column`` (directions of S and A by falling eigenvalue, from
    1), how many ``rows`` and ``columns`` it spans, and its ``importance``, their sum, in nats.

    Before pruning once for each network, and after it for each run: six matrices at most.
    """
    runs, names = list(runs), base.labels(runs)
    wanted = base.chosen(runs, layer)
    first: list[np.ndarray] = []
    before, after = [], []
    for run in runs:
        about = {**base.who(run, names), "layer": wanted}
        found = _matrix(run.read(Directions, stage=Stage.START), wanted)
        if found is not None and not any(alike(found[0], m) for m in first):
            first.append(found[0])
            before.append((about | {"when": "before", "sparsity": 0.0}, *found))
        at = base.nearest(run, Directions, sparsity, Stage.TUNED)
        if at is not None and (found := _matrix(run.read(Directions, at, Stage.TUNED), wanted)) is not None:
            after.append((about | {"when": "after", "sparsity": at}, *found))
    rows = [row for panel in [*before, *after][: base.MAX_FACETS] for row in _blocks(*panel)]
    return pd.DataFrame(rows, columns=COLUMNS)


def alike(first: np.ndarray, second: np.ndarray) -> bool:
    """Whether two matrices are one up to rounding."""
    return first.shape == second.shape and np.allclose(first, second, rtol=0, atol=1e-2 * np.abs(first).max(initial=0))


def _matrix(found: Directions | None, layer: str | None) -> tuple[np.ndarray, np.ndarray] | None:
    if found is None or layer not in found.layers:
        return None
    i = found.layers.index(layer)
    theta, shape = found.theta[i], found.shape[i]
    return None if theta is None or shape is None else (theta.astype(float), shape)


def _blocks(about: dict[str, Any], theta: np.ndarray, shape: np.ndarray) -> list[dict[str, Any]]:
    starts = [np.array_split(np.arange(n), k) for n, k in zip(shape, theta.shape, strict=True)]
    whole = {"of_rows": int(shape[0]), "of_columns": int(shape[1])}
    return [
        {
            **about, **whole, "row": int(r[0]) + 1, "rows": len(r), "column": int(c[0]) + 1, "columns": len(c),
            "importance": float(theta[i, j]),
        }
        for i, r in enumerate(starts[0]) for j, c in enumerate(starts[1])
    ]  # fmt: skip


def plot(table: pd.DataFrame) -> go.Figure:
    """One panel before pruning, one a run after it; one logarithmic colour scale for all."""
    if table.empty:
        return base.empty(TITLE, NOTHING)
    panels = [part for _, part in base.groups(table, ["run", "when"])]
    fig, height = base.facets([_heading(part, len(panels)) for part in panels], lines=2, space=130, row=210)
    some = table.loc[table["importance"] > 0, "importance"].to_numpy()
    top = float(np.log10(some.max(initial=1e-30)))
    low = max(top - DECADES, float(np.log10(some.min(initial=10**top))))
    for i, part in enumerate(panels):
        at = base.place(i, len(panels))
        _heatmap(fig, part, low, top, at)
        fig.update_xaxes(title_text=f"direction of A, of {part['of_columns'].iloc[0]:,}", **at)
        fig.update_yaxes(title_text="direction of S" if at["col"] == 1 else "", **at)
    values, texts = base.log_ticks(low, top)
    fig.update_layout(
        coloraxis={
            "colorscale": "Viridis", "cmin": low, "cmax": max(top, low + 1e-6),
            "colorbar": {
                "title": {"text": "nats", "side": "top"}, "tickvals": values, "ticktext": texts, "thickness": 14, "outlinewidth": 0,
            },
        }
    )  # fmt: skip
    layer = table["layer"].iloc[0]
    alt = f"Importance of direction pairs of layer {layer}: {base.listed([_sentence(part) for part in panels], 6)}."
    fig = base.finish(fig, f"{TITLE} of layer {layer}", alt, height=height)
    fig.update_layout(margin={"t": base.TOP + 14, "b": 64})
    fig.update_xaxes(showgrid=False).update_yaxes(showgrid=False)
    return fig.update_annotations(font_size=13)


def _heatmap(fig: go.Figure, part: pd.DataFrame, low: float, top: float, at: dict[str, Any]) -> None:
    grid = part.pivot(index="row", columns="column", values="importance")
    values = grid.to_numpy()
    with np.errstate(divide="ignore"):
        z = np.where(values > ROUNDING * 10**top, np.maximum(np.log10(values), low), np.nan)
    edges = [np.r_[axis, whole + 1] - 0.5 for axis, whole in zip((grid.columns, grid.index), _whole(part), strict=True)]
    fig.add_heatmap(
        x=edges[0], y=edges[1], z=z.astype(np.float32), customdata=values.astype(np.float32), coloraxis="coloraxis",
        hovertemplate="direction %{x:.0f} of A, %{y:.0f} of S (or their block)<br>%{customdata:.3g} nats<extra></extra>", **at,
    )  # fmt: skip
    fig.update_yaxes(range=[edges[1][-1], edges[1][0]], nticks=5, **at)  # the largest eigenvalue above
    fig.update_xaxes(range=[edges[0][0], edges[0][-1]], nticks=5, **at)


def _whole(part: pd.DataFrame) -> tuple[int, int]:
    return int(part["of_columns"].iloc[0]), int(part["of_rows"].iloc[0])


def _heading(part: pd.DataFrame, count: int) -> str:
    first = part.iloc[0]
    name = (
        "Before pruning" if first["when"] == "before" else f"{first['label']}, after {base.percent(first['sparsity'])}"
    )
    return f"<b>{name}</b><br><span style='font-size:11px'>{base.number(part['importance'].sum())} nats in all</span>"


def _sentence(part: pd.DataFrame) -> str:
    first, total = part.iloc[0], part["importance"].sum()
    most = part.iloc[part["importance"].argmax()]
    name = (
        "before pruning" if first["when"] == "before" else f"{first['label']} after {base.percent(first['sparsity'])}"
    )
    share = base.percent(most["importance"] / total) if total > 0 else "0%"
    return f"{name}, {base.number(total)} nats in all, {share} of them around direction {most['column']} of A and {most['row']} of S"


FIGURE = base.Figure(
    "importance",
    TITLE,
    "Shown: how much the loss should rise when one entry of the layer's weights is removed in the Kronecker eigenbasis. "
    "Columns: directions of A (inputs), rows: directions of S (gradients), largest eigenvalue first; of layers with more "
    "than 32 directions on a side, neighbours are added up in blocks. Blank: nothing is left there, or no more than "
    "rounding. EigenDamage removes whole rows and columns, those of the smallest sums; the basis is taken anew after "
    "pruning and training.",
    r"\Theta = \tfrac12\, (Q_S^\top W Q_A)^{2} \odot \lambda_S \lambda_A^\top",
    data,
    plot,
)

"""Jacobians: whether a signal keeps its size through each layer, before pruning, after it, and trained again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from pruneviz.figures import base

if TYPE_CHECKING:
    from pruneviz.store import Run

TITLE = "Jacobian singular values of each layer"
TREND_TITLE = "Jacobian singular values against sparsity"
NOTHING = "Choose a finished run that recorded Jacobians."
WHEN = {"start": "before pruning", "pruned": "pruned", "tuned": "trained again"}
STAGES = ("pruned", "tuned")
BOX = {"low": 0.05, "q1": 0.25, "median": 0.5, "q3": 0.75, "high": 0.95}
COLUMNS = ["run", "method", "label", "layer", "when", "sparsity", "mean", "spread", *BOX]
TREND_COLUMNS = ["run", "method", "label", "layer", "when", "sparsity", "mean", "spread"]


def data(runs: Sequence[Run], sparsity: float = base.SPARSITY) -> pd.DataFrame:
    """One row a run, layer and moment: mean, spread (mean distance from 1) and the 5, 25, 50, 75 and 95% quantiles."""
    runs, names = list(runs), base.labels(runs)
    rows: list[dict[str, Any]] = []
    for run in runs:
        for when in WHEN:
            at = 0.0 if when == "start" else base.nearest(run, f"jacobians-{when}", sparsity)
            name = "jacobians-start" if when == "start" else f"jacobians-{when}-{at:g}" if at is not None else ""
            a = run.arrays(name)
            for i, layer in enumerate(run.layers(name)):
                values = a["quantiles"][i]
                levels = np.linspace(0, 1, len(values))
                rows.append({
                    "run": run.id, "method": run.config.method, "label": names[run.id], "layer": layer, "when": when,
                    "sparsity": at, "mean": float(a["mean"][i]), "spread": float(a["spread"][i]),
                    **{key: float(np.interp(level, levels, values)) for key, level in BOX.items()},
                })  # fmt: skip
    return pd.DataFrame(rows, columns=COLUMNS)


def plot(table: pd.DataFrame) -> go.Figure:
    """One facet a run, one group a layer: a hollow, a light and a solid box, and a line at 1."""
    if table.empty:
        return base.empty(TITLE, NOTHING)
    facets = list(table.groupby("run", sort=False))
    drawn = facets[: base.MAX_FACETS]
    fig, height = base.facets(
        [f"<b>{part['label'].iloc[0]}</b>" for _, part in drawn], shared_yaxes="all", horizontal_spacing=0.05
    )
    for i, (_, part) in enumerate(drawn):
        place = base.place(i, len(drawn))
        for when, boxes in part.groupby("when", sort=False):
            _boxes(fig, boxes, str(when), legend=i == 0, **place)
        base.rule(fig, y=1, facet=i)
        fig.update_xaxes(title_text="layer", type="category", **place)
        fig.update_yaxes(title_text="singular value" if place["col"] == 1 else "", rangemode="tozero", **place)
    at = table["sparsity"].max()
    said = [
        f"{label}, layer {layer}, median {start['median']:.2f} before, {end['median']:.2f} after"
        for (label, layer), part in table.groupby(["label", "layer"], sort=False)
        for start, end in [(part.iloc[0], part.iloc[-1])]
    ]
    alt = f"Singular values of the layers' Jacobians at {base.percent(at)} sparsity: {base.listed(said, 8)}."
    title = f"Jacobian singular values at {base.percent(at)} sparsity"
    fig = base.finish(fig, title, alt, height=height, note=base.too_many(facets, base.MAX_FACETS))
    fig.update_layout(boxmode="group", boxgap=0.25, boxgroupgap=0.15)
    return fig.update_annotations(font_size=13)


def _boxes(fig: go.Figure, part: pd.DataFrame, when: str, *, legend: bool, row: int, col: int) -> None:
    shade = base.colour(part["method"].iloc[0])
    fill = {"start": "rgba(0,0,0,0)", "pruned": base.faded(shade, 0.22), "tuned": base.faded(shade, 0.6)}[when]
    fig.add_box(
        x=part["layer"], q1=part["q1"], median=part["median"], q3=part["q3"], lowerfence=part["low"],
        upperfence=part["high"], name=WHEN[when], legendgroup=when, offsetgroup=when,
        showlegend=legend, fillcolor=fill, line={"color": shade, "width": 1.4}, row=row, col=col,
    )  # fmt: skip


def trend_data(runs: Sequence[Run], layer: str | None = None) -> pd.DataFrame:
    """One row a run, sparsity and moment (pruned, tuned): mean and spread, of a layer or averaged over the layers.

    Sparsity 0 is the network before pruning.
    """
    runs, names = list(runs), base.labels(runs)
    wanted = base.module(layer) if layer is not None else None
    rows: list[dict[str, Any]] = []
    for run in runs:
        about = {"run": run.id, "method": run.config.method, "label": names[run.id], "layer": wanted or "all layers"}
        for when in STAGES:
            points = [(0.0, "jacobians-start")] + [(s, f"jacobians-{when}-{s:g}") for s in base.sparsities(run)]
            for at, name in points:
                picked = [i for i, found in enumerate(run.layers(name)) if wanted in (None, found)]
                if picked:
                    a = run.arrays(name)
                    means = {key: float(a[key][picked].mean()) for key in ("mean", "spread")}
                    rows.append({**about, "when": when, "sparsity": at, **means})
    return pd.DataFrame(rows, columns=TREND_COLUMNS)


def trend_plot(table: pd.DataFrame) -> go.Figure:
    """Mean on the left, spread on the right; dotted right after pruning, solid trained again."""
    if table.empty:
        return base.empty(TREND_TITLE, NOTHING)
    runs = list(table["run"].unique())
    table = table[table["run"].isin(runs[: base.MAX_RUNS])]
    titles = ["<b>Mean</b>", "<b>Mean distance from 1</b>"]
    fig = make_subplots(1, 2, subplot_titles=titles, horizontal_spacing=0.12)
    variant = base.variants(table)
    for (_, when), part in table.groupby(["run", "when"], sort=False):
        first, after = part.iloc[0], when == "tuned"
        other = variant[first["label"]]
        for col, value in enumerate(("mean", "spread"), 1):
            fig.add_scatter(
                x=base.spaced(part["sparsity"]), y=part[value], mode="lines+markers", legendgroup=first["run"],
                name=first["label"], showlegend=after and col == 1,
                marker={"symbol": base.symbol(first["method"]) + ("-open" if other else ""), "size": 7 if after else 5},
                line={"color": base.colour(first["method"]), "width": 2, "dash": base.DASHES[other % 4] if after else "dot"},
                customdata=[base.percent(s) for s in part["sparsity"]],
                hovertemplate=f"{first['label']}, {WHEN[str(when)]}<br>%{{customdata}} removed: %{{y:.3f}}<extra></extra>",
                row=1, col=col,
            )  # fmt: skip
    for dash, name in (("dot", "right after pruning"), ("solid", "trained again")):
        base.key(fig, name, dash, row=1, col=1)
    base.rule(fig, y=1)
    last = table[table["when"] == "tuned"].groupby("label", sort=False).last()
    said = [f"{name} {r['mean']:.2f} at {base.percent(r['sparsity'])}" for name, r in last.iterrows()]
    alt = f"Mean Jacobian singular value against sparsity, trained again: {base.listed(said, 6)}."
    layer = table["layer"].iloc[0]
    title = TREND_TITLE if layer == "all layers" else f"{TREND_TITLE}, layer {layer}"
    fig = base.finish(fig, title, alt, height=380, note=base.too_many(runs))
    fig.update_xaxes(**base.sparsity_axis(table["sparsity"])).update_xaxes(title_text="removed (%, log scale)")
    fig.update_yaxes(title_text="singular value", row=1, col=1)
    return fig.update_yaxes(rangemode="tozero").update_annotations(font_size=13)


FIGURE = base.Figure(
    "jacobians",
    TITLE,
    "Shown: singular values of each layer's input-output Jacobian on 16 training samples, pooled. Boxes span the middle "
    "half, whiskers 5% to 95%, the bar is the median. Hollow: before pruning; light: pruned; solid: trained again. "
    "Dashed: 1, where a signal passes without growing or shrinking.",
    r"J_\ell = D_\ell W_\ell, \qquad D_\ell = \operatorname{diag}\big(\phi'(h_\ell)\big)",
    data,
    plot,
)
TREND = base.Figure(
    "trend",
    TREND_TITLE,
    "Shown: the mean singular value and its mean distance from 1, over the samples and (unless one is chosen) over layers "
    "with equal weight. Dotted: right after pruning; solid: trained again. At 0% stands the network before pruning.",
    r"\bar\sigma = \operatorname{mean}_i \sigma_i, \qquad \operatorname{mean}_i |\sigma_i - 1|",
    trend_data,
    trend_plot,
)

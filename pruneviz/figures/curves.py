"""Curves: accuracy or loss against what is left, as the mean over seeds with its range."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from pruneviz.datasets import DATASETS
from pruneviz.figures import base
from pruneviz.models import MODELS

if TYPE_CHECKING:
    from pruneviz.store import Run

TITLES = {
    "sparsity": "sparsity",
    "parameters": "parameters left",
    "flops": "FLOPs of one sample",
    "epochs": "training epochs spent",
}
AXES = {
    "parameters": "parameters left (log scale)",
    "flops": "FLOPs a sample, zeroed weights not counted (log scale)",
    "epochs": "training epochs spent in all",
}
SPLITS = {"test": "test", "val": "validation", "train": "training"}
DASH = {"zeroed": "dashdot", "pruned": "dot", "tuned": "solid"}
SAID = {"zeroed": "by zeroing only", "pruned": "right after pruning", "tuned": "trained again"}
KEYS = ["label", "method", "start", "stage", "sparsity"]
COLUMNS = [*KEYS, "metric", "split", "axis", "scale", "x", "mean", "low", "high", "seeds"]


def data(
    runs: Sequence[Run],
    metric: str = "accuracy",
    x: str = "sparsity",
    split: str = "test",
    stage: str | Sequence[str] = "tuned",
    scale: str = "linear",
) -> pd.DataFrame:
    """One row a curve and sparsity: ``mean``, ``low`` and ``high`` over ``seeds`` runs that differ in the seed alone.

    ``x``: sparsity (the one reached), parameters, flops or epochs. ``stage``: tuned, pruned (survivors moved where the
    method moves them) and zeroed (before they move), one or several, or "both" for pruned and tuned. A run that moves
    nothing recorded one network for zeroed and pruned: it stands for either. The dense networks are rows of stage "dense".
    ``scale``: linear, or "error", which spreads accuracies near 100% by the log of the error; a loss is always on a log scale.
    """
    asked = ("pruned", "tuned") if stage == "both" else (stage,) if isinstance(stage, str) else tuple(stage)
    runs, names, networks = list(runs), base.labels(runs, seeds=False), _networks(runs)
    points: list[dict[str, Any]] = []
    for run in runs:
        config = run.config
        about = {"label": names[run.id], "method": config.method, "start": str(config.start), "seed": config.seed}
        values = {(r.stage, r.sparsity, r.split, r.metric): r.value for r in run.metrics.itertuples(index=False)}
        moved = any(when == "zeroed" for when, *_ in values)
        for (recorded, at, part, name), value in values.items():
            when = "zeroed" if recorded == "pruned" and not moved and "pruned" not in asked else recorded
            if name != metric or part != split or when not in (*asked, "dense"):
                continue
            if when == "dense":
                dense = {"label": networks[config.dense_key], "method": "", "start": "", "stage": when}
                points.append({**about, **dense, "sparsity": 0.0, "x": 0.0, "value": value})
            else:
                place = _place(run, values, x, when, at)
                points.append({**about, "stage": when, "sparsity": at, "x": place, "value": value})
    table = pd.DataFrame(points, columns=[*KEYS, "seed", "x", "value"]).dropna(subset=["x", "value"])
    by_seed = table.groupby([*KEYS, "seed"], sort=False, as_index=False).mean()
    found = by_seed.groupby(KEYS, sort=False, as_index=False).agg(
        x=("x", "mean"), mean=("value", "mean"), low=("value", "min"), high=("value", "max"), seeds=("seed", "nunique")
    )
    return found.assign(metric=metric, split=split, axis=x, scale=scale if metric == "accuracy" else "log")[COLUMNS]


def _place(run: Run, values: dict[tuple, float], x: str, stage: str, sparsity: float) -> float | None:
    """Where a point stands on the x axis."""
    if x == "epochs":
        spent = values.get(("tuned", sparsity, "", "epochs"))
        return spent - run.config.after_pruning.epochs if spent is not None and stage != "tuned" else spent
    name = "reached" if x == "sparsity" else x
    found = values.get(("tuned" if stage == "tuned" else "pruned", sparsity, "", name))
    return found if found is not None else (sparsity if x == "sparsity" else None)


def _networks(runs: Sequence[Run]) -> dict[str, str]:
    """Dense network -> its name, with model and data set where there are several."""
    kinds = {run.config.dense_key: (run.config.model, run.config.dataset) for run in runs}
    several = len(set(kinds.values())) > 1
    return {k: f"dense {MODELS[m].title}, {DATASETS[d].title}" if several else "dense" for k, (m, d) in kinds.items()}


def plot(table: pd.DataFrame) -> go.Figure:
    """One line a method; a band from the worst to the best seed, the dense network dashed."""
    if table.empty or (table["stage"] == "dense").all():
        return base.empty("Accuracy against sparsity", "Choose runs that have reached their first sparsity.")
    metric, split, axis = (table[key].iloc[0] for key in ("metric", "split", "axis"))
    unit = "%" if metric == "accuracy" else ""
    lines = table[table["stage"] != "dense"]
    drawn = list(lines.groupby(["label", "stage"], sort=False))
    most = base.MAX_TRACES - len(DASH)
    kept, bands = drawn[:most], 2 * len(drawn) <= most
    variant, stages = base.variants(lines), lines.groupby("label")["stage"].unique()
    fig = go.Figure()
    if bands:
        for _, part in kept:
            _band(fig, part.sort_values("sparsity"))
    for (label, stage), part in kept:
        legend = stage == [when for when in DASH if when in set(stages[str(label)])][-1]
        _line(fig, part.sort_values("sparsity"), str(stage), variant[str(label)], unit, bars=not bands, legend=legend)
    if lines["stage"].nunique() > 1:
        for stage in (when for when in DASH if when in set(lines["stage"])):
            base.key(fig, SAID[stage], DASH[stage])
    for row in (
        table[table["stage"] == "dense"].groupby(["label", "scale"], sort=False).mean(numeric_only=True).itertuples()
    ):
        (label, scale), height = row.Index, float(row.mean)
        base.rule(fig, y=float(_height(height, metric, scale)))
        fig.add_annotation(
            text=f"{label} {_number(height, unit)}", x=1, xref="paper", xanchor="right", y=float(_height(height, metric, scale)),
            yanchor="bottom", showarrow=False, font_size=12,
        )  # fmt: skip
    alt = f"{SPLITS.get(split, split)} {metric} against {axis}: {_sentences(lines, unit)}."
    title = f"{SPLITS.get(split, split)} {metric} against {TITLES[axis]}"
    fig = base.finish(fig, title[0].upper() + title[1:], alt, height=460, note=base.too_many(drawn, most))
    _axes(fig, table, axis, f"{SPLITS.get(split, split)} {metric}")
    return fig


def _axes(fig: go.Figure, table: pd.DataFrame, axis: str, said: str) -> None:
    """Ticks in % removed, in % right, or 1, 2, 5 of a power of ten."""
    lines = table[table["stage"] != "dense"]
    metric, scale = table["metric"].iloc[0], table["scale"].iloc[0]
    if axis == "sparsity":
        fig.update_xaxes(**base.sparsity_axis(lines["sparsity"]))
    else:
        fig.update_xaxes(title_text=AXES[axis], type="linear" if axis == "epochs" else "log")
    if axis in ("parameters", "flops"):
        low, high = lines["x"].min(), lines["x"].max()
        ticks = [m * 10**e for e in range(13) for m in (1, 2, 5) if low * 0.9 <= m * 10**e <= high * 1.1]
        fig.update_xaxes(tickvals=ticks, ticktext=[f"{value:,}" for value in ticks])
    low, high = (float(_height(v, metric, scale)) for v in (table["low"].min(), table["high"].max()))
    if metric == "accuracy" and scale != "error":
        low = min(low, high - 10)  # a flat line must not magnify a point, nor the axis go far beyond 100%
    pad = 0.06 * (high - low) or 1
    fig.update_yaxes(title_text=f"{said} (%)", range=[low - pad, high + 1.6 * pad])
    if metric != "accuracy":
        values, texts = base.log_ticks(low, high)
        fig.update_yaxes(title_text=f"{said} (log scale)", tickvals=values, ticktext=texts)
    if scale == "error":
        ticks = [s for s in (0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999) if low <= base.spaced(s) <= high]
        fig.update_yaxes(tickvals=[float(base.spaced(s)) for s in ticks], ticktext=[f"{100 * s:g}" for s in ticks])
        fig.update_yaxes(title_text=f"{said} (%, log scale of the error)")


def _height(value: Any, metric: str, scale: str) -> Any:
    """Where a value stands on the y axis."""
    if metric != "accuracy":
        return np.log10(np.maximum(value, 1e-12))
    return base.spaced(np.minimum(value, 0.9995)) if scale == "error" else 100 * value


def _number(value: float, unit: str) -> str:
    return f"{100 * value:.1f}{unit}" if unit else f"{value:.3g}"


def _x(part: pd.DataFrame) -> list[float]:
    return list(base.spaced(part["x"]) if part["axis"].iloc[0] == "sparsity" else part["x"])


def _band(fig: go.Figure, part: pd.DataFrame) -> None:
    """From the lowest to the highest seed; nothing where there is one seed."""
    first, x = part.iloc[0], _x(part)
    if (part["seeds"] > 1).any():
        low, high = (list(_height(part[key], first["metric"], first["scale"])) for key in ("low", "high"))
        fig.add_scatter(
            x=[*x, *reversed(x)], y=[*high, *reversed(low)], fill="toself", mode="lines", line_width=0,
            fillcolor=base.faded(base.colour(first["method"]), 0.15), hoverinfo="skip", showlegend=False,
            legendgroup=first["label"],
        )  # fmt: skip


def _line(fig: go.Figure, part: pd.DataFrame, stage: str, variant: int, unit: str, *, bars: bool, legend: bool) -> None:
    first, shade = part.iloc[0], base.colour(part["method"].iloc[0])
    mean, low, high = (_height(part[key], first["metric"], first["scale"]) for key in ("mean", "low", "high"))
    said = [
        f"{base.percent(r.sparsity)} sparsity: <b>{_number(r.mean, unit)}</b>"
        + (f"<br>{_number(r.low, unit)} to {_number(r.high, unit)} over {r.seeds} seeds" if r.seeds > 1 else "")
        + (f"<br>{TITLES[r.axis]}: {r.x:,.0f}" if r.axis != "sparsity" else "")
        for r in part.itertuples()
    ]
    error = {"type": "data", "array": high - mean, "arrayminus": mean - low, "thickness": 1, "width": 2}
    fig.add_scatter(
        x=_x(part), y=mean, mode="lines+markers", name=first["label"], legendgroup=first["label"], showlegend=legend,
        line={"color": shade, "width": 2.2, "dash": base.DASHES[variant % 4] if stage == "tuned" else DASH[stage]},
        marker={"symbol": base.symbol(first["method"]) + ("-open" if variant else ""), "size": 8},
        error_y=error if bars and (part["seeds"] > 1).any() else None, customdata=said,
        hovertemplate=f"{first['label']}, {SAID[stage]}<br>%{{customdata}}<extra></extra>",
    )  # fmt: skip


def _sentences(lines: pd.DataFrame, unit: str) -> str:
    """The last point of each line, in words."""
    last = lines.sort_values("sparsity").groupby(["label", "stage"], sort=False).last().reset_index()
    said = [
        f"{r.label} {_number(r.mean, unit)} at {base.percent(r.sparsity)}"
        + (f" ({_number(r.low, unit)} to {_number(r.high, unit)} over {r.seeds} seeds)" if r.seeds > 1 else "")
        + (f" {SAID[r.stage]}" if lines["stage"].nunique() > 1 else "")
        for r in last.itertuples()
    ]
    return base.listed(said, 6)


FIGURE = base.Figure(
    "curves",
    "Accuracy against sparsity",
    "Counted: the share of test (or validation) samples classified rightly, or their mean loss, as the mean over runs that "
    "differ in the seed alone; the band reaches from the lowest to the highest seed. Dashed: the dense network. Sparsity is the share of "
    "prunable weights removed; parameters include biases; epochs include those that trained the dense network where the "
    "method starts from it. By zeroing only: weights are removed and nothing else moves; right after pruning: survivors have moved "
    "where the method, or a repair, moves them.",
    r"\text{sparsity} = 1 - \frac{\lVert m \rVert_0}{|m|}, \qquad \text{accuracy} = \frac{1}{n} \sum_i "
    r"[\arg\max f(x_i) = y_i]",
    data,
    plot,
)

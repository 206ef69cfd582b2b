"""Curves: accuracy or loss against what is left, as the mean over seeds with its range."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from pruneviz.figures import base
from pruneviz.records.metrics import (
    ACCURACY,
    CONNECTED,
    EPOCHS,
    REACHED,
    REACHED_COMPACTED,
    REACHED_CORE,
    TEST,
    VALIDATION,
    latency,
    speedup,
)
from pruneviz.records.stages import SAID, Stage
from pruneviz.records.units import Unit

if TYPE_CHECKING:
    from pruneviz.store import Run

ORDER = 50
TITLES = {
    "sparsity": "sparsity",
    "core": "sparsity without rotations",
    "parameters": "parameters left",
    "flops": "FLOPs of one sample",
    "latency_256": "latency of 256 samples",
    "latency_1": "latency of one sample",
    "epochs": "training epochs spent",
}
AXES = {
    "parameters": "parameters left (log scale)",
    "flops": "FLOPs a sample, zeroed weights not counted (log scale)",
    "latency_256": "latency of 256 samples (ms)",
    "latency_1": "latency of one sample (ms)",
    "epochs": "training epochs spent in all",
}
COUNTS = {"sparsity": REACHED_COMPACTED, "core": REACHED_CORE}  # axis -> what directions recorded; others: reached
SPEEDUPS = {latency(batch): speedup(batch) for batch in (256, 1)}  # axis -> how many times as fast
LATENCIES = tuple(SPEEDUPS)
ROUND = (0, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999)
NOISE = 0.95  # times as fast as dense: what lies above may be measured of the same network
SPLITS = {TEST: "test", VALIDATION: "validation", "train": "training"}
DASH = {Stage.ZEROED: "dashdot", Stage.PRUNED: "dot", Stage.TUNED: "solid"}
BOTH = "both"  # right after pruning, and trained again
KEYS = ["label", "method", "start", "stage", "sparsity"]
LOOKS = ["colour", "symbol", "unit"]
COLUMNS = [
    *KEYS,
    *LOOKS,
    "metric",
    "split",
    "axis",
    "scale",
    "x",
    "mean",
    "low",
    "high",
    "seeds",
    "speedup",
    "without_path",
]


def data(
    runs: Sequence[Run],
    metric: str = ACCURACY,
    x: str = "sparsity",
    split: str = TEST,
    stage: str | Sequence[str] = Stage.TUNED,
    scale: str = "linear",
) -> pd.DataFrame:
    """One row a curve and sparsity: ``mean``, ``low`` and ``high`` over ``seeds`` runs that differ in the seed alone.

    ``x``: sparsity (the one reached, rotations counted), core (the one reached, rotations left out), parameters, flops,
    latency_256, latency_1 (ms) or epochs. ``stage``: tuned, pruned (survivors moved where the method moves them) and zeroed
    (before they move), one or several, or "both" for pruned and tuned. A run that moves nothing recorded one network for
    zeroed and pruned: it stands for either. The dense networks are rows of stage "dense".
    ``scale``: linear, or "error", which spreads accuracies near 100% by the log of the error; a loss is always on a log scale.
    ``without_path``: in how many of the seeds no path is left from input to output.
    ``speedup``: how many times as fast as the dense network, of latencies that were measured: single zeroed weights have
    none, and stand at the latency that another run measured for the dense network.
    """
    asked = (Stage.PRUNED, Stage.TUNED) if stage == BOTH else (stage,) if isinstance(stage, str) else tuple(stage)
    runs = list(runs)
    names, networks = base.labels(runs, seeds=False), _networks(runs)
    looks = {names[run.id]: (run.about.colour, run.about.mark, run.about.removes) for run in reversed(runs)}
    clock = _Clock(runs, x)
    points: list[dict[str, Any]] = []
    for run in runs:
        config = run.config
        about = {"label": names[run.id], "method": config.method, "start": str(config.start), "seed": config.seed}
        values = {(r.stage, r.sparsity, r.split, r.metric): r.value for r in base.rows(run.metrics)}
        moved = any(when == Stage.ZEROED for when, *_ in values)
        for (recorded, at, part, name), value in values.items():
            when = Stage.ZEROED if recorded == Stage.PRUNED and not moved and Stage.PRUNED not in asked else recorded
            if name != metric or part != split or when not in (*asked, Stage.DENSE):
                continue
            if when == Stage.DENSE:
                dense = {"label": networks[_trained(run)], "method": "", "start": "", "stage": str(when)}
                points.append({**about, **dense, "sparsity": 0.0, "x": clock.dense(run) or 0.0, "value": value})
            else:
                place = clock.at(run, values, at) if x in LATENCIES else _place(run, values, x, when, at)
                times = values.get((Stage.PRUNED, at, "", SPEEDUPS.get(x, "")))
                points.append(
                    {
                        **about,
                        "stage": str(when),
                        "sparsity": at,
                        "x": place,
                        "value": value,
                        "speedup": times,
                        "without_path": values.get((Stage.PRUNED, at, "", CONNECTED)) == 0,
                    }
                )
    table = pd.DataFrame(points, columns=[*KEYS, "seed", "x", "value", "speedup", "without_path"]).dropna(
        subset=["x", "value"]
    )
    table = table.fillna({"without_path": False}).astype({"speedup": float, "without_path": float})
    by_seed = table.groupby([*KEYS, "seed"], sort=False, as_index=False).mean()
    found = by_seed.groupby(KEYS, sort=False, as_index=False).agg(
        x=("x", "mean"), mean=("value", "mean"), low=("value", "min"), high=("value", "max"), seeds=("seed", "nunique"),
        speedup=("speedup", "mean"), without_path=("without_path", "sum"),
    )  # fmt: skip
    seen = [
        looks.get(label, ("", "", "")) if method else ("", "", "")
        for label, method in zip(found["label"], found["method"], strict=True)
    ]
    found[LOOKS] = pd.DataFrame(seen, columns=LOOKS, index=found.index)
    return found.assign(metric=metric, split=split, axis=x, scale=scale if metric == ACCURACY else "log")[COLUMNS]


def _place(run: Run, values: dict[tuple, float], x: str, stage: str, sparsity: float) -> float | None:
    """Where a point stands on the x axis."""
    when = Stage.TUNED if stage == Stage.TUNED else Stage.PRUNED
    if x == EPOCHS:
        spent = values.get((Stage.TUNED, sparsity, "", EPOCHS))
        return spent - run.config.after_pruning.epochs if spent is not None and when != Stage.TUNED else spent
    if x in COUNTS:
        both = ((Stage.PRUNED, sparsity, "", COUNTS[x]), (when, sparsity, "", REACHED))
        return next((values[key] for key in both if key in values), sparsity)
    return values.get((when, sparsity, "", x))


class _Clock:
    """What passes through networks take, in ms: as measured, or for single zeroed weights as long as the dense network."""

    def __init__(self, runs: Sequence[Run], x: str):
        self.x = x
        self.measured: dict[Any, list[float]] = {}
        for run in runs if x in LATENCIES else ():
            m = run.metrics
            for value in m.loc[(m["stage"] == Stage.DENSE) & (m["metric"] == x), "value"]:
                for network in self._networks(run):
                    self.measured.setdefault(network, []).append(1000 * float(value))

    def dense(self, run: Run) -> float | None:
        """The dense network's, by the runs that measured it; else that of the same network with other weights."""
        return next((float(np.median(self.measured[n])) for n in self._networks(run) if n in self.measured), None)

    def at(self, run: Run, values: dict[tuple, float], sparsity: float) -> float | None:
        if run.about.unit == Unit.WEIGHT:
            return self.dense(run)
        found = values.get((Stage.PRUNED, sparsity, "", self.x))
        return None if found is None else 1000 * found

    @staticmethod
    def _networks(run: Run) -> tuple[Any, ...]:
        config = run.config
        return _trained(run), (config.model, config.width, config.dataset)


def _trained(run: Run) -> tuple[Any, ...]:
    """What the dense network depends on: runs that have this in common share it."""
    config = run.config
    return config.dataset, config.model, config.width, config.seed, config.normalise, config.train


def _networks(runs: Sequence[Run]) -> dict[tuple[Any, ...], str]:
    """Dense network -> its name, with model and data set where there are several."""
    several = len({(run.config.model, run.config.dataset) for run in runs}) > 1
    dense = SAID[Stage.DENSE]
    return {_trained(r): f"{dense} {r.about.network}, {r.about.data}" if several else dense for r in runs}


def plot(table: pd.DataFrame) -> go.Figure:
    """One line a method; a band from the worst to the best seed, the dense network dashed."""
    if table.empty or (table["stage"] == Stage.DENSE).all():
        return base.empty("Accuracy against sparsity", "Choose runs that have reached their first sparsity.")
    metric, split, axis = (table[key].iloc[0] for key in ("metric", "split", "axis"))
    unit = "%" if metric == ACCURACY else ""
    lines = table[table["stage"] != Stage.DENSE]
    drawn = list(base.groups(lines, ["label", "stage"]))
    most = base.MAX_TRACES - len(DASH)
    kept, bands = drawn[:most], 2 * len(drawn) <= most
    variant, stages = base.variants(lines), lines.groupby("label")["stage"].unique()
    fig = go.Figure()
    if bands:
        for _, part in kept:
            _band(fig, part.sort_values("sparsity"))
    for (label, stage), part in kept:
        legend = stage == [when for when in DASH if when in set(stages[label])][-1]
        _line(fig, part.sort_values("sparsity"), stage, variant[label], unit, bars=not bands, legend=legend)
    if lines["stage"].nunique() > 1:
        for stage in (when for when in DASH if when in set(lines["stage"])):
            base.key(fig, SAID[stage], DASH[stage])
    for (label, scale), part in base.groups(table[table["stage"] == Stage.DENSE], ["label", "scale"]):
        height = float(part["mean"].mean())
        base.rule(fig, y=float(_height(height, metric, scale)))
        side = {"x": 0, "xanchor": "left"} if axis in LATENCIES else {"x": 1, "xanchor": "right"}  # where less is drawn
        fig.add_annotation(
            text=f"{label} {_number(height, unit)}", **side, xref="paper", y=float(_height(height, metric, scale)),
            yanchor="bottom", showarrow=False, font_size=12,
        )  # fmt: skip
    alt = f"{SPLITS.get(split, split)} {metric} against {TITLES[axis]}: {_sentences(lines, unit)}."
    title = f"{SPLITS.get(split, split)} {metric} against {TITLES[axis]}"
    note = f"{_speeds(table)} {base.too_many(drawn, most)}".strip()
    fig = base.finish(fig, title[0].upper() + title[1:], alt, height=460, note=note)
    _axes(fig, table, axis, f"{SPLITS.get(split, split)} {metric}")
    return fig


def _axes(fig: go.Figure, table: pd.DataFrame, axis: str, said: str) -> None:
    """Ticks in % removed, in % right, or 1, 2, 5 of a power of ten."""
    lines = table[table["stage"] != Stage.DENSE]
    metric, scale = table["metric"].iloc[0], table["scale"].iloc[0]
    if axis == "sparsity":
        fig.update_xaxes(**base.sparsity_axis(lines["sparsity"]))
    elif axis == "core":
        low, high = lines["x"].min(), lines["x"].max()
        ticks = base.sparsity_axis(s for s in ROUND if low - 0.05 <= s <= high + 0.005)
        fig.update_xaxes(**{**ticks, "title": {"text": "weights removed, rotations not counted (%, log scale)"}})
    else:
        fig.update_xaxes(title_text=AXES[axis], type="log" if axis in ("parameters", "flops") else "linear")
    if axis in LATENCIES:
        fig.update_xaxes(rangemode="tozero")
        _dense_latency(fig, table)
    if axis in ("parameters", "flops"):
        low, high = lines["x"].min(), lines["x"].max()
        ticks = [m * 10**e for e in range(13) for m in (1, 2, 5) if low * 0.9 <= m * 10**e <= high * 1.1]
        fig.update_xaxes(tickvals=ticks, ticktext=[f"{value:,}" for value in ticks])
    low, high = (float(_height(v, metric, scale)) for v in (table["low"].min(), table["high"].max()))
    if metric == ACCURACY and scale != "error":
        low = min(low, high - 10)  # a flat line must not magnify a point, nor the axis go far beyond 100%
    pad = 0.06 * (high - low) or 1
    fig.update_yaxes(title_text=f"{said} (%)", range=[low - pad, high + 1.6 * pad])
    if metric != ACCURACY:
        values, texts = base.log_ticks(low, high)
        fig.update_yaxes(title_text=f"{said} (log scale)", tickvals=values, ticktext=texts)
    if scale == "error":
        ticks = [s for s in (0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999) if low <= base.spaced(s) <= high]
        fig.update_yaxes(tickvals=[float(base.spaced(s)) for s in ticks], ticktext=[f"{100 * s:g}" for s in ticks])
        fig.update_yaxes(title_text=f"{said} (%, log scale of the error)")


def _dense_latency(fig: go.Figure, table: pd.DataFrame) -> None:
    """An upright line where the dense network stands: what lies right of it is slower."""
    for row in base.rows(table[(table["stage"] == Stage.DENSE) & (table["x"] > 0)]):
        base.rule(fig, x=row.x)
        said = f"{row.label} {base.number(row.x)} ms"
        fig.add_annotation(text=said, x=row.x, y=1, yref="paper", yanchor="bottom", showarrow=False, font_size=12)


def _speeds(table: pd.DataFrame) -> str:
    """What latencies do not show by themselves: who has none of their own, and who became slower."""
    lines, axis = table[table["stage"] != Stage.DENSE], table["axis"].iloc[0]
    if axis not in LATENCIES:
        return ""
    said = []
    if len(zeroed := lines[lines["speedup"].isna()]):
        names = ", ".join(zeroed["label"].unique())
        said.append(f"{names}: single zeroed weights speed nothing up, so these stand at the dense network's latency.")
    for label, part in base.groups(lines.dropna(subset="speedup"), "label"):
        three = part["unit"].iloc[0] == Unit.EIGENBASIS.plural
        worst = part.iloc[part["speedup"].argmin()]
        if worst["speedup"] < (1 if three else NOISE):
            what = (
                "three layers in place of one are slower than the dense ones"
                if three
                else "slower than the dense network"
            )
            at = f"{worst['speedup']:.2f} times as fast at {base.percent(worst['sparsity'])} sparsity"
            said.append(f"{label}: {what}, {at}.")
    return " ".join(said)


def _height(value: Any, metric: str, scale: str) -> Any:
    """Where a value stands on the y axis."""
    if metric != ACCURACY:
        return np.log10(np.maximum(value, 1e-12))
    return base.spaced(np.minimum(value, 0.9995)) if scale == "error" else 100 * value


def _number(value: float, unit: str) -> str:
    return f"{100 * value:.1f}{unit}" if unit else f"{value:.3g}"


def _x(part: pd.DataFrame) -> list[float]:
    return list(base.spaced(part["x"]) if part["axis"].iloc[0] in COUNTS else part["x"])


def _band(fig: go.Figure, part: pd.DataFrame) -> None:
    """From the lowest to the highest seed; nothing where there is one seed."""
    first, x = part.iloc[0], _x(part)
    if (part["seeds"] > 1).any():
        low, high = (list(_height(part[key], first["metric"], first["scale"])) for key in ("low", "high"))
        fig.add_scatter(
            x=[*x, *reversed(x)], y=[*high, *reversed(low)], fill="toself", mode="lines", line_width=0,
            fillcolor=base.faded(first["colour"], 0.15), hoverinfo="skip", showlegend=False,
            legendgroup=first["label"],
        )  # fmt: skip


def _line(
    fig: go.Figure, part: pd.DataFrame, stage: Stage, variant: int, unit: str, *, bars: bool, legend: bool
) -> None:
    first, shade = part.iloc[0], part["colour"].iloc[0]
    mean, low, high = (_height(part[key], first["metric"], first["scale"]) for key in ("mean", "low", "high"))
    said = [
        f"{base.percent(r.sparsity)} sparsity: <b>{_number(r.mean, unit)}</b>"
        + (f"<br>{_number(r.low, unit)} to {_number(r.high, unit)} over {r.seeds} seeds" if r.seeds > 1 else "")
        + _whereabouts(r.axis, r.x, r.sparsity, r.speedup)
        + (f"<br>no path from input to output is left in {int(r.without_path)} of {r.seeds}" if r.without_path else "")
        for r in base.rows(part)
    ]
    error = {"type": "data", "array": high - mean, "arrayminus": mean - low, "thickness": 1, "width": 2}
    fig.add_scatter(
        x=_x(part), y=mean, mode="lines+markers", name=first["label"], legendgroup=first["label"], showlegend=legend,
        line={"color": shade, "width": 2.2, "dash": base.DASHES[variant % 4] if stage == Stage.TUNED else DASH[stage]},
        marker={"symbol": base.marked(first["symbol"], "-open" if variant else ""), "size": 8},
        error_y=error if bars and (part["seeds"] > 1).any() else None, customdata=said,
        hovertemplate=f"{first['label']}, {SAID[stage]}<br>%{{customdata}}<extra></extra>",
    )  # fmt: skip


def _whereabouts(axis: str, x: float, asked: float, speedup: float) -> str:
    """Where a point stands on the x axis, for its hover text."""
    if axis in LATENCIES:
        return f"<br>{TITLES[axis]}: {base.number(x)} ms" + (
            f", {speedup:.2f} × as fast as dense" if speedup == speedup else ""
        )
    if axis in COUNTS:
        return f"<br>{TITLES[axis]} reached: {base.percent(x)}" if abs(x - asked) > 5e-4 else ""
    return f"<br>{TITLES[axis]}: {x:,.0f}"


def _sentences(lines: pd.DataFrame, unit: str) -> str:
    """The last point of each line, in words."""
    last = lines.sort_values("sparsity").groupby(["label", "stage"], sort=False).last().reset_index()
    said = [
        f"{r.label} {_number(r.mean, unit)} at {base.percent(r.sparsity)}"
        + (f" ({_number(r.low, unit)} to {_number(r.high, unit)} over {r.seeds} seeds)" if r.seeds > 1 else "")
        + (f", no path left in {int(r.without_path)} of {r.seeds}" if r.without_path else "")
        + (f" {SAID[r.stage]}" if lines["stage"].nunique() > 1 else "")
        for r in base.rows(last)
    ]
    return base.listed(said, 6)


FIGURE = base.Figure(
    "curves",
    "Accuracy against sparsity",
    "Counted: the share of test (or validation) samples classified rightly, or their mean loss, as the mean over runs that "
    "differ in the seed alone; the band reaches from the lowest to the highest seed. Dashed: the dense network. Sparsity is "
    "the share of prunable weights removed, where whole filters or directions leave of those that the smaller network no "
    "longer has, EigenDamage's rotations counted as weights unless the axis says otherwise; parameters include biases; "
    "latency is the median time of a forward pass of the smaller network where the run was made; epochs include those that "
    "trained the dense network where the method starts from it. By zeroing only: weights are removed and nothing else "
    "moves; right after pruning: survivors have moved where the method, or a repair, moves them.",
    r"\text{sparsity} = 1 - \frac{\lVert m \rVert_0}{|m|}, \qquad \text{accuracy} = \frac{1}{n} \sum_i "
    r"[\arg\max f(x_i) = y_i]",
    data,
    plot,
)

"""Jacobians: whether a signal keeps its size through each layer, before pruning, after it, repaired, and trained again."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from pruneviz.figures import base
from pruneviz.records.arrays import Jacobians
from pruneviz.records.stages import SAID, Stage

if TYPE_CHECKING:
    from pruneviz.store import Run

ORDER = 40
TITLE = "Jacobian singular values of each layer"
END_TITLE = "Jacobian from input to output"
TREND_TITLE = "Jacobian singular values against sparsity"
NOTHING = "Choose a finished run that recorded Jacobians."
REPAIRED = "repaired"  # a moment of its own, where survivors move
WHEN = {Stage.START: SAID[Stage.START], Stage.PRUNED: Stage.PRUNED, REPAIRED: REPAIRED, Stage.TUNED: SAID[Stage.TUNED]}
FILL = {Stage.START: 0, Stage.PRUNED: 0.22, REPAIRED: 0.5, Stage.TUNED: 0.85}
DASH = {Stage.PRUNED: "dot", REPAIRED: "dashdot", Stage.TUNED: "solid"}
MARKS = ("", "-open", "-dot", "-open-dot")  # of one method's variants, where dashes say something else
END = "input to output"
BOX = {"low": 0.05, "q1": 0.25, "median": 0.5, "q3": 0.75, "high": 0.95}
COLUMNS = [*base.WHO, "layer", "when", "sparsity", "mean", "spread", *BOX, "chosen"]
TREND_COLUMNS = [*base.WHO, "layer", "when", "sparsity", "mean", "spread"]


def moments(run: Run) -> dict[Stage, str]:
    """What was recorded -> the moment it stands for. A run that repairs recorded the network before the repair too."""
    if run.at(Jacobians, Stage.ZEROED):
        return {Stage.ZEROED: Stage.PRUNED, Stage.PRUNED: REPAIRED, Stage.TUNED: Stage.TUNED}
    return {Stage.PRUNED: Stage.PRUNED, Stage.TUNED: Stage.TUNED}


def data(runs: Sequence[Run], sparsity: float = base.SPARSITY, layer: str | None = None) -> pd.DataFrame:
    """One row a run, layer and moment: mean, spread (mean distance from 1) and the 5, 25, 50, 75 and 95% quantiles;
    whether it is the ``chosen`` layer.

    The moments are those of ``WHEN``; "repaired" only where a repair followed. The whole network's Jacobian, where
    recorded, is the layer "input to output".
    """
    runs, names = list(runs), base.labels(runs)
    rows: list[dict[str, Any]] = []
    for run in runs:
        found: list[tuple[str, float, Stage]] = [(Stage.START, 0.0, Stage.START)]
        for stage, when in moments(run).items():
            if (at := base.nearest(run, Jacobians, sparsity, stage)) is not None:
                found.append((when, at, stage))
        for when, at, stage in found:
            about = {**base.who(run, names), "when": str(when), "sparsity": at}
            rows += [{**about, **values} for values in _values(run.read(Jacobians, at, stage))]
    table = pd.DataFrame(rows, columns=COLUMNS)
    return table.assign(chosen=table["layer"] == base.module(layer)) if layer else table.assign(chosen=False)


def _values(recorded: Jacobians | None) -> list[dict[str, Any]]:
    """Mean, spread and quantiles, layer by layer and from input to output."""
    if recorded is None:
        return []
    found = list(zip(recorded.layers, recorded.mean, recorded.spread, recorded.quantiles, strict=True))
    if recorded.end is not None and recorded.end_mean is not None and recorded.end_spread is not None:
        found.append((END, recorded.end_mean[0], recorded.end_spread[0], recorded.end))
    return [
        {
            "layer": layer, "mean": float(mean), "spread": float(spread),
            **{key: float(np.interp(level, np.linspace(0, 1, len(values)), values)) for key, level in BOX.items()},
        }
        for layer, mean, spread, values in found
    ]  # fmt: skip


def plot(table: pd.DataFrame) -> go.Figure:
    """One facet a run, one group a layer: boxes filled more from moment to moment, and a line at 1."""
    table = table[table["layer"] != END]
    if table.empty:
        return base.empty(TITLE, NOTHING)
    facets = list(base.groups(table, "run"))
    drawn = facets[: base.MAX_FACETS]
    fig, height = base.facets(
        [f"<b>{part['label'].iloc[0]}</b>" for _, part in drawn], shared_yaxes="all", horizontal_spacing=0.05
    )
    for i, (_, part) in enumerate(drawn):
        place = base.place(i, len(drawn))
        for when, boxes in base.groups(part, "when"):
            _boxes(fig, boxes, str(when), boxes["layer"].tolist(), **place)
        base.rule(fig, y=1, facet=i)
        if part["chosen"].any():
            base.spotlight(fig, list(part["layer"].unique()).index(part.loc[part["chosen"], "layer"].iloc[0]), facet=i)
        fig.update_xaxes(title_text="layer", type="category", **place)
        fig.update_yaxes(title_text="singular value" if place["col"] == 1 else "", rangemode="tozero", **place)
    at = table["sparsity"].max()
    alt = f"Singular values of the layers' Jacobians at {base.percent(at)} sparsity: {base.listed(_medians(table), 8)}."
    title = f"Jacobian singular values at {base.percent(at)} sparsity"
    return _finish(fig, table, title, alt, height, note=base.too_many(facets, base.MAX_FACETS))


def _finish(
    fig: go.Figure, table: pd.DataFrame, title: str, alt: str, height: int, *, note: str, least: int = 0
) -> go.Figure:
    for when in WHEN:
        if when in set(table["when"]):
            base.swatch(fig, WHEN[when], FILL[when])
    fig = base.finish(fig, title, alt, height=height, note=note, least=least)
    fig.update_layout(boxmode="group", boxgap=0.25, boxgroupgap=0.15)
    return fig.update_annotations(font_size=13)


def _medians(table: pd.DataFrame) -> list[str]:
    """Run by run and layer by layer the medians, in words."""
    return [
        f"{label}, {layer if layer == END else f'layer {layer}'}, median "
        + ", ".join(f"{row.median:.2f} {WHEN[row.when]}" for row in base.rows(part))
        for (label, layer), part in base.groups(table, ["label", "layer"])
    ]


def _boxes(fig: go.Figure, part: pd.DataFrame, when: str, x: Sequence[Any], **place: int) -> None:
    shade = part["colour"].iloc[0]
    fig.add_box(
        x=x, q1=part["q1"], median=part["median"], q3=part["q3"], lowerfence=part["low"], upperfence=part["high"],
        name=WHEN[when], offsetgroup=when, showlegend=False, fillcolor=base.faded(shade, FILL[when]),
        line={"color": shade, "width": 1.4}, **place,
    )  # fmt: skip


def end_data(runs: Sequence[Run], sparsity: float = base.SPARSITY) -> pd.DataFrame:
    """The rows of :func:`data` that are about the whole network."""
    table = data(runs, sparsity)
    return table[table["layer"] == END].reset_index(drop=True)


def end_plot(table: pd.DataFrame) -> go.Figure:
    """One group a run on a logarithmic axis, the boxes as in :func:`plot`."""
    if table.empty:
        return base.empty(END_TITLE, "Choose a finished run that recorded the Jacobian from input to output.")
    runs = list(table["run"].unique())
    table = table[table["run"].isin(runs[: base.MAX_RUNS])]
    top = max(table["high"].max(), 1e-12)
    low = max(table.loc[table["low"] > 0, "low"].min(), 1e-6 * top) if (table["low"] > 0).any() else 1e-6 * top
    shown = table.assign(**{key: np.log10(table[key].clip(low)) for key in BOX})
    fig = go.Figure()
    for i, (_, part) in enumerate(base.groups(shown, "run")):
        for k, (when, box) in enumerate(base.groups(part, "when")):
            _boxes(fig, box, str(when), [i + 0.2 * (k - (part["when"].nunique() - 1) / 2)])
    base.rule(fig, y=0)
    dead = [f"{r.label} {WHEN[r.when]}" for r in base.rows(table[table["high"] <= 0])]
    note = f"All values are 0, so no signal passes: {base.listed(dead)}." if dead else ""
    at = table["sparsity"].max()
    alt = f"Singular values of the Jacobian from input to output at {base.percent(at)} sparsity: {base.listed(_medians(table), 8)}."
    title, names = f"{END_TITLE} at {base.percent(at)} sparsity", list(shown["label"].unique())
    fig = _finish(fig, table, title, alt, 380, note=note or base.too_many(runs), least=140 * len(names))
    span = [np.log10(low), np.log10(top)]
    values, texts = base.log_ticks(*span)
    fig.update_yaxes(title_text="singular value (log scale)", tickvals=values, ticktext=texts)
    names = ["<br>".join(wrap(label, 16)) for label in names]
    fig.update_traces(width=0.16, selector={"type": "box"})
    return fig.update_xaxes(
        title_text="run", tickvals=list(range(len(names))), ticktext=names, tickangle=0, range=[-0.6, len(names) - 0.4]
    )


def trend_data(runs: Sequence[Run], layer: str | None = None) -> pd.DataFrame:
    """One row a run, sparsity and moment (pruned, repaired, tuned): mean and spread, of a layer or averaged over the layers.

    Sparsity 0 is the network before pruning.
    """
    runs, names = list(runs), base.labels(runs)
    wanted = base.module(layer) if layer is not None else None
    rows: list[dict[str, Any]] = []
    for run in runs:
        about = {**base.who(run, names), "layer": wanted or "all layers"}
        for stage, when in moments(run).items():
            for at, read in ((0.0, Stage.START), *((s, stage) for s in run.at(Jacobians, stage))):
                found = run.read(Jacobians, at, read)
                picked = [i for i, name in enumerate(found.layers) if wanted in (None, name)] if found else []
                if found and picked:
                    means = {"mean": float(found.mean[picked].mean()), "spread": float(found.spread[picked].mean())}
                    rows.append({**about, "when": str(when), "sparsity": at, **means})
    return pd.DataFrame(rows, columns=TREND_COLUMNS)


def trend_plot(table: pd.DataFrame) -> go.Figure:
    """Mean on the left, spread on the right; dotted right after pruning, dashed and dotted repaired, solid trained again."""
    if table.empty:
        return base.empty(TREND_TITLE, NOTHING)
    runs, kinds = list(table["run"].unique()), [when for when in DASH if when in set(table["when"])]
    lines = 2 * table.groupby("run", sort=False)["when"].nunique().cumsum()
    fit = min(int((lines <= base.MAX_TRACES - len(kinds) + 1).sum()), base.MAX_RUNS)
    table = table[table["run"].isin(runs[:fit])]
    titles = ["<b>Mean</b>", "<b>Mean distance from 1</b>"]
    fig = make_subplots(1, 2, subplot_titles=titles, horizontal_spacing=0.12)
    variant = base.variants(table)
    for (_, when), part in base.groups(table, ["run", "when"]):
        first, after = part.iloc[0], when == Stage.TUNED
        mark = base.marked(first["symbol"], MARKS[variant[first["label"]] % 4])
        for col, value in enumerate(("mean", "spread"), 1):
            fig.add_scatter(
                x=base.spaced(part["sparsity"]), y=part[value], mode="lines+markers", legendgroup=first["run"],
                name=first["label"], showlegend=after and col == 1, marker={"symbol": mark, "size": 7 if after else 6},
                line={"color": first["colour"], "width": 2, "dash": DASH[str(when)]},
                customdata=[base.percent(s) for s in part["sparsity"]],
                hovertemplate=f"{first['label']}, {WHEN[str(when)]}<br>%{{customdata}} removed: %{{y:.3f}}<extra></extra>",
                row=1, col=col,
            )  # fmt: skip
    for when in kinds[:-1]:  # a solid line needs no explanation
        base.key(fig, WHEN[when], DASH[when], row=1, col=1)
    base.rule(fig, y=1)
    said = []
    for label, part in base.groups(table, "label"):
        last = part.groupby("when", sort=False).last()
        values = ", ".join(f"{r['mean']:.2f} {WHEN[str(when)]}" for when, r in last.iterrows())
        said.append(f"{label} {values} at {base.percent(last['sparsity'].max())}")
    alt = f"Mean Jacobian singular value against sparsity: {base.listed(said, 6)}."
    layer = table["layer"].iloc[0]
    title = TREND_TITLE if layer == "all layers" else f"{TREND_TITLE}, layer {layer}"
    fig = base.finish(fig, title, alt, height=380, note=base.too_many(runs, fit))
    fig.update_xaxes(**base.sparsity_axis(table["sparsity"])).update_xaxes(title_text="removed (%, log scale)")
    fig.update_yaxes(title_text="singular value", row=1, col=1)
    return fig.update_yaxes(rangemode="tozero").update_annotations(font_size=13)


FIGURE = base.Figure(
    "jacobians",
    TITLE,
    "Shown: singular values of each layer's input-output Jacobian on 16 training samples, pooled. Boxes span the middle "
    "half, whiskers 5% to 95%, the bar is the median. The fuller a box, the later: before pruning, pruned, repaired (only "
    "where the run repairs its survivors), trained again. Dashed: 1, where a signal passes without growing or shrinking.",
    r"J_\ell = D_\ell W_\ell, \qquad D_\ell = \operatorname{diag}\big(\phi'(h_\ell)\big)",
    data,
    plot,
)
ENDS = base.Figure(
    "ends",
    END_TITLE,
    "Shown: singular values of the Jacobian from the input to the logits, through all layers, on 16 training samples, pooled; "
    "boxes as for the layers, on a logarithmic scale. The losses of all layers multiply here.",
    r"J = \frac{\partial f(x)}{\partial x} = J_L \cdots J_2\, J_1",
    end_data,
    end_plot,
)
TREND = base.Figure(
    "trend",
    TREND_TITLE,
    "Shown: the mean singular value and its mean distance from 1, over the samples and (unless one is chosen) over layers "
    "with equal weight. Dotted: pruned; dashes and dots: repaired; solid: trained again. At 0% stands the "
    "network before pruning.",
    r"\bar\sigma = \operatorname{mean}_i \sigma_i, \qquad \operatorname{mean}_i |\sigma_i - 1|",
    trend_data,
    trend_plot,
)
FIGURES = (FIGURE, ENDS, TREND)

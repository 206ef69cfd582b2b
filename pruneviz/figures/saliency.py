"""Saliency: how a method scores the weights of each layer, and which of them it removes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from pruneviz.figures import base
from pruneviz.records.arrays import Saliency
from pruneviz.records.units import Unit

if TYPE_CHECKING:
    from pruneviz.store import Run

ORDER = 5
TITLE = "Saliency: what is kept and what is removed"
COLUMNS = [
    *base.WHO, "layer", "facet", "unit", "asked", "sparsity", "log", "linear", "lower", "upper", "kept",
    "removed", "zeros_kept", "zeros_removed", "threshold", "size", "alive",
]  # fmt: skip
LAYER_COLUMNS = [*base.WHO, "layer", "unit", "asked", "sparsity", "size", "alive", "removed", "chosen"]
SHADES = {"kept": 1, "removed": 0.32}
NOTHING = "Choose a finished run that recorded saliencies."


def data(runs: Sequence[Run], sparsity: float = base.SPARSITY, layer: str | None = None) -> pd.DataFrame:
    """One row a histogram bin: units ``kept`` and ``removed`` with a score from ``lower`` to ``upper``; ``unit`` says which.

    Several runs: one layer (by default that with most weights) for each of up to six. One run: that layer, or its first
    six. Bounds are places on the histogram's axis (:func:`place`); ``threshold`` is on the score's own scale.
    """
    runs, names = list(runs), base.labels(runs)
    wanted = base.chosen(runs, layer) if layer is not None or len(runs) > 1 else None
    rows: list[dict[str, Any]] = []
    for run in runs[: base.MAX_RUNS]:
        panels = histograms(run, sparsity)
        picked = [p for p in panels if wanted is None or p["layer"] == wanted][: base.MAX_FACETS]
        for panel in picked if wanted is None else picked[:1]:
            about = {**base.who(run, names), "asked": sparsity, **panel}
            about["facet"] = panel["layer"] if wanted is None else names[run.id]
            bins = zip(*(about.pop(key) for key in ("lower", "upper", "kept", "removed")), strict=True)
            rows += [
                {**about, "lower": lower, "upper": upper, "kept": kept, "removed": removed}
                for lower, upper, kept, removed in bins
            ]
    return pd.DataFrame(rows, columns=COLUMNS)


def histograms(run: Run, sparsity: float) -> list[dict[str, Any]]:
    """The recorded histograms at the nearest recorded sparsity, one for each layer, bins as arrays."""
    at = base.nearest(run, Saliency, sparsity)
    if at is None or (found := run.read(Saliency, at)) is None:
        return []
    return [
        {
            "layer": base.module(layer), "unit": run.about.removes, "sparsity": at, **scale(found),
            "lower": found.edges[:-1], "upper": found.edges[1:], "kept": found.kept[i], "removed": found.removed[i],
            "zeros_kept": int(found.zeros[i, 0]), "zeros_removed": int(found.zeros[i, 1]),
            "threshold": cut(found, i), "size": int(found.sizes[i]), "alive": int(found.alive[i]),
        }
        for i, layer in enumerate(found.layers)
    ]  # fmt: skip


def scale(found: Saliency) -> dict[str, Any]:
    """How scores were binned: ``log`` 0 plainly, 1 by their log10, 2 by a logarithm with a sign, linear up to ``linear``."""
    return {"log": found.log, "linear": found.linthresh}


def place(score: float, log: int, linear: float) -> float:
    """Where a score stands on a histogram's axis; NaN where it has no place there."""
    if log == 1:
        return float(np.log10(score)) if score > 0 else float("nan")
    return float(base.signed(score, linear)) if log == 2 else score


def score_at(place: float, log: int, linear: float) -> float:
    """The inverse of :func:`place`."""
    return float(10**place if log == 1 else base.unsigned(place, linear) if log == 2 else place)


def ticks(low: float, high: float, log: int, linear: float) -> dict[str, Any]:
    """Title and ticks of a histogram's axis."""
    if log == 0:
        return {"title_text": "score"}
    values, texts = base.log_ticks(low, high, most=4) if log == 1 else base.signed_ticks(low, high, linear)
    return {"title_text": "score (log scale)", "tickvals": values, "ticktext": texts}


def cut(found: Saliency, i: int) -> float:
    """The highest score removed in layer ``i``: the run's own threshold, or, where layers have one each, a reading from
    the layer's histogram to within a bin."""
    edges, kept, removed, stored = found.edges, found.kept[i], found.removed[i], found.threshold
    at = place(stored, **scale(found))
    if not removed.any() or np.isnan(at):
        return stored
    top = int(np.flatnonzero(removed)[-1])
    below = int(np.clip(np.searchsorted(edges, at, side="right") - 1, 0, len(kept) - 1))
    if top >= below or not kept[top + 1 : below].any():
        return stored
    share = removed[top] / (removed[top] + kept[top])
    return score_at(edges[top] + share * (edges[top + 1] - edges[top]), **scale(found))


def plot(table: pd.DataFrame) -> go.Figure:
    """One facet a layer or a run: removed light, kept solid, the threshold dashed."""
    if table.empty:
        return base.empty(TITLE, NOTHING)
    facets, mixed = list(base.groups(table, ["run", "layer"])), table["unit"].nunique() > 1
    beside = 0.34 / base.grid(len(facets))[1]  # room for a title
    room: dict[str, Any] = {"horizontal_spacing": beside} if mixed else {}
    fig, height = base.facets([_heading(part) for _, part in facets], lines=3, space=128, **room)
    for i, (_, part) in enumerate(facets):
        _histogram(fig, part, i, named=mixed, **base.place(i, len(facets)))
    for name, alpha in SHADES.items():
        marker = {"color": base.faded(base.NEUTRAL, alpha), "line_width": 0}
        fig.add_bar(x=[None], y=[None], name=name, marker=marker, hoverinfo="skip", row=1, col=1)
    base.key(fig, "highest score removed", "dash", row=1, col=1)
    at, layer = base.percent(table["sparsity"].iloc[0]), table["layer"].iloc[0]
    several = table["run"].nunique() > 1
    title = f"Saliency of layer {layer} at {at} sparsity" if several else f"Saliency at {at} sparsity"
    alt = f"Histograms of the saliency score: {base.listed([_sentence(part) for _, part in facets], 6)}."
    fig = base.finish(fig, title, alt, height=height, note=_note(table))
    fig.update_layout(barmode="stack", bargap=0, margin_t=base.TOP + 28)
    return fig.update_annotations(font_size=13).update_yaxes(rangemode="tozero", nticks=5)


def _histogram(fig: go.Figure, part: pd.DataFrame, facet: int, row: int, col: int, *, named: bool) -> None:
    first = part.iloc[0]
    shade, axis = first["colour"], (int(first["log"]), float(first["linear"]))
    part = folded(part)
    lower, upper = part["lower"].to_numpy(), part["upper"].to_numpy()
    spans = [
        f"{base.number(score_at(a, *axis))} to {base.number(score_at(b, *axis))}"
        for a, b in zip(lower, upper, strict=True)
    ]
    for name, alpha in SHADES.items():
        fig.add_bar(
            x=(lower + upper) / 2, y=part[name], width=upper - lower, customdata=spans, name=name,
            showlegend=False, marker={"color": base.faded(shade, alpha), "line_width": 0},
            hovertemplate=f"score %{{customdata}}<br>%{{y:,}} {first['unit']} {name}<extra></extra>", row=row, col=col,
        )  # fmt: skip
    at = place(float(first["threshold"]), *axis)
    if np.isfinite(at):
        base.rule(fig, x=float(np.clip(at, lower[0], upper[-1])), facet=facet)
    zeros = int(first["zeros_kept"] + first["zeros_removed"])
    if zeros:
        fig.add_annotation(
            text=f"{'◂ ' if axis[0] == 1 else ''}{zeros:,} are 0",
            x=0,
            xref="x domain",
            xanchor="left",
            y=1,
            yref="y domain",
            showarrow=False,
            row=row,
            col=col,
        )
    fig.update_xaxes(tickangle=0, **ticks(lower[0], upper[-1], *axis), row=row, col=col)
    fig.update_yaxes(title_text=f"{first['unit']} per bin" if named or col == 1 else "", row=row, col=col)


def folded(part: pd.DataFrame) -> pd.DataFrame:
    """The bins where this layer's scores lie, all but the lowest 1%, which join the lowest bin: bins span all layers."""
    both = (part["kept"] + part["removed"]).to_numpy()
    if not both.any():
        return part
    first = int(np.argmax(both.cumsum() > 0.01 * both.sum()))
    found = part.iloc[first : int(np.flatnonzero(both)[-1]) + 1].copy()
    for side in SHADES:
        counts = found[side].to_numpy(copy=True)
        counts[0] += int(part[side].iloc[:first].sum())
        found[side] = counts
    return found


def _heading(part: pd.DataFrame) -> str:
    first = part.iloc[0]
    removed = 1 - first["alive"] / max(first["size"], 1)
    said = f"{base.percent(removed)} removed<br>cut at {base.number(first['threshold'])}"
    return f"<b>{first['facet']}</b><br><span style='font-size:11px'>{said}</span>"


def _sentence(part: pd.DataFrame) -> str:
    first = part.iloc[0]
    gone = first["size"] - first["alive"]
    return (
        f"{first['label']}, layer {first['layer']}, {gone:,} of {first['size']:,} {first['unit']} removed, "
        f"threshold {base.number(first['threshold'])}"
    )


def _kept_below(panel: pd.DataFrame) -> int:
    """How many kept weights lie in bins below the highest score removed; none where the scores alone decide."""
    first = panel.iloc[0]
    at = place(float(first["threshold"]), int(first["log"]), float(first["linear"]))
    return int(panel.loc[panel["upper"] < at, "kept"].sum())


# Why units stay whose score lies below the highest score removed
_WHY = {
    Unit.WEIGHT.plural: "it removes one after another, and each removal changes the scores of those that are left",
    Unit.FILTER.plural: "a layer keeps a few filters whatever they score, and removals one after another change the scores",
    Unit.EIGENBASIS.plural: "a few directions of each side stay, and so does a layer that three smaller ones would make larger",
}


def _note(table: pd.DataFrame) -> str:
    first = table.groupby(["run", "layer"], sort=False).first()
    parts = []
    zeros = int((first["zeros_kept"] + first["zeros_removed"]).sum())
    if zeros:
        gone = int(first["zeros_removed"].sum())
        parts.append(f"{zeros:,} scores of exactly 0 ({gone:,} of them removed) are in no bar.")
    for label, part in base.groups(table, "label"):
        if early := sum(_kept_below(panel) for _, panel in base.groups(part, "layer")):
            unit = part["unit"].iloc[0]
            why = f": {_WHY[unit]}" if unit in _WHY else ""
            parts.append(f"{label} keeps {early:,} {unit} that score below its cut{why}.")
    if (first["log"] == 2).any():
        parts.append(
            "Scores with a sign stand on an axis that is logarithmic on both sides of 0 and linear close to it."
        )
    for label, group in base.groups(first, "label"):
        if group["sparsity"].iloc[0] != group["asked"].iloc[0]:
            asked, found = base.percent(group["asked"].iloc[0]), base.percent(group["sparsity"].iloc[0])
            parts.append(f"{label} has no {asked}; its nearest, {found}, is shown.")
    return " ".join(parts)


def layer_data(runs: Sequence[Run], sparsity: float = base.SPARSITY, layer: str | None = None) -> pd.DataFrame:
    """One row a run and layer: how many units it had (``size``), has (``alive``), the share removed, and whether it is the
    ``chosen`` layer."""
    runs, names = list(runs), base.labels(runs)
    rows = [
        {
            **base.who(run, names), "asked": sparsity,
            **{key: panel[key] for key in ("layer", "unit", "sparsity", "size", "alive")},
            "removed": 1 - panel["alive"] / max(panel["size"], 1), "chosen": layer is not None and panel["layer"] == base.module(layer),
        }
        for run in runs for panel in histograms(run, sparsity)
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=LAYER_COLUMNS)


def layer_plot(table: pd.DataFrame) -> go.Figure:
    """Bars of the share removed in each layer, side by side for the runs; a layer that lost everything is red."""
    title = "Sparsity of each layer"
    if table.empty:
        return base.empty(title, NOTHING)
    fig, variant = go.Figure(), base.variants(table)
    for _, part in list(base.groups(table, "run"))[: base.MAX_TRACES]:
        shade = part["colour"].iloc[0]
        emptied = part["alive"] == 0
        fig.add_bar(
            x=part["layer"], y=100 * part["removed"], name=part["label"].iloc[0],
            marker={"color": [base.RED if gone else shade for gone in emptied], "line_width": 0,
                    "pattern_shape": ("", "/", "x", ".")[variant[part["label"].iloc[0]] % 4]},
            text=["empty" if gone else "" for gone in emptied], textposition="outside", cliponaxis=False,
            customdata=part[["alive", "size"]].to_numpy(),
            hovertemplate="layer %{x}: %{y:.1f}% removed<br>%{customdata[0]:,} of %{customdata[1]:,} "
            f"{part['unit'].iloc[0]} left",
        )  # fmt: skip
    at, counted = table["sparsity"].iloc[0], base.in_common(table["unit"])
    base.rule(fig, y=100 * at)
    highest = table.iloc[table["removed"].argmax()]
    lost = table[table["alive"] == 0]
    alt = (
        f"Share of {counted} removed in each layer at {base.percent(at)} sparsity; the most, "
        f"{base.percent(highest['removed'])}, in layer {highest['layer']} by {highest['label']}; "
        + (f"{len(lost)} layers lost everything." if len(lost) else "no layer lost everything.")
    )
    fig = base.finish(fig, f"{title} at {base.percent(at)} overall", alt, height=340, note=_counted(table))
    whole = sorted((part["layer"] for _, part in base.groups(table, "run")), key=len, reverse=True)
    order = list(dict.fromkeys(layer for layers in whole for layer in layers))  # of the run that scores most of them
    fig.update_xaxes(title_text="layer", type="category", categoryorder="array", categoryarray=order)
    fig.update_traces(unselected_marker_opacity=1)
    if table["chosen"].any():
        base.spotlight(fig, order.index(table.loc[table["chosen"], "layer"].iloc[0]))
    return fig.update_yaxes(title_text=f"{counted} removed (%)", range=[0, 106], tickvals=[0, 25, 50, 75, 100])


def _counted(table: pd.DataFrame) -> str:
    """What the bars of each run count, where some count other things than weights."""
    kinds = table.drop_duplicates("run").groupby("unit", sort=False)["label"].agg(list)
    if list(kinds.index) == [Unit.WEIGHT.plural]:
        return ""
    said = base.listed([f"{unit} of {', '.join(names)}" for unit, names in kinds.items()])
    return f"Counted here: {said}. Whole units take along the weights that read them, so their share is not that of weights."


FIGURE = base.Figure(
    "saliency",
    TITLE,
    "Counted: what the method removes (weights, whole filters, or directions of the Kronecker eigenbasis) by its score, in 60 "
    "bins; the lowest bin holds all scores below it. Light: removed; solid: kept; dashed: the highest score removed. A method "
    "that prunes in rounds shows what was alive before its last round, so earlier losses are not in the bars.",
    r"\text{remove unit } q \text{ where } s_q \le \tau",
    data,
    plot,
)
LAYERS = base.Figure(
    "layers",
    "Sparsity of each layer",
    "Counted: the share of each layer's weights, filters or directions that is gone after pruning, all rounds together. "
    "Dashed: the share of weights over the whole network. Red: a layer that lost everything, so no signal passes.",
    r"1 - \frac{\lVert m_\ell \rVert_0}{n_\ell}",
    layer_data,
    layer_plot,
)
FIGURES = (FIGURE, LAYERS)

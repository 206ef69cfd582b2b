"""The figures of a comparison: what became of every weight, and a tensor's numbers before and after in the same bins."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from pruneviz.figures import base

if TYPE_CHECKING:
    from pruneviz.difference.found import Found, Tensor

MOST = 40  # bars
_LETTERS = 34  # of a name that is drawn
_BEFORE, _AFTER = base.NEUTRAL, "#3b7dd8"
_FATES = {  # column -> name, colour, pattern
    "same": ("as it was", base.faded(base.NEUTRAL, 0.25), ""),
    "moved": ("moved", "#3b7dd8", "."),
    "back": ("come back", "#1a9c74", "x"),
    "gone": ("gone", "#e07b00", "/"),
    "zero": ("zero in both", base.NEUTRAL, ""),
    "unknown": ("not found", base.faded(base.RED, 0.6), "+"),
}
_LINES = {"fillmode": "overlay", "fgcolor": "#ffffff", "fgopacity": 0.45, "size": 6, "solidity": 0.25}
NOTHING = "No weight tensor is in both. Compare two states of one network."


def fates(diff: Found) -> pd.DataFrame:
    """One row a weight tensor that both have: how many of the first's numbers are the ``same``, ``moved``, have come ``back`` from
    zero, are ``gone`` (zero or absent), ``zero`` in both; ``unknown`` where kept channels were not found."""
    rows = [
        {"name": t.name, "size": t.numbers.before.size, **_fates(t)}
        for t in diff.tensors
        if t.weight and t.numbers.before.size
    ]
    return pd.DataFrame(rows, columns=["name", "size", *_FATES])


def _fates(t: Tensor) -> dict[str, int]:
    n = t.numbers
    if n.gone is None or n.back is None or n.moved is None:
        return dict.fromkeys(_FATES, 0) | {"unknown": n.before.size}
    zero = n.before.zero - n.back
    same = n.before.size - zero - n.back - n.gone - n.moved
    return {"same": same, "moved": n.moved, "back": n.back, "gone": n.gone, "zero": zero, "unknown": 0}


def fates_plot(table: pd.DataFrame) -> go.Figure:
    """One bar a tensor, in the network's order; the largest where there are many."""
    title = "What became of the weights"
    if table.empty:
        return base.empty(title, NOTHING)
    drawn = table.loc[table["size"].rank(ascending=False, method="first") <= MOST].reset_index(drop=True)
    fig = go.Figure()
    for key, (name, colour, pattern) in _FATES.items():
        if not drawn[key].any():
            continue
        fig.add_bar(
            y=drawn.index, x=100 * drawn[key] / drawn["size"], name=name, orientation="h",
            customdata=drawn[["name", key, "size"]].assign(name=drawn["name"].map(_short)).to_numpy(),
            marker={"color": colour, "line_width": 0, "pattern": _LINES | {"shape": pattern}},
            hovertemplate="%{customdata[0]}<br>%{customdata[1]:,} of %{customdata[2]:,} " + f"{name} (%{{x:.1f}}%)<extra></extra>",
        )  # fmt: skip
    total = drawn["size"].sum()
    shares = "; ".join(
        f"{base.percent(drawn[key].sum() / total)} {name}" for key, (name, *_) in _FATES.items() if drawn[key].any()
    )
    note = f"The {MOST} largest of {len(table):,} weight tensors are drawn." if len(table) > MOST else ""
    alt = f"{title}, a bar for each of {len(drawn)} weight tensors. Together: {shares}."
    fig = base.finish(fig, title, alt, height=base.TOP + base.BOTTOM + max(60, 24 * len(drawn)), note=note, least=520)
    fig.update_layout(barmode="stack", bargap=0.25)
    fig.update_xaxes(title_text="share of the first network's weights (%)", range=[0, 100])
    names = [_short(base.module(str(name))) for name in drawn["name"]]
    return fig.update_yaxes(range=[len(drawn) - 0.5, -0.5], tickvals=list(drawn.index), ticktext=names, showgrid=False)


def _short(name: str) -> str:
    """The end of a name, in which Plotly finds no link and no tag."""
    return escape(name if len(name) <= _LETTERS else f"…{name[1 - _LETTERS :]}", quote=False)


def changed(diff: Found, most: int = base.MAX_FACETS) -> list[Tensor]:
    """The weight tensors in which most has changed, in the network's order; other tensors where no weight has."""
    found = [t for t in diff.tensors if not t.same and t.numbers.edge]
    found = [t for t in found if t.weight] or found

    def much(t: Tensor) -> float:
        n = t.numbers
        return (
            (n.gone or 0)
            + (n.back or 0)
            + (n.moved or 0) * min(n.moved_by or 0, 1)
            + (0 if n.gone is not None else n.before.size)
        )

    chosen = {t.name for t in sorted(found, key=much, reverse=True)[:most]}
    return [t for t in found if t.name in chosen]


def histograms(tensors: Sequence[Tensor]) -> pd.DataFrame:
    """One row a tensor and bin: ``lower`` and ``upper`` edge, how many numbers lie in it ``before`` and ``after``; zeros are in none."""
    parts = []
    for t in tensors[: base.MAX_FACETS]:
        n = t.numbers
        edges = np.linspace(-n.edge, n.edge, len(n.before.counts) + 1)
        zeros = {
            "zero_before": n.before.zero / max(n.before.size, 1),
            "zero_after": n.after.zero / max(n.after.size, 1),
        }
        found = {
            "name": t.name,
            "lower": edges[:-1],
            "upper": edges[1:],
            "before": n.before.counts,
            "after": n.after.counts,
            **zeros,
        }
        parts += [pd.DataFrame(found)] if n.edge else []
    columns = ["name", "lower", "upper", "before", "after", "zero_before", "zero_after"]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)


def histograms_plot(table: pd.DataFrame) -> go.Figure:
    """One panel a tensor: before as grey bars, after as a line."""
    title = "Numbers before and after"
    if table.empty:
        return base.empty(title, "Nothing differs here, or all is zero. Choose another tensor.")
    panels = list(base.groups(table, "name"))
    heads = [
        f"<b>{_short(str(name))}</b><br><span style='font-size:11px'>zero: {base.percent(part['zero_before'].iloc[0])} before, "
        f"{base.percent(part['zero_after'].iloc[0])} after</span>"
        for name, part in panels
    ]
    fig, height = base.facets(heads, lines=2)
    for i, (_, part) in enumerate(panels):
        middle = (part["lower"] + part["upper"]) / 2
        place = base.place(i, len(panels))
        fig.add_bar(
            x=middle, y=part["before"], name="before", legendgroup="before", showlegend=i == 0, width=part["upper"] - part["lower"],
            marker={"color": base.faded(_BEFORE, 0.45), "line_width": 0},
            hovertemplate="%{y:,} before, near %{x:.3g}<extra></extra>", **place,
        )  # fmt: skip
        fig.add_scatter(
            x=middle, y=part["after"], name="after", legendgroup="after", showlegend=i == 0, mode="lines",
            line={"color": _AFTER, "width": 2, "shape": "hvh"}, hovertemplate="%{y:,} after, near %{x:.3g}<extra></extra>", **place,
        )  # fmt: skip
        fig.update_xaxes(title_text="value", nticks=5, row=place["row"], col=place["col"])
        fig.update_yaxes(title_text="numbers per bin" if place["col"] == 1 else "", rangemode="tozero", **place)
    said = base.listed(
        [
            f"{name}: {base.percent(part['zero_before'].iloc[0])} zero before, {base.percent(part['zero_after'].iloc[0])} after"
            for name, part in panels
        ]
    )
    fig = base.finish(fig, title, f"{title}. {said}.", height=height)
    return fig.update_layout(bargap=0)


OVERVIEW = base.Figure(
    "fates",
    "What became of the weights",
    "Counted: the numbers of each weight tensor of the first network. Gone: zero or absent in the second, and not zero in the first. "
    "Moved: zero in neither, and another number.",
    "",
    fates,
    fates_plot,
    of_runs=False,
)
HISTOGRAM = base.Figure(
    "histograms",
    "Numbers before and after",
    "Counted: numbers in 60 equal bins, the same for both. Zeros are in no bin: their shares stand above.",
    "",
    histograms,
    histograms_plot,
    of_runs=False,
)

"""What every figure shares: a table, a drawing, the colour and mark that a run carries, names, a layout right in light and dark."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from pruneviz.basics.errors import StoreError
from pruneviz.figures.names import changes, label, labels, network, repair, spelled  # noqa: F401  names and scales are read as base.labels, base.percent
from pruneviz.figures.scales import (  # noqa: F401
    log_ticks,
    number,
    percent,
    power,
    signed,
    signed_ticks,
    spaced,
    sparsity_axis,
    thinned,
    unsigned,
)  # fmt: skip
from pruneviz.methods import METHODS
from pruneviz.records import metrics
from pruneviz.records.arrays import Saliency, Spectra
from pruneviz.records.base import Recorded
from pruneviz.records.stages import Stage

if TYPE_CHECKING:
    from pruneviz.store import Run

SPARSITY = 0.9  # shown where nobody chose one
MAX_RUNS = MAX_FACETS = 6
MAX_TRACES = 30
MAX_POINTS = 512
TOP, BOTTOM = 80, 96  # margins in pixels: titles above, the legend below
NEUTRAL = "#808080"  # the one grey that reads on white and on near-black: thresholds and reference lines
DASHES = ("solid", "dash", "longdashdot", "longdash")  # of one method's variants
GRID = "rgba(128,128,128,0.22)"
RED = "#e5383b"  # a layer that lost everything
WHO = ["run", "method", "label", "colour", "symbol"]  # what a row says first: :func:`who`


@dataclass(frozen=True)
class Figure:
    """A figure in two steps: ``data(runs, **choices)`` computes a tidy table, ``plot(table)`` draws it and does nothing
    else. Calling the figure does both. ``caption`` says what is counted; ``formula`` is LaTeX."""

    key: str
    title: str
    caption: str
    formula: str
    data: Callable[..., pd.DataFrame]
    plot: Callable[[pd.DataFrame], go.Figure]
    of_runs: bool = True  # what ``data`` takes; others are no part of reports

    def __call__(self, runs: Iterable[Run], **choices: Any) -> go.Figure:
        return self.plot(self.data(list(runs), **choices))


# colours and marks


def colour(method: str) -> str:
    """A registered method's one colour; runs carry theirs. Raises UnknownName."""
    return METHODS[method].colour


def symbol(method: str) -> str:
    """A registered method's mark, for those who cannot rely on colour. Raises UnknownName."""
    return METHODS[method].mark


@lru_cache(maxsize=500)
def marked(mark: str, kind: str = "") -> str:
    """A mark as Plotly takes it, of this ``kind`` ("-open", "-dot" …) where it has that; a circle where there is no such mark."""
    for name in (mark + kind, mark + "-open" * kind.startswith("-open"), f"circle{kind}"):
        try:
            go.scatter.Marker(symbol=name)
        except ValueError:
            continue
        return name
    raise AssertionError(f"no kind of mark: {kind!r}")


def faded(hex_: str, alpha: float) -> str:
    """The colour, see-through."""
    r, g, b = (int(hex_[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({r},{g},{b},{alpha:g})"


# tables: pandas calls each value a union of nearly everything, which a type checker then rejects everywhere


def rows(table: pd.DataFrame) -> Iterator[Any]:
    """The rows as named tuples, ``Index`` first, whose fields are what the figure's ``data`` put there."""
    return iter(table.itertuples())


def groups(table: pd.DataFrame, by: str | list[str]) -> Iterator[tuple[Any, pd.DataFrame]]:
    """Key -> its rows, in the order of the table; the key is a tuple where ``by`` is a list."""
    return iter(table.groupby(by, sort=False))


# runs


def who(run: Run, names: dict[str, str]) -> dict[str, str]:
    """How the rows of a run begin: its id, its method and name, and the colour and mark that it is drawn in."""
    return {
        "run": run.id, "method": run.config.method, "label": names[run.id], "colour": run.about.colour, "symbol": run.about.mark,
    }  # fmt: skip


def sparsities(run: Run) -> list[float]:
    """The sparsities that a run has numbers or arrays for, rising; those that it could not reach are left out."""
    table = run.metrics
    reached = table["stage"].isin([Stage.PRUNED, Stage.TUNED]) & (table["metric"] != metrics.MOST)
    return sorted({*run.at(Saliency), *map(float, table.loc[reached, "sparsity"])})


def beyond(run: Run) -> dict[float, float]:
    """The sparsities that a run could not reach -> the most that it could."""
    table = run.metrics
    most = table[table["metric"] == metrics.MOST]
    return dict(zip(most["sparsity"].astype(float), most["value"].astype(float), strict=True))


def without_path(run: Run) -> set[float]:
    """The sparsities at which no path is left from input to output."""
    table = run.metrics
    return set(table.loc[(table["metric"] == metrics.CONNECTED) & (table["value"] == 0), "sparsity"].astype(float))


def in_common(names: Iterable[str]) -> str:
    """The one word for what is counted, or "units" where methods remove several kinds."""
    found = set(names)
    return found.pop() if len(found) == 1 else "units"


def nearest(run: Run, kind: type[Recorded], sparsity: float, stage: Stage | None = None) -> float | None:
    """The sparsity at which a probe recorded its arrays that is nearest in what is kept."""
    return min(run.at(kind, stage), key=lambda s: abs(spaced(s) - spaced(sparsity)), default=None)


def module(name: str) -> str:
    """ "1.weight" and "1 in" -> "1": single weights are named by their parameter, directions with their side."""
    return name.removesuffix(" in").removesuffix(" out").removesuffix(".weight")


def layers(runs: Iterable[Run]) -> dict[str, int]:
    """Layer -> number of weights, in network order, over all runs; what a layer menu lists. Files that cannot be read name none."""
    found: dict[str, int] = {}
    for run in runs:
        try:
            for name, size in _layers(run).items():
                found.setdefault(name, size)
        except StoreError:
            continue
    return found


def _layers(run: Run) -> dict[str, int]:
    if spectra := run.read(Spectra, stage=Stage.START):
        sides = zip(spectra.layers, spectra.A, spectra.S, strict=True)
        return {name: len(a) * len(s) for name, a, s in sides if a is not None and s is not None}
    at = nearest(run, Saliency, SPARSITY)
    scores = None if at is None else run.read(Saliency, at)
    return {} if scores is None else dict(zip(map(module, scores.layers), map(int, scores.sizes), strict=True))


def chosen(runs: Iterable[Run], layer: str | None) -> str | None:
    """The layer asked for, or the one with most weights."""
    if layer is not None:
        return module(layer)
    known = layers(runs)
    return max(known, key=lambda name: known[name], default=None)


# layout


def finish(fig: go.Figure, title: str, alt: str, *, height: int = 360, note: str = "", least: int = 0) -> go.Figure:
    """The shared layout: see-through, no colour that depends on the theme, legend under the plot; alt text kept along.

    ``least``: pixels across that it takes to be read; what is narrower, a phone, scrolls.
    """
    fig.update_layout(
        title={"text": title, "x": 0, "xref": "container", "y": 1, "yref": "container", "yanchor": "top", "pad": {"t": 14, "l": 4}},
        title_font_size=16,
        height=height,
        margin={"l": 64, "r": 20, "t": TOP, "b": BOTTOM},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        legend={
            "orientation": "h", "x": 0, "xanchor": "left", "y": 0, "yref": "container", "yanchor": "bottom",
            "title": {"text": ""}, "bgcolor": "rgba(0,0,0,0)",
        },
        hoverlabel={"align": "left"},
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": NEUTRAL, "activecolor": NEUTRAL},
        meta={"alt": alt, "note": note, "least": least or _least(fig)},
    )  # fmt: skip
    fig.update_yaxes({"gridcolor": GRID, "zeroline": False, "ticks": "", "automargin": True})
    line = {"linecolor": NEUTRAL, "showline": True, "ticks": "outside", "ticklen": 4, "tickcolor": NEUTRAL}
    fig.update_xaxes({**line, "gridcolor": GRID, "zeroline": False, "title": {"standoff": 8}, "automargin": True})
    return fig


def layout(fig: go.Figure) -> Any:
    """The figure's layout; Plotly makes its properties up as it runs, so no type has them."""
    return fig.layout


def alt(fig: go.Figure) -> str:
    """The figure in one sentence with its numbers, for those who do not see it."""
    return (layout(fig).meta or {}).get("alt", "")


def note(fig: go.Figure) -> str:
    """What the caption should add for these runs, e.g. that only six are drawn; often empty."""
    return (layout(fig).meta or {}).get("note", "")


def least(fig: go.Figure) -> int:
    """Pixels across that the figure takes to be read."""
    return (layout(fig).meta or {}).get("least", 0)


def _least(fig: go.Figure) -> int:
    columns = len({axis.domain[0] for axis in list[Any](fig.select_xaxes()) if axis.domain})
    named = sum(trace.showlegend is not False and bool(trace.name) for trace in list[Any](fig.data))
    return max(240 * columns if columns > 1 else 0, 520 if named > 4 else 0)


def empty(title: str, what_to_do: str) -> go.Figure:
    """A titled figure without axes that says what to do."""
    fig = go.Figure()
    lines = "<br>".join(wrap(what_to_do, 36, break_on_hyphens=False))  # a phone's width
    fig.add_annotation(text=lines, x=0.5, y=0.5, xref="paper", yref="paper", showarrow=False, font_size=14)
    finish(fig, title, f"{title}: nothing to show. {what_to_do}", height=240)
    return fig.update_xaxes(visible=False).update_yaxes(visible=False)


def grid(count: int) -> tuple[int, int]:
    """Rows and columns for so many facets."""
    columns = count if count <= 3 else 2 if count == 4 else 3
    return -(-count // columns), columns


def facets(
    titles: Sequence[str], *, space: int = 96, row: int = 170, lines: int = 1, **options: Any
) -> tuple[go.Figure, int]:
    """Axes for so many facets and the height that they take; ``space`` and ``row`` are pixels, ``lines`` a title's."""
    rows, columns = grid(len(titles))
    plot = rows * row + (rows - 1) * space
    options = {"horizontal_spacing": 0.24 / columns, **options}
    fig = make_subplots(
        rows, columns, subplot_titles=titles, vertical_spacing=space / plot if rows > 1 else 0, **options
    )
    return fig, plot + TOP + BOTTOM + 14 * (lines - 1)


def place(index: int, count: int) -> dict[str, Any]:
    """Row and column of a facet, counted from 0, as Plotly takes them beside other settings."""
    columns = grid(count)[1]
    return {"row": index // columns + 1, "col": index % columns + 1}


def rule(fig: go.Figure, *, x: float | None = None, y: float | None = None, facet: int = 0) -> None:
    """A dashed neutral line across a facet (counted from 0): a threshold, or a value to compare with."""
    axis = facet + 1 if facet else ""
    across = {"x0": 0, "x1": 1, "xref": f"x{axis} domain", "y0": y, "y1": y, "yref": f"y{axis}"}
    upright = {"x0": x, "x1": x, "xref": f"x{axis}", "y0": 0, "y1": 1, "yref": f"y{axis} domain"}
    line = {"color": NEUTRAL, "width": 1.8, "dash": "dash"}
    fig.add_shape(type="line", line=line, **(across if x is None else upright))


def spotlight(fig: go.Figure, place: int, *, facet: int = 0) -> None:
    """A pale ground behind the category at ``place`` (from 0) of a facet: the one that is chosen."""
    axis = facet + 1 if facet else ""
    across = {"x0": place - 0.5, "x1": place + 0.5, "xref": f"x{axis}", "y0": 0, "y1": 1, "yref": f"y{axis} domain"}
    fig.add_shape(type="rect", layer="below", line_width=0, fillcolor=faded(NEUTRAL, 0.18), **across)


def key(fig: go.Figure, name: str, dash: str, **place: int) -> None:
    """A legend entry for a kind of line, whatever its colour."""
    line = {"color": NEUTRAL, "dash": dash, "width": 2}
    fig.add_scatter(x=[None], y=[None], mode="lines", name=name, line=line, hoverinfo="skip", **place)


def swatch(fig: go.Figure, name: str, alpha: float, **place: int) -> None:
    """A legend entry for a kind of box, whatever its colour: its outline, filled as far as ``alpha`` says."""
    marker = {"symbol": "square", "size": 11, "color": faded(NEUTRAL, alpha), "line": {"color": NEUTRAL, "width": 1.4}}
    fig.add_scatter(x=[None], y=[None], mode="markers", name=name, marker=marker, hoverinfo="skip", **place)


def variants(table: pd.DataFrame) -> dict[str, int]:
    """Label -> 0 for a method's plainest label, then 1, 2, …: what dashes tell apart where the colour is the same."""
    labelled = table.groupby("method", sort=False)["label"].unique()
    return {name: i for names in labelled for i, name in enumerate(sorted(names, key=lambda text: text.count("·")))}


def listed(parts: Sequence[str], most: int = 4) -> str:
    """ "a, b and 3 more" for sentences."""
    shown = "; ".join(parts[:most])
    return f"{shown}; and {len(parts) - most} more" if len(parts) > most else shown


def too_many(runs: Sequence[Any], most: int = MAX_RUNS) -> str:
    """A note where not every run is drawn."""
    return f"{most} of {len(runs)} runs are drawn: choose fewer to see the others." if len(runs) > most else ""

"""What every figure shares: a table, a drawing, one colour per method, names for runs, a layout right in light and dark."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from pruneviz.datasets import DATASETS
from pruneviz.methods import METHODS
from pruneviz.models import MODELS

if TYPE_CHECKING:
    from pruneviz.config import RunConfig
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

# Every colour has a contrast of 3 or more on white and on Streamlit's dark background, and differs from the others
# under deuteranopia and protanopia; markers repeat the difference.
COLOURS: Mapping[str, str] = {
    "random": "#7f8287",
    "magnitude": "#1d5bf2",
    "l1-filters": "#3397c1",
    "lottery-ticket": "#4c9230",
    "obd": "#a4422f",
    "obs": "#f04fbd",
    "kron-obd": "#88479b",
    "kron-obs": "#a878fa",
    "eigendamage": "#a90cd0",
    "snip": "#f04e16",
    "grasp": "#476a60",
    "isometry": "#8f9474",
}
_SYMBOLS = (
    "x", "circle", "square", "diamond", "triangle-up", "triangle-down", "pentagon", "hexagon", "star", "cross", "hourglass",
    "bowtie",
)  # fmt: skip


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

    def __call__(self, runs: Iterable[Run], **choices: Any) -> go.Figure:
        return self.plot(self.data(list(runs), **choices))


# colours and marks


def colour(method: str) -> str:
    """The method's one colour; a method that is not in the list gets one of the others', always the same."""
    return COLOURS.get(method) or list(COLOURS.values())[1 + sum(map(ord, method)) % (len(COLOURS) - 1)]


def symbol(method: str) -> str:
    """The method's marker, for those who cannot rely on colour."""
    keys = list(COLOURS)
    return _SYMBOLS[keys.index(method) if method in keys else sum(map(ord, method)) % len(_SYMBOLS)]


def faded(hex_: str, alpha: float) -> str:
    """The colour, see-through."""
    r, g, b = (int(hex_[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({r},{g},{b},{alpha:g})"


# names


def label(run: Run, among: Iterable[Run] = ()) -> str:
    """ "SNIP", "Random · from trained", and what else it takes to be told from the other runs ``among`` which it stands."""
    others = [other for other in among if other.id != run.id]
    return labels([run, *others])[run.id]


def labels(runs: Iterable[Run], *, seeds: bool = True) -> dict[str, str]:
    """Run id -> name. Names differ wherever runs do; without ``seeds``, runs that differ in the seed alone share one."""
    runs = list({run.id: run for run in runs}.values())
    names = {run.id: (METHODS[run.config.method].title, *_departures(run.config)) for run in runs}
    settings = {run.id: _settings(run, seeds) for run in runs}
    for key in dict.fromkeys(key for found in settings.values() for key in found):
        alike = defaultdict(list)
        for run in runs:
            alike[names[run.id]].append(run.id)
        for ids in alike.values():
            if len({settings[id_].get(key) for id_ in ids}) > 1:
                names |= {id_: (*names[id_], settings[id_][key]) for id_ in ids if settings[id_].get(key)}
    return {id_: " · ".join(parts) for id_, parts in names.items()}


def _departures(config: RunConfig) -> tuple[str, ...]:
    said = []
    for text in config.departures:
        what, _, value = text.split(" instead of ")[0].rpartition(" ")
        if what == "start":
            said.append(f"from {value}")
        elif what == "rounds":
            said.append("one shot" if value == "1" else f"{value} rounds")
        else:
            said.append(f"{what} {value}")
    return tuple(said)


def _settings(run: Run, seeds: bool) -> dict[str, str]:
    """What may tell two runs of one method apart, the most telling first."""
    config = run.config
    found = {"model": MODELS[config.model].title, "dataset": DATASETS[config.dataset].title}
    for name in ("train", "tune"):
        budget = getattr(config, name).model_dump()
        found |= {f"{name} {key}": f"{name} {key.replace('_', ' ')} {value}" for key, value in budget.items()}
    if not config.one_shot:
        found["rounds"] = f"{config.rounds} rounds"
    if seeds or not config.one_shot:
        found["sparsities"] = f"at {', '.join(percent(s) for s in config.sparsities)}"
    if seeds:
        found |= {"seed": f"seed {config.seed}", "id": run.id[-4:]}
    return found


# numbers and scales


def percent(share: float) -> str:
    """0.98 -> "98%", 0.9844 -> "98.4%"."""
    return f"{round(100 * share, 1):g}%"


def number(value: float) -> str:
    """Three significant digits, as a person writes them: 0.0123, 1.2·10⁻⁵, ∞."""
    if not np.isfinite(value):
        return "–" if np.isnan(value) else "∞"
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        return f"{float(f'{value:.3g}'):,g}" if abs(value) < 1000 else f"{value:,.0f}"
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa}·{power(int(exponent))}"


def power(exponent: int) -> str:
    """10 to a whole power, in superscript; 1 and 10 as they are."""
    return (
        ("1", "10")[exponent]
        if exponent in (0, 1)
        else "10" + str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    )


def log_ticks(low: float, high: float, *, most: int = 5) -> tuple[list[float], list[str]]:
    """Ticks of an axis whose coordinate is log10 of the value: powers of ten, or 1, 2, 5 where few powers fit."""
    whole = [float(e) for e in range(int(np.ceil(low - 1e-9)), int(np.floor(high + 1e-9)) + 1)]
    if len(whole) >= 2:
        whole = whole[:: -(-len(whole) // most)]
        return whole, [power(int(e)) for e in whole]
    fine = [
        (e + np.log10(m), m * 10.0**e) for e in range(int(np.floor(low)), int(np.ceil(high)) + 1) for m in (1, 2, 5)
    ]
    inside = [(at, value) for at, value in fine if low <= at <= high]
    return [float(at) for at, _ in inside], [number(value) for _, value in inside]


def spaced(sparsity: Any) -> Any:
    """Where a sparsity stands on its axis: -log10 of the kept share, so that 90% to 98% is not squeezed."""
    return -np.log10(np.maximum(1 - np.asarray(sparsity, float), 1e-6))


def sparsity_axis(sparsities: Iterable[float]) -> dict[str, Any]:
    """An x axis for :func:`spaced` coordinates, with ticks in % removed."""
    shown: list[float] = []
    for s in sorted(set(sparsities)):
        if not shown or spaced(s) - spaced(shown[-1]) > 0.12:
            shown.append(s)
    if len(shown) > 9:
        shown = [s for s in (0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999) if shown[0] <= s <= shown[-1]]
    return {
        "tickvals": [float(spaced(s)) for s in shown],
        "ticktext": [percent(s) for s in shown],
        "title": {"text": "weights removed (%, log scale)"},
    }


def thinned(count: int, most: int) -> np.ndarray:
    """At most ``most`` indices out of ``count``, first and last among them, denser at the start."""
    if count <= most:
        return np.arange(count)
    return np.unique(np.round(np.geomspace(1, count, most)).astype(int)) - 1


# runs


def sparsities(run: Run) -> list[float]:
    """The sparsities that a run has numbers or arrays for, rising."""
    found = {float(name.rpartition("-")[2]) for name in run.names("saliency")}
    metrics = run.metrics
    return sorted(found | set(metrics.loc[metrics["stage"].isin(["pruned", "tuned"]), "sparsity"].astype(float)))


def nearest(run: Run, probe: str, sparsity: float) -> float | None:
    """The recorded sparsity of a probe (``saliency``, ``spectra-tuned``, …) that is nearest in what is kept."""
    kind = probe.split("-")[0]
    found = [name.removeprefix(f"{probe}-") for name in run.names(kind) if name.startswith(f"{probe}-")]
    values = [float(text) for text in found if text.replace(".", "", 1).isdigit()]
    return min(values, key=lambda s: abs(spaced(s) - spaced(sparsity)), default=None)


def module(name: str) -> str:
    """ "1.weight" -> "1": saliencies name parameters, spectra and Jacobians modules."""
    return name.removesuffix(".weight")


def layers(runs: Iterable[Run]) -> dict[str, int]:
    """Layer -> number of weights, in network order, over all runs; what a layer menu lists."""
    found: dict[str, int] = {}
    for run in runs:
        names = run.layers("spectra-start")
        arrays = run.arrays("spectra-start")
        found |= {n: len(arrays[f"A{i}"]) * len(arrays[f"S{i}"]) for i, n in enumerate(names) if n not in found}
        if not names and (s := nearest(run, "saliency", SPARSITY)) is not None:
            sizes = run.arrays(f"saliency-{s:g}")["sizes"]
            for n, size in zip(run.layers(f"saliency-{s:g}"), sizes, strict=True):
                found.setdefault(module(n), int(size))
    return found


def chosen(runs: Iterable[Run], layer: str | None) -> str | None:
    """The layer asked for, or the one with most weights."""
    if layer is not None:
        return module(layer)
    known = layers(runs)
    return max(known, key=lambda name: known[name], default=None)


# layout


def finish(fig: go.Figure, title: str, alt: str, *, height: int = 360, note: str = "") -> go.Figure:
    """The shared layout: see-through, no colour that depends on the theme, legend under the plot; alt text kept along."""
    fig.update_layout(
        title={"text": title, "x": 0, "xref": "container", "y": 1, "yref": "container", "yanchor": "top", "pad": {"t": 14, "l": 4}},
        title_font_size=16,
        height=height,
        margin={"l": 64, "r": 20, "t": TOP, "b": BOTTOM},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        legend={
            "orientation": "h", "x": 0, "xanchor": "left", "y": -72 / max(height - TOP - BOTTOM, 1), "yanchor": "top",
            "title": {"text": ""}, "bgcolor": "rgba(0,0,0,0)",
        },
        hoverlabel={"align": "left"},
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": NEUTRAL, "activecolor": NEUTRAL},
        meta={"alt": alt, "note": note},
    )  # fmt: skip
    fig.update_yaxes({"gridcolor": GRID, "zeroline": False, "ticks": "", "automargin": True})
    line = {"linecolor": NEUTRAL, "showline": True, "ticks": "outside", "ticklen": 4, "tickcolor": NEUTRAL}
    fig.update_xaxes({**line, "gridcolor": GRID, "zeroline": False, "title": {"standoff": 8}, "automargin": True})
    return fig


def alt(fig: go.Figure) -> str:
    """The figure in one sentence with its numbers, for those who do not see it."""
    return (fig.layout.meta or {}).get("alt", "")


def note(fig: go.Figure) -> str:
    """What the caption should add for these runs, e.g. that only six are drawn; often empty."""
    return (fig.layout.meta or {}).get("note", "")


def empty(title: str, what_to_do: str) -> go.Figure:
    """A titled figure without axes that says what to do."""
    fig = go.Figure()
    fig.add_annotation(text=what_to_do, x=0.5, y=0.5, xref="paper", yref="paper", showarrow=False, font_size=14)
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


def place(index: int, count: int) -> dict[str, int]:
    """Row and column of a facet, counted from 0, as Plotly takes them."""
    columns = grid(count)[1]
    return {"row": index // columns + 1, "col": index % columns + 1}


def rule(fig: go.Figure, *, x: float | None = None, y: float | None = None, facet: int = 0) -> None:
    """A dashed neutral line across a facet (counted from 0): a threshold, or a value to compare with."""
    axis = facet + 1 if facet else ""
    across = {"x0": 0, "x1": 1, "xref": f"x{axis} domain", "y0": y, "y1": y, "yref": f"y{axis}"}
    upright = {"x0": x, "x1": x, "xref": f"x{axis}", "y0": 0, "y1": 1, "yref": f"y{axis} domain"}
    line = {"color": NEUTRAL, "width": 1.8, "dash": "dash"}
    fig.add_shape(type="line", line=line, **(across if x is None else upright))


def key(fig: go.Figure, name: str, dash: str, **place: int) -> None:
    """A legend entry for a kind of line, whatever its colour."""
    line = {"color": NEUTRAL, "dash": dash, "width": 2}
    fig.add_scatter(x=[None], y=[None], mode="lines", name=name, line=line, hoverinfo="skip", **place)


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

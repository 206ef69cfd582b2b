"""Repair: whether making the survivors isometric again, or only rescaling each layer, helps the training that follows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd
import plotly.graph_objects as go

from pruneviz.figures import base
from pruneviz.records.about import About
from pruneviz.records.metrics import ACCURACY, TEST
from pruneviz.records.stages import Stage

if TYPE_CHECKING:
    from pruneviz.plan.config import RunConfig
    from pruneviz.store import Run

ORDER = 45
TITLE = "Test accuracy with and without repair"
KINDS = {"none": "not repaired", "rescale": "layers rescaled", "isometry": "made isometric"}
FILL = {"none": 0, "rescale": 0.35, "isometry": 0.95}
KEYS = ["family", "label", "method", "repair", "sparsity"]
COLUMNS = [*KEYS, "colour", "mean", "low", "high", "seeds", "without_path"]


def family(config: RunConfig) -> str:
    """What runs have in common that differ in the repair, and the seed, alone."""
    return base.spelled(config, **_unrepaired(config), seed=0, probes=(), note="")


def _unrepaired(config: RunConfig) -> dict[str, Any]:
    return {"repair": "none", "params": {key: value for key, value in config.params.items() if key != "repair"}}


@dataclass(frozen=True)
class _Named:
    """As much of a run as its name is made from."""

    id: str
    config: RunConfig
    about: About

    @classmethod
    def of(cls, run: Run) -> _Named:
        """The run by its family, whatever its repair."""
        kept = tuple(text for text in run.about.departures if not text.startswith("repair "))
        config = run.config.model_copy(update=_unrepaired(run.config))
        return cls(family(run.config), config, run.about.model_copy(update={"departures": kept}))


def repaired(runs: Iterable[Run]) -> bool:
    """Whether any of the runs repairs its layers: then there is something to compare."""
    return any(base.repair(run.config) != "none" for run in runs)


def data(runs: Sequence[Run]) -> pd.DataFrame:
    """One row a family, repair (none, rescale, isometry) and sparsity: test accuracy after training again, as ``mean``,
    ``low`` and ``high`` over ``seeds`` runs, ``without_path`` of which have no path left from input to output. Families with
    one kind of repair alone are left out."""
    families = {run.id: family(run.config) for run in runs}
    names = base.labels([_Named.of(run) for run in runs], seeds=False)
    colours = {families[run.id]: run.about.colour for run in reversed(runs)}
    cut = {run.id: base.without_path(run) for run in runs}
    rows = [
        {
            "family": families[run.id], "label": names[families[run.id]], "method": run.config.method,
            "repair": base.repair(run.config), "sparsity": row.sparsity, "seed": run.config.seed, "value": row.value,
            "without_path": row.sparsity in cut[run.id],
        }
        for run in runs for row in base.rows(run.metrics)
        if (row.stage, row.split, row.metric) == (Stage.TUNED, TEST, ACCURACY)
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=[*KEYS, "seed", "value", "without_path"])
    kinds = table.groupby("family")["repair"].nunique()
    several = table[table["family"].isin(kinds.index[kinds > 1])]
    found = several.groupby(KEYS, sort=False, as_index=False).agg(
        mean=("value", "mean"), low=("value", "min"), high=("value", "max"), seeds=("seed", "nunique"),
        without_path=("without_path", "sum"),
    )  # fmt: skip
    order = found["repair"].map(list(KINDS).index)
    found = found.assign(order=order, colour=found["family"].map(colours))
    return found.sort_values(["sparsity", "order"], kind="stable")[COLUMNS].reset_index(drop=True)


def plot(table: pd.DataFrame) -> go.Figure:
    """One facet a method: at each sparsity the repairs side by side, hollow, pale and full."""
    if table.empty:
        return base.empty(TITLE, "Choose runs that differ in the repair alone, say SNIP with repair none and isometry.")
    parts = [part for _, part in base.groups(table, "family")]
    drawn = parts[: base.MAX_FACETS]
    sparsities = sorted(table["sparsity"].unique())
    place_of = {s: i for i, s in enumerate(sparsities)}
    fig, height = base.facets(
        [f"<b>{part['label'].iloc[0]}</b>" for part in drawn], shared_yaxes="all", horizontal_spacing=0.05, row=230
    )
    kinds = [kind for kind in KINDS if kind in set(table["repair"])]
    for i, part in enumerate(drawn):
        at = base.place(i, len(drawn))
        for kind, points in base.groups(part, "repair"):
            aside = 0.22 * (kinds.index(str(kind)) - (len(kinds) - 1) / 2)
            _dots(fig, points, str(kind), [place_of[s] + aside for s in points["sparsity"]], **at)
        ticks: dict[str, Any] = {
            "tickvals": list(range(len(sparsities))),
            "ticktext": [base.percent(s) for s in sparsities],
        }
        fig.update_xaxes(title_text="weights removed", range=[-0.6, len(sparsities) - 0.4], **ticks, **at)
        fig.update_yaxes(title_text="test accuracy (%)" if at["col"] == 1 else "", **at)
    for kind in kinds:
        base.swatch(fig, KINDS[kind], FILL[kind], row=1, col=1)
    alt = f"Test accuracy after training again, by repair: {base.listed(_sentences(table), 6)}."
    fig = base.finish(fig, TITLE, alt, height=height, note=base.too_many(parts, base.MAX_FACETS))
    low, high = 100 * table["low"].min(), 100 * table["high"].max()
    pad = 0.08 * (high - low) or 1
    return fig.update_yaxes(range=[low - pad, high + pad]).update_annotations(font_size=13)


def _dots(fig: go.Figure, points: pd.DataFrame, kind: str, x: list[float], **place: int) -> None:
    shade = points["colour"].iloc[0]
    mean, low, high = (100 * points[key] for key in ("mean", "low", "high"))
    said = [
        f"{base.percent(r.sparsity)} removed, {KINDS[kind]}<br><b>{100 * r.mean:.1f}%</b>"
        + (f"<br>{100 * r.low:.1f}% to {100 * r.high:.1f}% over {r.seeds} seeds" if r.seeds > 1 else "")
        for r in base.rows(points)
    ]
    bars = {"type": "data", "array": high - mean, "arrayminus": mean - low, "thickness": 1.6, "width": 4}
    fig.add_scatter(
        x=x, y=mean, mode="markers", name=KINDS[kind], showlegend=False, customdata=said,
        marker={"symbol": "square", "size": 11, "color": base.faded(shade, FILL[kind]), "line": {"color": shade, "width": 1.6}},
        error_y={**bars, "color": shade} if (points["seeds"] > 1).any() else None,
        hovertemplate="%{customdata}<extra></extra>", **place,
    )  # fmt: skip


def _sentences(table: pd.DataFrame) -> list[str]:
    """Each family at its highest sparsity, in words."""
    said = []
    for label, part in base.groups(table, "label"):
        last = part[part["sparsity"] == part["sparsity"].max()]
        values = ", ".join(f"{100 * r.mean:.1f}% {KINDS[r.repair]}" for r in base.rows(last))
        said.append(f"{label} at {base.percent(last['sparsity'].iloc[0])}: {values}")
    return said


FIGURE = base.Figure(
    "repair",
    TITLE,
    "Counted: the share of test samples classified rightly after training again, for runs that differ in the repair (and the "
    "seed) alone, so with the same masks and the same budget. Square: the mean; bar: lowest to highest seed. Rescaling only "
    "multiplies each layer by one number: where it does as well, it is the size of the signal that helps, and not isometry.",
    r"\min_W \big\lVert (m_\ell \odot W)^\top (m_\ell \odot W) - I \big\rVert_F "
    r"\quad \text{or} \quad W_\ell \leftarrow W_\ell \,/\, \bar\sigma(m_\ell \odot W_\ell)",
    data,
    plot,
)

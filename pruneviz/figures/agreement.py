"""Agreement: do two methods keep the same weights, and order them alike?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from pruneviz.figures import base
from pruneviz.figures.eigenvectors import SCALE
from pruneviz.records.arrays import Kept, Ranking
from pruneviz.records.stages import Stage

if TYPE_CHECKING:
    from pruneviz.store import Run

ORDER = 10
TITLE = "Agreement between methods"
COLUMNS = [
    "run", "label", "with_run", "with_label", "layer", "asked", "weights", "jaccard", "chance", "scored", "correlation",
]  # fmt: skip
BLUES = [[0, "#eef2fb"], [0.5, "#7f9fe6"], [1, "#1b3f9c"]]
NOTHING = "Choose two runs on the same network that remove weights or filters, and recorded their masks."


@dataclass(frozen=True)
class _Sampled:
    """A run's bits and ranks on the sampled weights; ``kept`` and ``order`` [n], ``ends`` [layers]."""

    kept: np.ndarray
    order: np.ndarray
    layers: list[str]
    ends: np.ndarray

    def of(self, layer: str | None) -> tuple[np.ndarray, np.ndarray]:
        """Of one layer, or of all."""
        if layer is None:
            return self.kept, self.order
        i = self.layers.index(layer)
        inside = slice(self.ends[i - 1] if i else 0, self.ends[i])
        return self.kept[inside], self.order[inside]


def data(runs: Sequence[Run], sparsity: float = base.SPARSITY, layer: str | None = None) -> pd.DataFrame:
    """One row a pair of runs (both ways), over the whole network or one layer, on the sampled ``weights``.

    ``jaccard``: weights that both keep, as a share of those that either keeps; ``chance``: the same for masks that keep as
    many in each layer, at random. ``correlation``: Spearman's, of the scores before anything was removed, over the
    ``scored`` weights that both methods score.
    """
    runs, names = list(runs), base.labels(runs)
    found = {run.id: each for run in runs if (each := _sampled(run, sparsity)) is not None}
    rows: list[dict[str, Any]] = []
    for a, b in combinations(list(found)[: base.MAX_RUNS], 2):
        one, two = found[a], found[b]
        if one.layers != two.layers or one.ends.tolist() != two.ends.tolist() or layer not in (None, *one.layers):
            continue
        both = {"layer": layer, "asked": sparsity, **_masks(one, two, layer), **_scores(one, two, layer)}
        rows += [
            {"run": first, "label": names[first], "with_run": second, "with_label": names[second], **both}
            for first, second in ((a, b), (b, a))
        ]
    return pd.DataFrame(rows, columns=COLUMNS)


def _sampled(run: Run, sparsity: float) -> _Sampled | None:
    at = base.nearest(run, Kept, sparsity)
    start, after = run.read(Ranking, stage=Stage.START), None if at is None else run.read(Kept, at)
    if start is None or start.order is None or start.counts is None or after is None or after.kept is None:
        return None
    kept = np.unpackbits(after.kept, count=len(start.order)).astype(bool)
    return _Sampled(kept, start.order, list(start.layers), np.cumsum(start.counts))


def _masks(one: _Sampled, two: _Sampled, layer: str | None) -> dict[str, Any]:
    a, b = one.of(layer)[0], two.of(layer)[0]
    parts = [(one.of(name)[0], two.of(name)[0]) for name in ([layer] if layer else one.layers)]
    shares = [(len(p), p.mean() if len(p) else 0.0, q.mean() if len(q) else 0.0) for p, q in parts]
    common = sum(n * p * q for n, p, q in shares)
    either = sum(n * (p + q - p * q) for n, p, q in shares)
    union = int((a | b).sum())
    return {
        "weights": len(a),
        "jaccard": int((a & b).sum()) / union if union else np.nan,
        "chance": common / either if either else np.nan,
    }


def _scores(one: _Sampled, two: _Sampled, layer: str | None) -> dict[str, Any]:
    a, b = one.of(layer)[1], two.of(layer)[1]
    known = (a > 0) & (b > 0)
    ranks = [pd.Series(order[known]).rank() for order in (a, b)]
    told = all(rank.nunique() > 1 for rank in ranks)
    return {"scored": int(known.sum()), "correlation": float(ranks[0].corr(ranks[1])) if told else np.nan}


def plot(table: pd.DataFrame) -> go.Figure:
    """Two matrices, runs by runs: of the masks and of the scores. Columns go by the numbers of the rows."""
    if table.empty:
        return base.empty(TITLE, NOTHING)
    ids = list(dict.fromkeys([*table["run"], *table["with_run"]]))
    label = dict(zip(table["run"], table["label"], strict=True))
    rows = [f"{label[id_]}  <b>{i}</b>" for i, id_ in enumerate(ids, 1)]
    fig = make_subplots(
        1, 2, subplot_titles=["<b>Masks</b>: Jaccard index", "<b>Scores</b>: rank correlation"], shared_yaxes=True,
        horizontal_spacing=0.06,
    )  # fmt: skip
    said = {
        "jaccard": "Of the weights that either keeps, both keep %{z:.1%}<br>by chance: %{customdata:.1%}",
        "correlation": "rank correlation %{z:.2f}<br>over %{customdata:,} weights that both score",
    }
    for col, (value, beside) in enumerate((("jaccard", "chance"), ("correlation", "scored")), 1):
        grid, extra = (
            table.pivot(index="run", columns="with_run", values=name).reindex(index=ids, columns=ids)
            for name in (value, beside)
        )
        z = grid.to_numpy(float)
        fig.add_heatmap(
            x=[f"<b>{i}</b>" for i in range(1, len(ids) + 1)], y=rows, z=z, customdata=extra.to_numpy(float), name="",
            coloraxis=f"coloraxis{col if col > 1 else ''}", xgap=2, ygap=2, hoverongaps=False,
            text=[["" if np.isnan(v) else f"{v:.2f}" for v in line] for line in z], texttemplate="%{text}",
            hovertemplate=f"%{{y}} with %{{x}}<br>{said[value]}", row=1, col=col,
        )  # fmt: skip
    at, layer = base.percent(table["asked"].iloc[0]), table["layer"].iloc[0]
    where = f"layer {layer}" if layer else "the whole network"
    best = table.iloc[table["jaccard"].fillna(-1).argmax()]
    alt = (
        f"Agreement of {len(ids)} runs over {where} at {at} sparsity. The masks most alike are of {best['label']} and "
        f"{best['with_label']}: Jaccard index {best['jaccard']:.2f}, {best['chance']:.2f} by chance; their scores have "
        f"rank correlation {best['correlation']:.2f}."
    )
    height = base.TOP + 56 * len(ids) + 60
    fig = base.finish(fig, f"{TITLE}, {where} at {at}", alt, height=height, note=_note(table), least=620)
    fig.update_layout(
        margin_b=48,
        coloraxis={"colorscale": BLUES, "cmin": 0, "cmax": 1, "showscale": False},
        coloraxis2={"colorscale": SCALE, "cmin": -1, "cmax": 1, "showscale": False},
    )
    fig.update_xaxes(title_text="run, by its number", showgrid=False, showline=False, ticks="")
    fig.update_yaxes(showgrid=False, autorange="reversed").update_yaxes(title_text="run", row=1, col=1)
    return fig.update_annotations(font_size=13)


def _note(table: pd.DataFrame) -> str:
    low, high = (f"{value:.2f}" for value in (table["chance"].min(), table["chance"].max()))
    by_chance = low if low == high else f"{low} to {high}"
    return (
        f"Compared on {table['weights'].max():,} weights, the same in every run of a network. Masks that keep as many "
        f"weights of each layer, but at random, would agree in {by_chance}."
    )


FIGURE = base.Figure(
    "agreement",
    TITLE,
    "Left: of the weights that at least one of two methods keeps, the share that both keep; 1 is the same mask. Right: do "
    "the two scores put the weights in the same order, before anything is removed? 1 the same, 0 unrelated, -1 opposite. A "
    "weight has the score of its filter where filters are scored. EigenDamage removes directions, not weights, so it is not "
    "here.",
    r"J = \frac{|m \wedge m'|}{|m \vee m'|}, \qquad \rho = \mathrm{corr}(\mathrm{rank}\, s, \mathrm{rank}\, s')",
    data,
    plot,
)

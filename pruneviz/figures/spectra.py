"""Kronecker spectra: the eigenvalues of a layer's two Fisher factors, before and after pruning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from pruneviz.figures import base
from pruneviz.figures.saliency import matches

if TYPE_CHECKING:
    from pruneviz.store import Run

TITLE = "Kronecker spectra before and after pruning"
COLUMNS = [
    "run", "method", "label", "layer", "factor", "when", "sparsity", "index", "of", "eigenvalue", "condition", "rank"
]  # fmt: skip
FACTORS = {"A": "of inputs", "S": "of gradients"}
INDICES = [1, 3, 10, 30, 100, 300, 1000, 3000]
WHEN = {"before": "dot", "after": "solid"}


def data(runs: Sequence[Run], sparsity: float | None = None, layer: str | None = None) -> pd.DataFrame:
    """One row an eigenvalue, descending, at most 512 a curve; ``condition`` and ``rank`` are those of the whole spectrum.

    ``sparsity``: where "after" is read, by default 90%; ``layer``: by default the one with most weights.
    """
    runs, names = list(runs), base.labels(runs)
    wanted = base.chosen(runs, layer)
    rows: list[dict[str, Any]] = []
    for run in runs:
        about = {"run": run.id, "method": run.config.method, "label": names[run.id]}
        for when, at, name in moments(run, sparsity):
            for factor, values, found in spectrum(run, name, wanted):
                same = {**about, "layer": found, "factor": factor, "when": when, "sparsity": at, "of": len(values)}
                same |= {"condition": condition(values), "rank": effective_rank(values)}
                rows += [
                    {**same, "index": int(i) + 1, "eigenvalue": float(values[i])}
                    for i in base.thinned(len(values), base.MAX_POINTS)
                ]
    return pd.DataFrame(rows, columns=COLUMNS)


def moments(run: Run, sparsity: float | None) -> list[tuple[str, float, str]]:
    """Before pruning, and after it at the nearest recorded sparsity: (when, sparsity, recorded name)."""
    at = base.nearest(run, "spectra-tuned", base.SPARSITY if sparsity is None else sparsity)
    found = [("before", 0.0, "spectra-start")]
    return found if at is None else [*found, ("after", at, f"spectra-tuned-{at:g}")]


def spectrum(run: Run, name: str, layer: str | None) -> list[tuple[str, np.ndarray, str]]:
    """The factors of one layer: (A or S, eigenvalues, recorded layer); empty where the run has no such layer."""
    arrays = run.arrays(name)
    for i, found in enumerate(run.layers(name)):
        if layer is not None and matches(found, layer):
            return [(factor, arrays[f"{factor}{i}"].astype(float), found) for factor in FACTORS]
    return []


def effective_rank(values: np.ndarray) -> float:
    """exp of the entropy of the eigenvalues as shares of their sum: n for n equal ones, 1 for a single one; 0 for none."""
    total = values.sum()
    if total <= 0:
        return 0.0
    shares = values[values > 0] / total
    return float(np.exp(-(shares * np.log(shares)).sum()))


def condition(values: np.ndarray) -> float:
    """Largest over smallest eigenvalue; infinite where the smallest is 0 to float32's precision."""
    top, low = float(values.max(initial=0)), float(values.min(initial=np.inf))
    return top / low if top > 0 and low > top * len(values) * np.finfo(np.float32).eps else float("inf")


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """One row a curve: label, layer, factor, when, sparsity, size, condition number, effective rank."""
    keys = ["run", "factor", "when"]
    columns = ["label", "layer", "factor", "when", "sparsity", "of", "condition", "rank"]
    return table.drop_duplicates(keys)[columns].rename(columns={"of": "size"}).reset_index(drop=True)


def plot(table: pd.DataFrame) -> go.Figure:
    """A on the left, S on the right, on log-log axes: dotted before, solid after."""
    if table.empty:
        return base.empty(TITLE, "Choose a finished run that recorded Kronecker spectra, and one of its layers.")
    runs = list(table["run"].unique())
    table = table[table["run"].isin(runs[: base.MAX_RUNS]) & (table["eigenvalue"] > 0)]
    titles = [f"<b>{factor}</b>, {text}" for factor, text in FACTORS.items()]
    fig = make_subplots(1, 2, subplot_titles=titles, horizontal_spacing=0.12)
    variant = base.variants(table)
    for (_, factor, when), part in table.groupby(["run", "factor", "when"], sort=False):
        first, tail = part.iloc[0], when == "before"
        dash = WHEN["before"] if tail else base.DASHES[variant[first["label"]] % 4]
        fig.add_scatter(
            x=part["index"], y=part["eigenvalue"], mode="lines", name=first["label"], legendgroup=first["run"],
            showlegend=factor == "A" and (not tail or _only_before(table, first["run"])),
            line={"color": base.colour(first["method"]), "width": 1.6 if tail else 2.2, "dash": dash},
            hovertemplate=f"{first['label']}, {when}<br>eigenvalue %{{x}} of {first['of']}: %{{y:.3g}}<br>"
            f"condition {base.number(first['condition'])}, effective rank {first['rank']:.1f}<extra></extra>",
            row=1, col=1 if factor == "A" else 2,
        )  # fmt: skip
    for when, dash in WHEN.items():
        base.key(fig, "before pruning" if when == "before" else "after pruning and training", dash, row=1, col=1)
    after = summary(table[table["when"] == "after"])
    said = [f"{r.label} {r.factor} has effective rank {r.rank:.1f} of {r.size}" for r in after.itertuples()]
    layer, at = table["layer"].iloc[0], table["sparsity"].max()
    alt = f"Eigenvalues of the Kronecker factors of layer {layer} after pruning to {base.percent(at)}: {base.listed(said, 8)}."
    title = f"Kronecker spectra of layer {layer} at {base.percent(at)} sparsity"
    fig = base.finish(fig, title, alt, height=400, note=base.too_many(runs))
    _axes(fig, table)
    return fig.update_annotations(font_size=13)


def _axes(fig: go.Figure, table: pd.DataFrame) -> None:
    """Log-log, without the last decades of rounding error below a billionth of the largest eigenvalue."""
    for col, factor in enumerate(FACTORS, 1):
        values = table.loc[table["factor"] == factor, "eigenvalue"]
        if values.empty:
            continue
        top = np.log10(values.max())
        low = max(np.log10(values.min()), top - 9)
        where, texts = base.log_ticks(low, top)
        scale = {"type": "log", "range": [low - 0.3, top + 0.3], "tickvals": [10**e for e in where], "ticktext": texts}
        fig.update_yaxes(**scale, row=1, col=col)
    fig.update_xaxes(type="log", title_text="index (log scale)", tickvals=INDICES)
    fig.update_yaxes(title_text="eigenvalue", row=1, col=1)


def _only_before(table: pd.DataFrame, run: str) -> bool:
    return set(table.loc[table["run"] == run, "when"]) == {"before"}


FIGURE = base.Figure(
    "spectra",
    TITLE,
    "Shown: eigenvalues, largest first, of the layer's Kronecker factors of the Fisher, over 512 training samples with labels "
    "sampled from the network's own predictions. Dotted: before pruning; solid: after pruning and training. A steep fall "
    "means that few directions carry the curvature: effective rank is the exponential of the spectrum's entropy.",
    r"F_\ell \approx S_\ell \otimes A_\ell, \quad A = E[a a^\top], \quad S = E[g g^\top], \quad "
    r"\text{effective rank} = \exp\Big(-\sum_i p_i \log p_i\Big), \; p_i = \lambda_i / \textstyle\sum_j \lambda_j",
    data,
    plot,
)

"""Kronecker spectra: the eigenvalues of a layer's two Fisher factors and of their product, before and after pruning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from pruneviz.figures import base
from pruneviz.records.arrays import Cut, Spectra
from pruneviz.records.stages import Stage

if TYPE_CHECKING:
    from pruneviz.store import Run

ORDER = 25
TITLE = "Kronecker spectra before and after pruning"
COLUMNS = [
    *base.WHO, "layer", "factor", "when", "sparsity", "index", "of", "eigenvalue", "condition", "rank"
]  # fmt: skip
FACTORS = {"A": "of inputs", "S": "of gradients"}
PRODUCT = "A ⊗ S"
PANELS = {**FACTORS, PRODUCT: "all products"}
DECADES = {"A": 7, "S": 7, PRODUCT: 9}  # that are shown below the largest
PAIRS = 4_000_000  # products that are sorted; of a wider layer, evenly spaced eigenvalues of A
ALL_POINTS = 7200  # over all curves, so that thirty stay light
INDICES = [1, 3, 10, 30, 100, 300, 1000, 3000]
WHEN = {"before": "dot", "after": "solid"}
CUT = {
    "kept": "circle",
    "removed": "circle-open",
}  # directions that EigenDamage kept and removed, in the basis that it cut


def data(runs: Sequence[Run], sparsity: float | None = None, layer: str | None = None) -> pd.DataFrame:
    """One row an eigenvalue, descending, at most 512 a curve; ``condition`` and ``rank`` are those of the whole spectrum.

    ``factor``: A, S, or A ⊗ S, all products of the two. ``when``: before, after, and where directions were cut, each of
    them as kept or removed, with its eigenvalue in the basis that was cut.
    ``sparsity``: where "after" is read, by default 90%; ``layer``: by default the one with most weights.
    """
    runs, names = list(runs), base.labels(runs)
    wanted = base.chosen(runs, layer)
    rows: list[dict[str, Any]] = []
    for run in runs:
        about = {**base.who(run, names), "layer": wanted}
        for when, at, recorded in moments(run, sparsity):
            if both := spectrum(recorded, wanted):
                curves = {factor: (np.arange(len(values)), values) for factor, values in both.items()}
                for factor, (index, values) in {**curves, PRODUCT: product(**both)}.items():
                    rows += _curve({**about, "factor": factor, "when": when, "sparsity": at}, index, values, both)
        rows += [{**about, **row} for row in _cut(run, sparsity, wanted)]
    return pd.DataFrame(rows, columns=COLUMNS)


def moments(run: Run, sparsity: float | None) -> list[tuple[str, float, Spectra | None]]:
    """Before pruning, and after it at the nearest recorded sparsity: (when, sparsity, what was recorded)."""
    at = base.nearest(run, Spectra, base.SPARSITY if sparsity is None else sparsity, Stage.TUNED)
    found = [("before", 0.0, run.read(Spectra, stage=Stage.START))]
    return found if at is None else [*found, ("after", at, run.read(Spectra, at, Stage.TUNED))]


def spectrum(recorded: Spectra | None, layer: str | None) -> dict[str, np.ndarray]:
    """The factors of one layer: A and S -> eigenvalues; empty where there is no such layer."""
    if recorded is None or layer not in recorded.layers:
        return {}
    i = recorded.layers.index(layer)
    A, S = recorded.A[i], recorded.S[i]
    return {} if A is None or S is None else {"A": A.astype(float), "S": S.astype(float)}


def product(A: np.ndarray, S: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues of the Kronecker product, descending, with their indices from 0; of a wide layer an even sample."""
    most = max(1, min(len(A), PAIRS // len(S)))
    some = A[np.linspace(0, len(A) - 1, most).round().astype(int)]
    values = np.multiply.outer(some.astype(np.float32), S.astype(np.float32)).ravel()
    values.sort()
    return np.linspace(0, len(A) * len(S) - 1, len(values)).round().astype(int), values[::-1]


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


def _curve(
    about: dict[str, Any], index: np.ndarray, values: np.ndarray, both: dict[str, np.ndarray]
) -> list[dict[str, Any]]:
    """Rows of one spectrum. Condition numbers and effective ranks of A and S multiply to those of their product."""
    parts = both.values() if about["factor"] == PRODUCT else [both[about["factor"]]]
    about |= {
        "of": int(np.prod([len(part) for part in parts])),
        "condition": float(np.prod([condition(part) for part in parts])),
        "rank": float(np.prod([effective_rank(part) for part in parts])),
    }
    picked = base.thinned(len(values), base.MAX_POINTS)
    return [{**about, "index": int(index[i]) + 1, "eigenvalue": float(values[i])} for i in picked]


def _cut(run: Run, sparsity: float | None, layer: str | None) -> list[dict[str, Any]]:
    """The directions that were cut of one layer: a row each, at most 512 a side."""
    at = base.nearest(run, Cut, base.SPARSITY if sparsity is None else sparsity)
    found = None if at is None else run.read(Cut, at)
    if found is None or layer not in found.layers:
        return []
    i = found.layers.index(layer)
    sides = {"A": (found.A[i], found.keptA[i]), "S": (found.S[i], found.keptS[i])}
    rows: list[dict[str, Any]] = []
    for factor, (values, flags) in sides.items():
        if values is None or flags is None:
            continue
        kept = flags.astype(bool)
        rows += [
            {
                "factor": factor, "when": "kept" if kept[j] else "removed", "sparsity": at, "index": int(j) + 1,
                "of": len(values), "eigenvalue": float(values[j]), "condition": np.nan, "rank": np.nan,
            }
            for j in base.thinned(len(values), base.MAX_POINTS)
        ]  # fmt: skip
    return rows


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """One row a run and factor: its size, effective rank and condition number, before and after."""
    first = table[table["when"].isin(list(WHEN))].drop_duplicates(["run", "factor", "when"])
    wide = first.pivot(index=["run", "label", "factor", "of"], columns="when", values=["rank", "condition"])
    wide.columns = [f"{what} {when}" for what, when in wide.columns]
    order = [f"{what} {when}" for what in ("rank", "condition") for when in WHEN]
    wide = wide.reindex(columns=[name for name in order if name in wide.columns])
    kept = first.drop_duplicates(["run", "factor"]).set_index(["run", "label", "factor", "of"]).index
    return wide.reindex(kept).reset_index().drop(columns="run").rename(columns={"of": "size"})


def plot(table: pd.DataFrame) -> go.Figure:
    """A, S and their product side by side on log-log axes: dotted before, solid after; directions kept are filled marks."""
    if table.empty:
        return base.empty(TITLE, "Choose a finished run that recorded Kronecker spectra, and one of its layers.")
    runs = list(table["run"].unique())
    whole = table[table["run"].isin(runs[: base.MAX_RUNS]) & (table["eigenvalue"] > 0)]
    shared = _shared(whole)
    drawn, table = _within_budget(whole, shared)
    titles = [f"<b>{factor}</b>, {text}" for factor, text in PANELS.items()]
    fig, _ = base.facets(titles, horizontal_spacing=0.07)
    columns, variant = {factor: i for i, factor in enumerate(PANELS, 1)}, base.variants(table)
    curves = list(base.groups(table[table["when"].isin(list(WHEN))], ["run", "factor", "when"]))
    most = min(base.MAX_POINTS, ALL_POINTS // max(1, len(curves)))
    for (run, factor, when), part in curves:
        if when == "before" and shared[run, factor] != run:
            continue
        several = when == "before" and list(shared.values()).count(run) > sum(key[0] == run for key in shared)
        _line(
            fig, part.iloc[base.thinned(len(part), most)], variant, several, _only_before(table, run), columns[factor]
        )
    for (_, factor), part in base.groups(table[table["when"].isin(list(CUT))], ["run", "factor"]):
        _marks(fig, part.iloc[base.thinned(len(part), most)], columns[factor])
    for when, dash in WHEN.items():
        base.key(fig, "before pruning" if when == "before" else "after pruning and training", dash, row=1, col=1)
    if table["when"].isin(list(CUT)).any():
        for name, symbol in CUT.items():
            marker = {"symbol": symbol, "size": 6, "color": base.NEUTRAL}
            fig.add_scatter(x=[None], y=[None], mode="markers", name=f"direction {name}", marker=marker, row=1, col=1)
    after = table[table["when"] == "after"].drop_duplicates(["run", "factor"])
    said = [f"{r.label} {r.factor} has effective rank {r.rank:.1f} of {r.of:,}" for r in base.rows(after)]
    layer, at = table["layer"].iloc[0], table["sparsity"].max()
    alt = f"Eigenvalues of the Kronecker factors of layer {layer} after pruning to {base.percent(at)}: {base.listed(said, 9)}."
    title = f"Kronecker spectra of layer {layer} at {base.percent(at)} sparsity"
    fig = base.finish(fig, title, alt, height=420, note=base.too_many(runs, len(drawn)))
    _axes(fig, table)
    return fig.update_annotations(font_size=13)


def _shared(table: pd.DataFrame) -> dict[tuple[str, str], str]:
    """(run, factor) -> the first run with the same curve before pruning, up to rounding: runs of one dense network share it."""
    first: dict[str, dict[str, np.ndarray]] = {factor: {} for factor in PANELS}
    found = {}
    for (run, factor), part in base.groups(table[table["when"] == "before"], ["run", "factor"]):
        values, known = part["eigenvalue"].to_numpy(), first[factor]
        above = np.count_nonzero(values > 1e-5 * values[0])
        same = (other for other, seen in known.items() if _alike(seen[:above], values[:above]))
        found[run, factor] = next(same, run)
        known.setdefault(found[run, factor], values)
    return found


def _alike(first: np.ndarray, second: np.ndarray) -> bool:
    return len(first) == len(second) and np.allclose(first, second, rtol=1e-2)


def _within_budget(table: pd.DataFrame, shared: dict[tuple[str, str], str]) -> tuple[list[str], pd.DataFrame]:
    """The first runs whose curves fit into one figure, and their rows."""
    left, drawn = base.MAX_TRACES - len(WHEN) - len(CUT), []
    for run, part in base.groups(table, "run"):
        left -= len(part[part["when"] == "after"]["factor"].unique()) + sum(
            shared[k] == run for k in shared if k[0] == run
        )
        left -= len(part[part["when"].isin(list(CUT))]["factor"].unique())
        if left < 0:
            break
        drawn.append(str(run))
    return drawn, table[table["run"].isin(drawn)]


def _line(fig: go.Figure, part: pd.DataFrame, variant: dict[str, int], several: bool, alone: bool, column: int) -> None:
    """One spectrum; grey where several runs begin with it."""
    first = part.iloc[0]
    tail = first["when"] == "before"
    named = "all of the same network" if several else first["label"]
    fig.add_scatter(
        x=part["index"].to_numpy(np.int32), y=part["eigenvalue"].to_numpy(np.float32), mode="lines", name=first["label"],
        legendgroup=first["run"], showlegend=column == 1 and (not tail or alone),
        line={
            "color": base.NEUTRAL if several else first["colour"], "width": 1.6 if tail else 2.2,
            "dash": WHEN["before"] if tail else base.DASHES[variant[first["label"]] % 4],
        },
        hovertemplate=f"{named}, {first['when']}<br>eigenvalue %{{x:,}} of {first['of']:,}: %{{y:.3g}}<br>"
        f"condition {base.number(first['condition'])}, effective rank {first['rank']:,.1f}<extra></extra>",
        row=1, col=column,
    )  # fmt: skip


def _marks(fig: go.Figure, part: pd.DataFrame, column: int) -> None:
    first, shade = part.iloc[0], part["colour"].iloc[0]
    fig.add_scatter(
        x=part["index"].to_numpy(np.int32), y=part["eigenvalue"].to_numpy(np.float32), mode="markers", name=first["label"],
        legendgroup=first["run"], showlegend=False, text=part["when"],
        marker={
            "symbol": [CUT[when] for when in part["when"]], "size": 5, "color": shade, "line": {"width": 1, "color": shade},
        },
        hovertemplate=f"{first['label']}, direction %{{x:,}} of {first['of']:,}: %{{text}}<br>"
        "eigenvalue in the basis that was cut %{y:.3g}<extra></extra>", row=1, col=column,
    )  # fmt: skip


def _axes(fig: go.Figure, table: pd.DataFrame) -> None:
    """Log-log, without the last decades, which are rounding error."""
    for col, factor in enumerate(PANELS, 1):
        values, last = (table.loc[table["factor"] == factor, key] for key in ("eigenvalue", "of"))
        if values.empty:
            continue
        top, end = np.log10(values.max()), np.log10(last.max())
        low = max(np.log10(values.min()), top - DECADES[factor])
        where, texts = base.log_ticks(low, top)
        scale = {"type": "log", "range": [low - 0.3, top + 0.3], "tickvals": [10**e for e in where], "ticktext": texts}
        fig.update_yaxes(**scale, row=1, col=col)
        fig.update_xaxes(range=[-0.04 * end - 0.02, 1.04 * end + 0.02], row=1, col=col)
    fig.update_xaxes(type="log", title_text="index (log scale)", tickvals=INDICES, tickangle=0)
    powers = list(range(9))
    fig.update_xaxes(tickvals=[10**e for e in powers], ticktext=[base.power(e) for e in powers], row=1, col=len(PANELS))
    fig.update_yaxes(title_text="eigenvalue", row=1, col=1)


def _only_before(table: pd.DataFrame, run: str) -> bool:
    return set(table.loc[table["run"] == run, "when"]) == {"before"}


FIGURE = base.Figure(
    "spectra",
    TITLE,
    "Shown: eigenvalues, largest first, of the layer's Kronecker factors of the Fisher and all products of the two, over 512 "
    "training samples with labels sampled from the network's own predictions. Dotted: before pruning (grey where runs share the "
    "dense network); solid: after pruning and training. Marks: the directions of the basis that EigenDamage cut, of channels "
    "unless it turns patches, filled where kept and hollow where removed. A steep fall means that few directions carry the "
    "curvature: effective rank is the exponential of the spectrum's entropy.",
    r"F_\ell \approx S_\ell \otimes A_\ell, \quad A = E[a a^\top], \quad S = E[g g^\top], \quad "
    r"\text{effective rank} = \exp\Big(-\sum_i p_i \log p_i\Big), \; p_i = \lambda_i / \textstyle\sum_j \lambda_j",
    data,
    plot,
)

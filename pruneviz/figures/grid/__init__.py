"""The moving comparison: runs as columns, views as rows, drawn in the browser from data that is sent once.

``payload(runs)`` is that data; ``HTML``, ``CSS`` and ``JS`` draw it, on the Compare page and in reports.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pruneviz.figures import base
from pruneviz.figures.jacobians import moments
from pruneviz.figures.saliency import histograms
from pruneviz.figures.spectra import condition, effective_rank, spectrum

if TYPE_CHECKING:
    from pruneviz.store import Run


def _read(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


BUDGET = 290_000  # bytes of the data
HTML, CSS = _read("grid.html"), _read("grid.css")
JS = _read("views.js") + _read("grid.js")  # one module


@dataclass(frozen=True)
class Detail:
    """How finely the grid's data is sent: bins merged, points of an eigenvalue curve, quantiles, and bytes for a layer."""

    merge: int
    points: int
    quantiles: int  # a multiple of 4, and 1: quartiles are among them
    bytes: int


DETAILS = (
    Detail(1, 40, 33, 1800),
    Detail(2, 24, 17, 1080),
    Detail(3, 14, 9, 730),
    Detail(4, 9, 9, 620),
    Detail(6, 6, 5, 480),
)


def payload(runs: Sequence[Run]) -> dict[str, Any]:
    """What the moving grid draws from: every sparsity and layer of up to six runs, as JSON-ready lists.

    Eigenvalues are log10, at ``indices`` by their number. Deep networks get fewer bins and points, and very deep ones
    only their largest layers, so that the whole stays below 300 kB.
    """
    runs = list(runs)[: base.MAX_RUNS]
    names, every = base.labels(runs), base.layers(runs)
    recorded = sum(len(base.sparsities(run)) + 1 for run in runs)
    most = max(1, BUDGET // (DETAILS[-1].bytes * max(recorded, 1)))
    largest = sorted(every, key=lambda name: -every[name])[:most]
    known = [name for name in every if name in largest]
    needed = recorded * len(known)
    detail = next((d for d in DETAILS if needed * d.bytes <= BUDGET), DETAILS[-1])
    sent = [_sent(run, names[run.id], known, detail) for run in runs]
    numbers = {
        f["of"]
        for r in sent
        for m in (r["spectra"]["start"], *r["spectra"]["tuned"])
        for x in m
        if x
        for f in x.values()
    }
    return {
        "layers": [{"name": name, "size": every[name]} for name in known],
        "layer": known.index(largest[0]) if largest else 0,
        "left_out": len(every) - len(known),
        "sparsities": sorted({s for run in runs for s in base.sparsities(run)}),
        "indices": {str(n): (base.thinned(n, detail.points) + 1).tolist() for n in sorted(numbers)},
        "runs": sent,
    }


def _sent(run: Run, label: str, known: list[str], detail: Detail) -> dict[str, Any]:
    config, own = run.config, base.sparsities(run)
    moved = any(stage == "zeroed" for stage in run.metrics["stage"])
    network = "the trained network" if config.start == "trained" else "the initial network"
    once = "pruned once" if config.one_shot else f"pruned in {config.rounds} rounds"
    numbers = {(r.stage, r.sparsity, r.split, r.metric): float(r.value) for r in run.metrics.itertuples(index=False)}

    def series(stage: str, split: str, metric: str) -> list[float | None]:
        return [_short(numbers.get((stage, s, split, metric))) for s in own]

    return {
        "id": run.id,
        "label": label,
        "colour": base.colour(config.method),
        "about": f"{network}, {once}{', survivors moved' if moved else ''}",
        "unit": base.units(config.method),
        "sparsities": own,
        "dense": _short(numbers.get(("dense", 0.0, "test", "accuracy"))),
        "tuned": series("tuned", "test", "accuracy"),
        "pruned": series("pruned", "test", "accuracy"),
        **({"zeroed": series("zeroed", "test", "accuracy")} if moved else {}),
        "parameters": series("pruned", "", "parameters"),
        "connected": series("pruned", "", "connected"),
        **({"speedup": speedup} if any(speedup := series("pruned", "", "speedup_256")) else {}),
        "saliency": [_bars(run, s, known, detail) for s in own],
        "spectra": {
            "start": _eigenvalues(run, "spectra-start", known, detail),
            "tuned": [_eigenvalues(run, f"spectra-tuned-{s:g}", known, detail) for s in own],
        },
        "jacobians": {
            "start": _quantiles(run, "jacobians-start", known, detail),
            **{
                when: [_quantiles(run, f"jacobians-{stage}-{s:g}", known, detail) for s in own]
                for stage, when in moments(run).items()
            },
        },
    }


def _short(value: float | None) -> float | int | None:
    """Four significant digits; None for what JSON cannot hold."""
    if value is None or not np.isfinite(value):
        return None
    return int(value) if float(value).is_integer() else float(f"{value:.4g}")


def _bars(run: Run, sparsity: float, known: list[str], detail: Detail) -> dict[str, Any] | None:
    """Histograms of the known layers at one recorded sparsity; None where it has none."""
    panels = histograms(run, sparsity) if f"saliency-{sparsity:g}" in run.names("saliency") else []
    if not panels:
        return None

    def merged(counts: np.ndarray) -> list[int]:
        return np.add.reduceat(counts, np.arange(0, len(counts), detail.merge)).tolist()

    found: list[dict[str, Any] | None] = []
    for name in known:
        panel = next((p for p in panels if p["layer"] == name), None)
        found.append(
            panel and {
                "kept": merged(panel["kept"]), "removed": merged(panel["removed"]), "cut": _short(panel["threshold"]),
                "zeros": panel["zeros_kept"] + panel["zeros_removed"], "size": panel["size"], "alive": panel["alive"],
            }
        )  # fmt: skip
    first = panels[0]
    step = detail.merge * float(first["upper"][0] - first["lower"][0])
    edges = [round(float(first["lower"][0]), 4), round(float(first["upper"][-1]), 4)]
    return {
        "log": first["log"],
        "linear": _short(first["linear"]),
        "range": edges,
        "step": _short(step),
        "layers": found,
    }


def _eigenvalues(run: Run, name: str, known: list[str], detail: Detail) -> list[dict[str, Any] | None]:
    """Layer by layer both factors: log10 eigenvalues down to a billionth of the first, effective rank, condition number."""
    found: list[dict[str, Any] | None] = []
    for layer in known:
        both = {}
        for factor, values, _ in spectrum(run, name, layer):
            picked = values[base.thinned(len(values), detail.points)]
            picked = picked[picked > 1e-9 * values[0]]
            both[factor] = {
                "of": len(values), "v": np.round(np.log10(picked), 3).tolist(),
                "rank": _short(effective_rank(values)), "condition": _short(condition(values)),
            }  # fmt: skip
        found.append(both or None)
    return found


def _quantiles(run: Run, name: str, known: list[str], detail: Detail) -> list[list[float | None] | None]:
    """Layer by layer singular values at evenly spaced quantiles, rising."""
    names, arrays = run.layers(name), run.arrays(name)
    found: list[list[float | None] | None] = []
    for layer in known:
        if layer not in names:
            found.append(None)
            continue
        values = arrays["quantiles"][names.index(layer)]
        levels = np.linspace(0, 1, detail.quantiles)
        found.append([_short(float(q)) for q in np.interp(levels, np.linspace(0, 1, len(values)), values)])
    return found

"""The moving comparison: runs as columns, views as rows, drawn in the browser from data that is sent once.

``payload(runs)`` is that data; ``HTML``, ``CSS`` and ``JS`` draw it, on the Compare page and in reports.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np

from pruneviz.figures import base
from pruneviz.figures.grid import masks
from pruneviz.figures.jacobians import REPAIRED, moments
from pruneviz.figures.saliency import histograms
from pruneviz.figures.spectra import condition, effective_rank, spectrum
from pruneviz.methods.base import Start
from pruneviz.records.arrays import WHOLE, Jacobians, Spectra
from pruneviz.records.arrays import Saliency as Scores
from pruneviz.records.metrics import ACCURACY, CONNECTED, PARAMETERS, REACHED, TEST, speedup
from pruneviz.records.stages import MEASURED, Stage
from pruneviz.records.units import Unit

if TYPE_CHECKING:
    from pruneviz.store import Run


def _read(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


BUDGET = 290_000  # bytes of the data
BATCH = 256  # samples whose passing through is timed
LEAST = 590  # bytes that a layer takes at one sparsity, at the coarsest
HTML, CSS = _read("grid.html"), _read("grid.css")
FILES = ("axes.js", "layers.js", "mask.js", "views.js", "columns.js", "grid.js")
# What the browser's code calls by name, said once: stages, the moments of a layer's life, a block that lost nothing
MOMENTS = {Stage.START: "before", Stage.PRUNED: Stage.PRUNED, REPAIRED: REPAIRED, Stage.TUNED: "trained"}
NAMES = {
    **{stage.name: stage for stage in Stage}, "REPAIRED": REPAIRED, "MOMENTS": MOMENTS, "WHOLE": WHOLE, "BATCH": BATCH,
    "DIRECTIONS": Unit.EIGENBASIS.plural,
}  # fmt: skip
JS = f"const {', '.join(f'{name} = {json.dumps(value)}' for name, value in NAMES.items())}\n"
JS += "".join(map(_read, FILES))  # one module


@dataclass(frozen=True)
class Detail:
    """How finely the grid's data is sent: bins merged, points of an eigenvalue curve, quantiles, and how many of a
    mask's blocks to each side are one."""

    merge: int
    points: int
    quantiles: int  # a multiple of 4, and 1: quartiles are among them
    blocks: int


DETAILS = (
    Detail(1, 40, 33, 1),
    Detail(2, 24, 17, 1),
    Detail(2, 24, 17, 2),
    Detail(3, 14, 9, 2),
    Detail(4, 9, 9, 4),
    Detail(6, 6, 5, 4),
)


def payload(runs: Sequence[Run], seeds: Mapping[str, Sequence[Run]] | None = None) -> dict[str, Any]:
    """What the moving grid draws from: every sparsity and layer of up to six runs, as JSON-ready lists.

    Eigenvalues are log10, at ``indices`` by their number; a mask's blocks begin and end at ``edges`` by the number of
    rows or columns. ``seeds``: run id -> all seeds of its configuration, where columns are methods; accuracy is then
    that over all of them, and everything else the first one's. Deep networks get fewer bins, points and blocks, and
    very deep ones only their largest layers, so that the whole stays below 300 kB.
    """
    runs = list(runs)[: base.MAX_RUNS]
    names = base.labels(runs)
    shown = [seeds[run.id][0] if seeds else run for run in runs]
    every = base.layers(shown)
    recorded = sum(len(base.sparsities(run)) + 1 for run in shown)
    most = max(1, BUDGET // (LEAST * max(recorded, 1)))
    largest = sorted(every, key=lambda name: -every[name])[:most]
    known = [name for name in every if name in largest]
    fixed = {
        "layers": [{"name": name, "size": every[name]} for name in known],
        "layer": known.index(largest[0]) if largest else 0,
        "left_out": len(every) - len(known),
        "sparsities": sorted({s for run in shown for s in base.sparsities(run)}),
    }
    own: list[dict[str, Any]] = [{"id": run.id, "label": names[run.id]} for run in runs]
    if seeds:
        for run, first, each in zip(runs, shown, own, strict=True):
            each["over"] = _over(seeds[run.id], base.sparsities(first))
    found: dict[str, Any] = {}
    for detail in DETAILS:  # the finest that fits
        found = fixed | _drawn(shown, own, known, detail)
        if len(json.dumps(found, separators=(",", ":"))) <= BUDGET:
            break
    return found


def _drawn(runs: Sequence[Run], own: Sequence[dict[str, Any]], known: list[str], detail: Detail) -> dict[str, Any]:
    """What depends on how finely it is sent: each run's numbers beside its ``own``, and where points and blocks lie."""
    sent = [each | _sent(run, known, detail) for each, run in zip(own, runs, strict=True)]
    sides = {n for r in sent for shape in r.get("masks", {}).get("shapes", ()) for n in shape or ()}
    numbers = {
        f["of"]
        for r in sent
        for m in (r["spectra"][Stage.START], *r["spectra"][Stage.TUNED])
        for x in m
        if x
        for f in x.values()
    }
    return {
        "indices": {str(n): (base.thinned(n, detail.points) + 1).tolist() for n in sorted(numbers)},
        "edges": {str(n): masks.edges(n, detail.blocks) for n in sorted(sides)},
        "runs": sent,
    }


def _sent(run: Run, known: list[str], detail: Detail) -> dict[str, Any]:
    config, own = run.config, base.sparsities(run)
    moved = any(stage == Stage.ZEROED for stage in run.metrics["stage"])
    network = "the trained network" if config.start == Start.TRAINED else "the initial network"
    once = "pruned once" if config.one_shot else f"pruned in {config.rounds} rounds"
    numbers = _numbers(run)
    scored = run.at(Scores)
    bars = [histograms(run, s) if s in scored else [] for s in own]
    images = masks.kept(run, own, known, detail.blocks)

    def series(metric: str) -> list[float | None]:
        return [_short(numbers.get((Stage.PRUNED, s, "", metric))) for s in own]

    def accuracy(stage: Stage) -> list[float | None]:
        return [_short(numbers.get((stage, s, TEST, ACCURACY))) for s in own]

    return {
        "colour": run.about.colour,
        "about": f"{network}, {once}{', survivors moved' if moved else ''}",
        "unit": run.about.removes,
        "sparsities": own,
        Stage.DENSE: _short(numbers.get((Stage.DENSE, 0.0, TEST, ACCURACY))),
        **{stage: accuracy(stage) for stage in (Stage.TUNED, Stage.PRUNED, *([Stage.ZEROED] if moved else []))},
        "parameters": series(PARAMETERS),
        "connected": series(CONNECTED),
        **({"speedup": times} if any(times := series(speedup(BATCH))) else {}),
        "overall": series(REACHED),
        "removed": [_removed(panels, known) for panels in bars],
        "saliency": [_bars(panels, known, detail) for panels in bars],
        **({"masks": images} if any(images["shapes"]) else {}),
        "spectra": {
            Stage.START: _eigenvalues(run.read(Spectra, stage=Stage.START), known, detail),
            Stage.TUNED: [_eigenvalues(run.read(Spectra, s, Stage.TUNED), known, detail) for s in own],
        },
        "jacobians": {
            Stage.START: _quantiles(run.read(Jacobians, stage=Stage.START), known, detail),
            **{
                when: [_quantiles(run.read(Jacobians, s, stage), known, detail) for s in own]
                for stage, when in moments(run).items()
            },
        },
    }


def _numbers(run: Run) -> dict[tuple[str, float, str, str], float]:
    """(stage, sparsity, split, metric) -> value."""
    return {(r.stage, r.sparsity, r.split, r.metric): float(r.value) for r in base.rows(run.metrics)}


def _over(runs: Sequence[Run], own: Sequence[float]) -> dict[str, Any]:
    """Test accuracy over all seeds of a configuration: means, and the lowest and highest after training again."""
    found = [_numbers(run) for run in runs]

    def over(how: Callable[[list[float]], float], stage: Stage, s: float) -> float | None:
        values = [value for each in found if (value := each.get((stage, s, TEST, ACCURACY))) is not None]
        return _short(how(values)) if values else None

    means = {stage: [over(fmean, stage, s) for s in own] for stage in MEASURED}
    return {
        "seeds": [run.config.seed for run in runs],
        Stage.DENSE: over(fmean, Stage.DENSE, 0.0),
        **{stage: values for stage, values in means.items() if any(v is not None for v in values)},
        "low": [over(min, Stage.TUNED, s) for s in own],
        "high": [over(max, Stage.TUNED, s) for s in own],
    }


def _removed(panels: list[dict[str, Any]], known: list[str]) -> list[float | None]:
    """Layer by layer the share removed: 1 only where nothing is left, None where no scores are recorded."""
    shares = {p["layer"]: min(round(1 - p["alive"] / p["size"], 4), 0.9999) if p["alive"] else 1 for p in panels}
    return [shares.get(name) for name in known]


def _short(value: float | None) -> float | int | None:
    """Four significant digits; None for what JSON cannot hold."""
    if value is None or not np.isfinite(value):
        return None
    return int(value) if float(value).is_integer() else float(f"{value:.4g}")


def _bars(panels: list[dict[str, Any]], known: list[str], detail: Detail) -> dict[str, Any] | None:
    """Histograms of the known layers at one recorded sparsity; None where it has none."""
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


def _eigenvalues(recorded: Spectra | None, known: list[str], detail: Detail) -> list[dict[str, Any] | None]:
    """Layer by layer both factors: log10 eigenvalues down to a billionth of the first, effective rank, condition number."""
    found: list[dict[str, Any] | None] = []
    for layer in known:
        both = {}
        for factor, values in spectrum(recorded, layer).items():
            picked = values[base.thinned(len(values), detail.points)]
            picked = picked[picked > 1e-9 * values[0]]
            both[factor] = {
                "of": len(values), "v": np.round(np.log10(picked), 3).tolist(),
                "rank": _short(effective_rank(values)), "condition": _short(condition(values)),
            }  # fmt: skip
        found.append(both or None)
    return found


def _quantiles(recorded: Jacobians | None, known: list[str], detail: Detail) -> list[list[float | None] | None]:
    """Layer by layer singular values at evenly spaced quantiles, rising."""
    found: list[list[float | None] | None] = []
    for layer in known:
        if recorded is None or layer not in recorded.layers:
            found.append(None)
            continue
        values = recorded.quantiles[recorded.layers.index(layer)]
        levels = np.linspace(0, 1, detail.quantiles)
        found.append([_short(float(q)) for q in np.interp(levels, np.linspace(0, 1, len(values)), values)])
    return found

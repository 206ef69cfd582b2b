"""What runs are called in legends and titles: the method, how the run departs from it, and what tells it from the others."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING

from pruneviz.datasets import DATASETS
from pruneviz.figures.scales import percent
from pruneviz.methods import METHODS
from pruneviz.models import MODELS
from pruneviz.models.base import in_words

if TYPE_CHECKING:
    from pruneviz.config import RunConfig
    from pruneviz.store import Run

# Departures that read badly as "switch value".
_SAID = {
    "survivors retain": "survivors kept",
    "survivors rewind": "rewound",
    "survivors reinit": "reinitialised",
    "survivors reinit-sign": "reinitialised, signs kept",
    "scope global": "ranked over all layers",
    "scope layer": "ranked by layer",
    "scope stage": "ranked by stage",
    "control shuffle": "mask shuffled",
    "control invert": "order inverted",
    "repair isometry": "made isometric",
    "repair rescale": "layers rescaled",
    "repair true": "repaired",
    "repair false": "not repaired",
    "scale none": "plain |w|",
    "loss squared": "squared error",
    "loss cross-entropy": "cross-entropy",
    "include bias true": "biases too",
    "include bias false": "weights alone",
    "hessian ggn": "Gauss-Newton",
    "hessian exact": "exact Hessian",
    "hessian fisher": "sampled Fisher",
    "hessian empirical": "empirical Fisher",
    "bn mode eval": "inference mode",
    "bn mode train": "training mode",
    "score init fresh": "scored on fresh weights",
    "mode greedy": "greedy",
    "mode independent": "independent",
    "quadratic row-sum": "row sums",
    "quadratic exact": "whole quadratic form",
    "joint false": "single moves",
    "joint true": "moved together",
    "fisher sampled": "sampled Fisher",
    "fisher exact": "exact Fisher",
    "fisher empirical": "empirical Fisher",
    "eigenvalues corrected": "corrected eigenvalues",
    "eigenvalues product": "product eigenvalues",
    "basis patches": "patch basis",
    "basis channels": "channel basis",
    "count core": "cores counted",
    "count compacted": "rotations counted",
}


def label(run: Run, among: Iterable[Run] = ()) -> str:
    """ "SNIP", "Random · from trained", and what else it takes to be told from the other runs ``among`` which it stands."""
    others = [other for other in among if other.id != run.id]
    return labels([run, *others])[run.id]


def labels(runs: Iterable[Run], *, seeds: bool = True) -> dict[str, str]:
    """Run id -> name. Names differ wherever runs do; without ``seeds``, runs that differ in the seed alone share one."""
    runs = list({run.id: run for run in runs}.values())
    names = {run.id: (METHODS[run.config.method].title, *map(said, run.config.departures)) for run in runs}
    settings = {run.id: _settings(run, seeds) for run in runs}
    for key in dict.fromkeys(key for found in settings.values() for key in found):
        alike = defaultdict(list)
        for run in runs:
            alike[names[run.id]].append(run.id)
        for ids in alike.values():
            if len({settings[id_].get(key) for id_ in ids}) > 1:
                names |= {id_: (*names[id_], settings[id_][key]) for id_ in ids if settings[id_].get(key)}
    return {id_: " · ".join(parts) for id_, parts in names.items()}


def said(departure: str) -> str:
    """A departure in as few words as a legend takes: "start trained instead of init" -> "from trained"."""
    text = departure.split(" instead of ")[0].replace("_", " ")
    what, _, value = text.rpartition(" ")
    match what, value:
        case "start", _:
            return f"from {value}"
        case "rounds", "1":
            return "one shot"
        case "rounds", _:
            return f"{value} rounds"
        case "per stage", _:
            return f"stages {value.replace(',', ', ')}"
        case "skip", _:
            return f"{value.replace(',', ', ')} left whole"
        case _, ("true" | "false") if text not in _SAID:
            return f"{'with' if value == 'true' else 'without'} {what}"
    return _SAID.get(text, text)


def repair(config: RunConfig) -> str:
    """How the layers are repaired after pruning: "none", "rescale" or "isometry", the method's own repair included."""
    return config.repair if config.repair != "none" else "isometry" if config.params.get("repair") is True else "none"


def _settings(run: Run, seeds: bool) -> dict[str, str]:
    """What may tell two runs of one method apart, the most telling first."""
    config = run.config
    found = {"model": MODELS[config.model].title, "dataset": DATASETS[config.dataset].title}
    found["width"] = f"width {in_words(config.width)}" if config.width != 1 else ""
    found["normalise"] = "normalised pixels" if config.normalise else ""
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

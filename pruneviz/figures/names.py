"""What runs are called in legends and titles: the method, how the run departs from it, and what tells it from the others."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Protocol

from pruneviz.figures.scales import percent
from pruneviz.models.base import in_words

if TYPE_CHECKING:
    from pruneviz.plan.config import RunConfig
    from pruneviz.records.about import About
    from pruneviz.store import Run


class Named(Protocol):
    """As much of a run as its name is made from."""

    @property
    def id(self) -> str: ...
    @property
    def config(self) -> RunConfig: ...
    @property
    def about(self) -> About: ...


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
    "between none": "no training between rounds",
    "recalibrate true": "normalisation measured again",
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


def label(run: Named, among: Iterable[Named] = ()) -> str:
    """ "SNIP", "Random · from trained", and what else it takes to be told from the other runs ``among`` which it stands."""
    others = [other for other in among if other.id != run.id]
    return labels([run, *others])[run.id]


def labels(runs: Iterable[Named], *, seeds: bool = True) -> dict[str, str]:
    """Run id -> name. Names differ wherever runs do; without ``seeds``, runs that differ in the seed alone share one."""
    runs = list({run.id: run for run in runs}.values())
    names = {run.id: (run.about.method, *map(said, run.about.departures)) for run in runs}
    settings = {run.id: _settings(run, seeds) for run in runs}
    for key in dict.fromkeys(key for found in settings.values() for key in found):
        alike = defaultdict(list)
        for run in runs:
            alike[names[run.id]].append(run.id)
        for ids in alike.values():
            if len({settings[id_].get(key) for id_ in ids}) > 1:
                names |= {id_: (*names[id_], settings[id_][key]) for id_ in ids if settings[id_].get(key)}
    return {id_: " · ".join(parts) for id_, parts in names.items()}


def spelled(config: RunConfig, **other: Any) -> str:
    """A configuration as a text, these of its fields ``other``: the same for runs that differ in those alone."""
    return json.dumps(config.model_copy(update=other).model_dump(mode="json"), sort_keys=True)


def changes(words: About) -> list[tuple[str, str]]:
    """How a run departs from its paper, where it has one: what is other, and to what, with what that changes."""
    found = []
    for departure, change in zip(words.departures, words.changes, strict=False):
        what = departure.partition(" instead of ")[0].rpartition(" ")[0].replace("_", " ")
        found.append((what, change.removeprefix(f"{what} ")))
    return found if words.paper else []


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


def network(run: Run) -> str:
    """The network in words, with its width where that is not 1."""
    width = run.config.width
    return run.about.network + (f", width {in_words(width)}" if width != 1 else "")


def repair(config: RunConfig) -> str:
    """How the layers are repaired after pruning: "none", "rescale" or "isometry", the method's own repair included."""
    return config.repair if config.repair != "none" else "isometry" if config.params.get("repair") is True else "none"


def _settings(run: Named, seeds: bool) -> dict[str, str]:
    """What may tell two runs of one method apart, the most telling first."""
    config = run.config
    found = {"model": run.about.network, "dataset": run.about.data}
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

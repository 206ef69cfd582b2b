"""A comparison: which runs it takes, and what came out of them. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pruneviz.basics.errors import InvalidSetting, Unsuitable
from pruneviz.datasets import DATASETS
from pruneviz.methods import METHODS, method_class
from pruneviz.methods.base import Start
from pruneviz.models import MODELS
from pruneviz.plan.config import RunConfig

if TYPE_CHECKING:
    pass

Row = dict[str, Any]
NINE = ("magnitude", "l1-filters", "lottery-ticket", "obd", "obs", "eigendamage", "snip", "grasp", "isometry")


@dataclass(frozen=True)
class Plan:
    """The runs that a comparison takes, and the methods that do not fit, each with the reason."""

    configs: tuple[RunConfig, ...]
    skipped: tuple[Row, ...]


def nine() -> Plan:
    """A method of each of the nine papers, at six sparsities of the small CNN on digits: a minute of two cores."""
    return plan(NINE, dataset="digits", model="digits-cnn", sparsities=(0.5, 0.7, 0.8, 0.9, 0.95, 0.98))


def plan(
    methods: Iterable[str] | str,
    *,
    seeds: Sequence[int] = (0,),
    params_of: Mapping[str, dict[str, Any]] | None = None,
    **settings: Any,
) -> Plan:
    """Runs of several methods on one network, seed by seed so that each dense network is trained once and then shared.

    ``methods``: keys, or "all". Random pruning starts from initialisation, and once more from the trained network where
    a method that starts trained is compared. ``params_of``: method -> its switches. Raises UnknownName, InvalidSetting.
    """
    keys = list(METHODS) if methods == "all" else list(dict.fromkeys(methods))
    if not keys:
        raise InvalidSetting(f"A comparison needs at least one method; known: {', '.join(METHODS)}.")
    if not seeds:
        raise InvalidSetting("A comparison needs at least one seed, e.g. 0,1,2.")
    model = MODELS[settings.get("model") or DATASETS[settings.get("dataset", "digits")].model]
    fitting, skipped = [], []
    for key in keys:
        try:
            method_class(key).suits(model)
            fitting.append(key)
        except Unsuitable as error:
            skipped.append({"method": key, "reason": str(error)})
    starts = [(key, settings.get("start")) for key in fitting]
    if (
        "random" in fitting
        and settings.get("start") is None
        and any(METHODS[k].starts is Start.TRAINED for k in fitting)
    ):
        starts.insert(fitting.index("random") + 1, ("random", Start.TRAINED))
    configs = [
        RunConfig(**{"params": (params_of or {}).get(key), **settings, "method": key, "start": start, "seed": seed})
        for seed in seeds
        for key, start in starts
    ]
    return Plan(tuple(configs), tuple(skipped))

"""A comparison: which runs it takes, and what came out of them. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pruneviz.basics.errors import InvalidSetting, Unsuitable
from pruneviz.methods import METHODS, method_class
from pruneviz.methods.base import Start
from pruneviz.plan.config import RunConfig
from pruneviz.plan.own import data_card, network_card, resolved

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
    settings = resolved({name: value for name, value in settings.items() if value is not None})
    facts = settings.get("facts") or {}
    data = data_card(settings.get("dataset", "digits"), facts, settings.get("content") or {})
    model = network_card(settings.get("model") or data.model, facts)
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
    configs = []
    for seed in seeds:
        for key, start in starts:
            given = {"params": (params_of or {}).get(key), **settings, "method": key, "start": start, "seed": seed}
            try:
                configs.append(RunConfig(**given))
            except Unsuitable as error:
                row = {"method": key, "reason": str(error)}
                skipped += [] if row in skipped else [row]
    return Plan(tuple(configs), tuple(skipped))

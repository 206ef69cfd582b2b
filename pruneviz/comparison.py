"""A comparison: which runs it takes, and what came out of them. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, median
from typing import TYPE_CHECKING, Any

from pruneviz.config import RunConfig
from pruneviz.datasets import DATASETS
from pruneviz.errors import InvalidSetting, Unreachable, Unsuitable
from pruneviz.methods import METHODS, method_class
from pruneviz.methods.base import Start
from pruneviz.models import MODELS

if TYPE_CHECKING:
    from pruneviz.store import Store

Row = dict[str, Any]
NINE = ("magnitude", "l1-filters", "lottery-ticket", "obd", "obs", "eigendamage", "snip", "grasp", "isometry")
AGAIN = ("reached", "parameters", "flops")  # recorded after pruning and once more after training


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


def report(store: Store, ids: Sequence[str], skipped: Iterable[Row] = ()) -> dict[str, list[Row]]:
    """What came out: ``runs`` (a row for each run and sparsity), ``summary`` over seeds, ``dense``, ``skipped``, ``failed``.

    Accuracies are fractions of the test set; mean, median, low and high are of test accuracy after training again.
    ``skipped``: methods that do not fit, and once for each method the sparsities that removing whole units cannot reach.
    """
    runs = [store.run(id_) for id_ in dict.fromkeys(ids)]
    rows, dense, beyond = [], {}, {}
    for run in runs:
        for s in run.config.sparsities:
            found = _numbers(run.metrics, s)
            if "test_accuracy" in found:
                about = {
                    "id": run.id,
                    "method": run.config.method,
                    "start": str(run.config.start),
                    "seed": run.config.seed,
                }
                rows.append({**about, "sparsity": s, **found})
            elif "most" in found:
                beyond.setdefault((run.config.method, s), []).append(found["most"])
        at_zero = _numbers(run.metrics[run.metrics["stage"] == "dense"], 0.0)
        if at_zero:
            dense[run.config.seed, run.config.dense_key] = {"seed": run.config.seed, **at_zero}
    by_group: dict[tuple[str, str, float], list[float]] = {}
    for row in rows:
        by_group.setdefault((row["method"], row["start"], row["sparsity"]), []).append(row["test_accuracy"])
    summary = [
        {
            "method": method, "start": start, "sparsity": s, "mean": mean(values), "median": median(values),
            "low": min(values), "high": max(values), "seeds": len(values),
        }
        for (method, start, s), values in by_group.items()
    ]  # fmt: skip
    unreached = [
        {"method": method, "sparsity": s, "reason": str(Unreachable(s, max(most)))}
        for (method, s), most in beyond.items()
    ]
    failed = [{"id": r.id, "state": r.state, "reason": r.row["error"]} for r in runs if r.state != "succeeded"]
    return {
        "runs": rows, "summary": summary, "dense": list(dense.values()), "skipped": [*skipped, *unreached], "failed": failed,
    }  # fmt: skip


def _numbers(metrics: Any, sparsity: float) -> Row:
    """The numbers at one sparsity as a flat row: those after training again by their own names, the others prefixed."""
    found: Row = {}
    at = metrics[metrics["sparsity"] == sparsity]
    for stage, split, metric, value in at[["stage", "split", "metric", "value"]].itertuples(index=False):
        name = f"{split}_{metric}" if split else metric
        if stage in ("zeroed", "pruned"):
            name = f"{stage}_{name}" if split or metric in AGAIN else name
        elif stage == "dense" and sparsity == 0 and (at["stage"] == "tuned").any():
            continue
        found[name] = None if value != value else value
    return found

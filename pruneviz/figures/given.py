"""What figures are given: runs, or networks that were pruned in this process, which are written down as runs are."""

from __future__ import annotations

import json
import tempfile
import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from pruneviz.basics.errors import InvalidSetting
from pruneviz.plan.about import about
from pruneviz.plan.config import RunConfig
from pruneviz.plan.recipe import Training
from pruneviz.records import metrics
from pruneviz.records.stages import Stage
from pruneviz.store.archive import Run
from pruneviz.store.exports import add_record
from pruneviz.store.rows import EMPTY_ROW, HISTORY, METRICS

if TYPE_CHECKING:
    from pruneviz.run.step import Pruned

_KEPT: dict[int, Run] = {}  # of the pruned networks that are still there


def runs_of(given: Any) -> list[Run]:
    """Runs, from runs and :class:`~pruneviz.Pruned` networks, one or several. Raises InvalidSetting where something is neither."""
    several = list(given) if isinstance(given, Iterable) else [given]
    return [one if hasattr(one, "config") else _written(one) for one in several]


def _written(made: Any) -> Run:
    if not all(hasattr(made, name) for name in ("mask", "scores", "report", "origin")):
        raise InvalidSetting(
            f"Figures take runs (store.run(ID), what pv.explore gives) and what pv.prune gives; found a {type(made).__name__}."
        )
    if id(made) not in _KEPT:
        folder = tempfile.TemporaryDirectory(prefix="pruneviz-")
        _KEPT[id(made)] = _run(made, Path(folder.name))
        weakref.finalize(made.model, _forget, id(made), folder)
    return _KEPT[id(made)]


def _forget(key: int, folder: tempfile.TemporaryDirectory) -> None:
    _KEPT.pop(key, None)
    folder.cleanup()


def _run(made: Pruned, folder: Path) -> Run:
    """The run that it would be part of: no data, no accuracy, no training; scores and mask as they are."""
    from pruneviz.run import probes

    sample: Any
    origin, report, sample = made.origin, made.report, made.sample
    if origin is None or not hasattr(sample, "dtype"):
        raise InvalidSetting("Figures draw pruned networks that take one tensor; of others look at .report and .mask.")
    shape = [int(n) for n in origin.shape]
    name = f"python:{type(made.model).__name__}"
    config = RunConfig(
        method=origin.method, model=name, dataset="python:samples", sparsities=(report["asked"],), rounds=1, params=origin.params,
        seed=origin.seed % 2**31, train=Training(epochs=0), tune=Training(epochs=0),
        content={"model": origin.digest, "dataset": origin.digest},
        facts={"dataset": {"shape": shape, "classes": [], "sizes": [origin.samples, 0, 0], "said": []}},
    )  # fmt: skip
    s = config.sparsities[0]
    add_record(folder, probes.saliency(origin.scores, origin.before, made.mask, report["threshold"]), s)
    add_record(folder, probes.masked(made.model, made.mask, sample), s)
    add_record(folder, probes.ranked(origin.start, origin.scores, origin.before, sample))
    values = {
        metrics.REACHED: report["reached"],
        metrics.THRESHOLD: report["threshold"],
        metrics.PARAMETERS: report["parameters"],
        metrics.FLOPS: report["flops"],
        metrics.CONNECTED: float(report["connected"]),
    }
    rows = [
        (config.id, config.method, config.seed, s, str(Stage.PRUNED), "", metric, float(value))
        for metric, value in values.items()
        if value is not None
    ]
    tables = {
        "metrics": pd.DataFrame(rows, columns=pd.Index(METRICS)),
        "history": pd.DataFrame(columns=pd.Index(HISTORY)),
    }
    words = about(config)
    row = {**EMPTY_ROW, "id": config.id, "config": config.model_dump_json(), "about": words.model_dump_json()}
    row["identity"] = json.dumps(None)
    return Run(config.id, config, words, "succeeded", row, folder, tables.__getitem__, "samples")

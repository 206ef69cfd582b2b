"""PruneViz: see what neural network pruning methods do, side by side.

The names below load on first use, so that cards, stores and figures are there without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pruneviz.basics.version import __version__

_HOMES = {
    "METHODS": "pruneviz.methods",
    "MODELS": "pruneviz.models",
    "DATASETS": "pruneviz.datasets",
    "load": "pruneviz.datasets",
    "Splits": "pruneviz.datasets.base",
    "build": "pruneviz.models",
    "train": "pruneviz.run.training",
    "score": "pruneviz.run.step",
    "prune": "pruneviz.run.step",
    "Pruned": "pruneviz.run.step",
    "Mask": "pruneviz.units.masks",
    "hold": "pruneviz.units.hold",
    "compact": "pruneviz.units.compact",
    "Compacted": "pruneviz.units.compact",
    "inspect": "pruneviz.units.inspection",
    "kfac": "pruneviz.curvature.calls",
    "jacobian_singular_values": "pruneviz.curvature.calls",
    "RunConfig": "pruneviz.plan.config",
    "execute": "pruneviz.run.loop",
    "Store": "pruneviz.store",
    "diff": "pruneviz.difference",
    "Diff": "pruneviz.difference",
    "show": "pruneviz.figures.shown",
    "explore": "pruneviz.jobs.exploring",
}
__all__ = [*_HOMES, "figures"]

if TYPE_CHECKING:
    from pruneviz import figures
    from pruneviz.curvature.calls import jacobian_singular_values, kfac
    from pruneviz.datasets import DATASETS, load
    from pruneviz.datasets.base import Splits
    from pruneviz.difference import Diff, diff
    from pruneviz.figures.shown import show
    from pruneviz.jobs.exploring import explore
    from pruneviz.methods import METHODS
    from pruneviz.models import MODELS, build
    from pruneviz.plan.config import RunConfig
    from pruneviz.run.loop import execute
    from pruneviz.run.step import Pruned, prune, score
    from pruneviz.run.training import train
    from pruneviz.store import Store
    from pruneviz.units.compact import Compacted, compact
    from pruneviz.units.hold import hold
    from pruneviz.units.inspection import inspect
    from pruneviz.units.masks import Mask


def __getattr__(name: str) -> Any:
    if name == "figures":
        return import_module("pruneviz.figures")
    if name not in _HOMES:
        raise AttributeError(f"module 'pruneviz' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

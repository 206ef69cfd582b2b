"""PruneViz: see what neural network pruning methods do, side by side.

The names below load on first use, so that cards, stores and figures are there without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "METHODS": "pruneviz.methods",
    "MODELS": "pruneviz.models",
    "DATASETS": "pruneviz.datasets",
    "load": "pruneviz.datasets",
    "build": "pruneviz.models",
    "train": "pruneviz.training",
    "score": "pruneviz.pruning",
    "prune": "pruneviz.pruning",
    "Pruned": "pruneviz.pruning",
    "compact": "pruneviz.removal",
    "Compacted": "pruneviz.removal",
    "kfac": "pruneviz.curvature",
    "jacobian_singular_values": "pruneviz.curvature",
    "RunConfig": "pruneviz.config",
    "execute": "pruneviz.pipeline",
    "Store": "pruneviz.store",
}
__all__ = [*_HOMES, "figures"]

if TYPE_CHECKING:
    from pruneviz import figures
    from pruneviz.config import RunConfig
    from pruneviz.curvature import jacobian_singular_values, kfac
    from pruneviz.datasets import DATASETS, load
    from pruneviz.methods import METHODS
    from pruneviz.models import MODELS, build
    from pruneviz.pipeline import execute
    from pruneviz.pruning import Pruned, prune, score
    from pruneviz.removal import Compacted, compact
    from pruneviz.store import Store
    from pruneviz.training import train


def __getattr__(name: str) -> Any:
    if name == "figures":
        return import_module("pruneviz.figures")
    if name not in _HOMES:
        raise AttributeError(f"module 'pruneviz' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

"""What a run says while it goes. Everything that a person sees was an event first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Progress:
    """How far the run is: ``fraction`` of its training epochs; ``values`` (loss, accuracy) at the end of an ``epoch``."""

    run: str
    fraction: float
    stage: str
    message: str
    epoch: int | None = None
    values: Mapping[str, float] = field(default_factory=dict)
    warning: bool = False


@dataclass(frozen=True)
class Metric:
    """One number. ``stage``: dense, pruned (before training again) or tuned (after); ``split``: val, test or empty."""

    run: str
    sparsity: float
    stage: str
    split: str
    metric: str
    value: float


@dataclass(frozen=True)
class Arrays:
    """What a probe measured, under a name such as ``saliency-0.9``; ``meta`` holds layer names and units."""

    run: str
    name: str
    arrays: Mapping[str, np.ndarray]
    meta: Mapping[str, str]


@dataclass(frozen=True)
class Weights:
    """The network at the end of a stage, so that the run can go on from here. A transient one gives way to the next."""

    run: str
    stage: str
    arrays: Mapping[str, np.ndarray]
    transient: bool = False


@dataclass(frozen=True)
class Failed:
    """The run ended with an error: a sentence for the user, and for a bug its traceback."""

    run: str
    message: str
    traceback: str = ""


@dataclass(frozen=True)
class Done:
    """The run ended well."""

    run: str


Event = Progress | Metric | Arrays | Weights | Failed | Done

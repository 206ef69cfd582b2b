"""What a method may ask of the data: declarations that :mod:`pruneviz.curvature.sweep` fulfils. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Gradient:
    """The gradient of the mean loss over the task's samples; ``mode`` is that of normalisation and dropout."""

    mode: Literal["train", "eval"] = "eval"


@dataclass(frozen=True)
class Kronecker:
    """Kronecker factors of the Fisher, a pair for each Linear and Conv2d layer."""

    fisher: Literal["sampled", "exact", "empirical"] = "sampled"
    samples: int = 1


@dataclass(frozen=True)
class Diagonal:
    """The diagonal of the loss's Hessian, or of a stand-in, over weights and biases."""

    kind: Literal["ggn", "exact", "fisher", "empirical"] = "ggn"


Statistic = Gradient | Kronecker | Diagonal

"""What a method may ask of the data: declarations that :mod:`pruneviz.curvature.sweep` fulfils. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Fisher = Literal["sampled", "exact", "empirical"]
DiagonalKind = Literal["ggn", "exact", "fisher", "empirical"]
# Which slopes at the network's outputs a statistic reads, and how many of each sample: those of the labels given, of so
# many labels drawn from the network, or all (0: as many as the loss's curvature has)
Slopes = tuple[Literal["labels", "drawn", "all"], int]
_SLOPES: dict[str, Slopes] = {"sampled": ("drawn", 1), "exact": ("all", 0), "empirical": ("labels", 1)}


@dataclass(frozen=True)
class Gradient:
    """The gradient of the mean loss over the task's samples; ``mode`` is that of normalisation and dropout."""

    mode: Literal["train", "eval"] = "eval"


@dataclass(frozen=True)
class Kronecker:
    """Kronecker factors of the Fisher, a pair for each Linear and Conv2d layer."""

    fisher: Fisher = "sampled"
    samples: int = 1

    @property
    def slopes(self) -> Slopes:
        return ("drawn", self.samples) if self.fisher == "sampled" else _SLOPES[self.fisher]


@dataclass(frozen=True)
class Diagonal:
    """The diagonal of the loss's Hessian, or of a stand-in, over weights and biases."""

    kind: DiagonalKind = "ggn"

    @property
    def slopes(self) -> Slopes:
        return _SLOPES[{"fisher": "sampled", "empirical": "empirical"}.get(self.kind, "exact")]


@dataclass(frozen=True)
class Rows:
    """What goes into each layer and every weighed slope that comes back, sample by sample: the Gauss-Newton matrix's rows."""

    slopes: Slopes = ("all", 0)


@dataclass(frozen=True)
class InputNorms:
    """Mean squares of what each weight is multiplied with: the diagonal of the Kronecker factor A, without A."""

    slopes: None = None


@dataclass(frozen=True)
class HessianGradient:
    """The Hessian of the mean loss times its gradient, over the weights of Linear and Conv2d, logits over ``temperature``.

    ``checked``: in float64, and compared with the gradient's own differences.
    """

    temperature: float = 1.0
    mode: Literal["train", "eval"] = "eval"
    checked: bool = False


@dataclass(frozen=True)
class Jacobians:
    """Singular values of the layers' Jacobians at the first ``samples`` samples."""

    samples: int = 16
    conv: Literal["kernel", "operator"] = "kernel"


Statistic = Gradient | Kronecker | Diagonal | Rows | InputNorms | HessianGradient | Jacobians

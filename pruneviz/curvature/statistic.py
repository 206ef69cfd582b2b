"""What a method may ask of the data: declarations that :mod:`pruneviz.curvature.sweep` fulfils. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

Fisher = Literal["sampled", "exact", "empirical"]
DiagonalKind = Literal["ggn", "exact", "fisher", "empirical"]
# Which slopes at the network's outputs a statistic reads, and how many of each sample: those of the labels given, of so
# many labels drawn from the network, or all (0: as many as the loss's curvature has)
Slopes = tuple[Literal["labels", "drawn", "all"], int]
_SLOPES: dict[str, Slopes] = {"sampled": ("drawn", 1), "exact": ("all", 0), "empirical": ("labels", 1)}


@dataclass(frozen=True)
class Statistic:
    """What a method may ask for. ``gathered_by``: the :class:`~pruneviz.curvature.layers.Gatherer` that shares the sweep's passes, as
    "module:Class" (torch is loaded only then), made from the statistic and the model; ``slopes``: what it reads, None: no slopes."""

    gathered_by: ClassVar[str] = ""

    @property
    def slopes(self) -> Slopes | None:
        return None


@dataclass(frozen=True)
class Gradient(Statistic):
    """The gradient of the mean loss over the task's samples; ``mode`` is that of normalisation and dropout."""

    mode: Literal["train", "eval"] = "eval"


@dataclass(frozen=True)
class Kronecker(Statistic):
    """Kronecker factors of the Fisher, a pair for each layer that multiplies; ``without``: names of weights that need none."""

    gathered_by: ClassVar = "pruneviz.curvature.kronecker:Factors"

    fisher: Fisher = "sampled"
    samples: int = 1
    without: tuple[str, ...] = ()

    @property
    def slopes(self) -> Slopes:
        return ("drawn", self.samples) if self.fisher == "sampled" else _SLOPES[self.fisher]


@dataclass(frozen=True)
class Diagonal(Statistic):
    """The diagonal of the loss's Hessian, or of a stand-in, over weights and biases; of lookup tables too with ``embeddings``."""

    gathered_by: ClassVar = "pruneviz.curvature.diagonals:Squares"

    kind: DiagonalKind = "ggn"
    embeddings: bool = False

    @property
    def slopes(self) -> Slopes:
        return _SLOPES[{"fisher": "sampled", "empirical": "empirical"}.get(self.kind, "exact")]


@dataclass(frozen=True)
class Rows(Statistic):
    """What goes into each layer and every weighed slope that comes back, sample by sample: the Gauss-Newton matrix's rows."""

    gathered_by: ClassVar = "pruneviz.curvature.woodbury:Waiting"

    slopes: Slopes = ("all", 0)


@dataclass(frozen=True)
class InputNorms(Statistic):
    """Mean squares of what each weight is multiplied with: the diagonal of the Kronecker factor A, without A."""

    gathered_by: ClassVar = "pruneviz.curvature.diagonals:Norms"


@dataclass(frozen=True)
class HessianGradient(Statistic):
    """The Hessian of the mean loss times its gradient, over the weights that are scored, logits over ``temperature``.

    ``checked``: in float64, and compared with the gradient's own differences.
    """

    gathered_by: ClassVar = "pruneviz.curvature.hvp:Products"

    temperature: float = 1.0
    mode: Literal["train", "eval"] = "eval"
    checked: bool = False


@dataclass(frozen=True)
class Jacobians(Statistic):
    """Singular values of the layers' Jacobians at the first ``samples`` samples."""

    samples: int = 16
    conv: Literal["kernel", "operator"] = "kernel"

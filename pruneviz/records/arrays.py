"""The arrays that probes record, one class each. Small enough for a browser: histograms, spectra, quantiles, packed masks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pruneviz.records.base import Recorded, array, each, number
from pruneviz.records.stages import Stage

WHOLE = 255  # the density of a block that lost nothing


@dataclass(frozen=True, kw_only=True, eq=False)
class Saliency(Recorded):
    """Histograms of the score per layer, in one set of bins for all layers.

    ``kept``, ``removed`` count units that were alive; ``zeros`` those with a score of exactly 0 (kept, removed), which are in
    no bin. ``edges`` are log10 of the score where all scores are >= 0 (``log`` = 1), asinh(score / ``linthresh``) / ln 10 where
    some are negative (``log`` = 2): linear up to ``linthresh``, the median size, logarithmic beyond, with an edge at 0.
    ``sizes`` units, ``alive`` after pruning; ``threshold``: the highest score that left, NaN where none did.
    """

    prefix: ClassVar = "saliency"
    edges: np.ndarray = array("f8", "edges")
    kept: np.ndarray = array("i4", "layers", "bins")
    removed: np.ndarray = array("i4", "layers", "bins")
    zeros: np.ndarray = array("i8", "layers", 2)
    sizes: np.ndarray = array("i8", "layers")
    alive: np.ndarray = array("i8", "layers")
    log: int = number("i8")
    linthresh: float = number("f8")
    threshold: float = number("f8")


@dataclass(frozen=True, kw_only=True, eq=False)
class Spectra(Recorded):
    """Eigenvalues of the Kronecker factors of each layer, descending, those of all groups together."""

    prefix: ClassVar = "spectra"
    stages: ClassVar = (Stage.START, Stage.TUNED)
    A: tuple[np.ndarray | None, ...] = each("f4", 1)
    S: tuple[np.ndarray | None, ...] = each("f4", 1)


@dataclass(frozen=True, kw_only=True, eq=False)
class Directions(Recorded):
    """The importance of each pair of directions in the Kronecker eigenbasis, and what leading input directions look like.

    ``theta`` [<= 32, <= 32]: half the squared weight times both eigenvalues, rows S's directions, columns A's, by falling
    eigenvalue, summed within blocks of equal count; ``shape`` [2] its size before. ``vectors`` [<= 6, channels, rows, columns]:
    A's leading eigenvectors as images, of the layer that reads the input.
    """

    prefix: ClassVar = "directions"
    stages: ClassVar = (Stage.START, Stage.TUNED)
    theta: tuple[np.ndarray | None, ...] = each("f4", 2)
    shape: tuple[np.ndarray | None, ...] = each("i8", 1)
    vectors: tuple[np.ndarray | None, ...] = each("f2", 4)


@dataclass(frozen=True, kw_only=True, eq=False)
class Cut(Recorded):
    """Which directions were kept, in the basis that was cut: eigenvalues, descending, and flags beside them."""

    prefix: ClassVar = "directions"
    stages: ClassVar = (Stage.PRUNED,)
    A: tuple[np.ndarray | None, ...] = each("f4", 1)
    S: tuple[np.ndarray | None, ...] = each("f4", 1)
    keptA: tuple[np.ndarray | None, ...] = each("u1", 1)
    keptS: tuple[np.ndarray | None, ...] = each("u1", 1)


@dataclass(frozen=True, kw_only=True, eq=False)
class Jacobians(Recorded):
    """Singular values of each layer's Jacobian, pooled over samples: 65 ascending quantiles, their ``mean`` and ``spread``
    (mean abs(value - 1)); up to 100 outputs also those of the whole network, from input to outputs."""

    prefix: ClassVar = "jacobians"
    stages: ClassVar = (Stage.START, Stage.ZEROED, Stage.PRUNED, Stage.TUNED)
    quantiles: np.ndarray = array("f4", "layers", "quantiles")
    mean: np.ndarray = array("f4", "layers")
    spread: np.ndarray = array("f4", "layers")
    end: np.ndarray | None = array("f4", "quantiles", optional=True)
    end_mean: np.ndarray | None = array("f4", 1, optional=True)
    end_spread: np.ndarray | None = array("f4", 1, optional=True)


@dataclass(frozen=True, kw_only=True, eq=False)
class Ranking(Recorded):
    """How the first score orders the sampled weights, and the first layer's weights as images.

    ``order``: dense rank from 1, higher = keep, a weight's rank being that of the filter which it belongs to where filters are
    scored; 0 where the method gives none. ``counts``: how many of the sampled weights are of each layer. Neither for directions.
    """

    prefix: ClassVar = "masks"
    stages: ClassVar = (Stage.START,)
    order: np.ndarray | None = array("u2", "sampled", optional=True)
    counts: np.ndarray | None = array("i4", "layers", optional=True)
    weights: np.ndarray | None = array("f2", "units", "channels", "rows", "columns", optional=True)


@dataclass(frozen=True, kw_only=True, eq=False)
class Kept(Recorded):
    """What is left of the weights.

    ``density`` [<= 32, <= 32]: the share kept of each block of neighbours, 255 = all; rows outputs, columns inputs (a
    convolution's patches), or directions of S and A where these are pruned; ``shape`` [2] its size before. ``kept``: the sampled
    weights' bits, packed; none for directions. ``weights``: the first layer's as images, trained again; ``pixels``: the share of
    a first linear layer's connections kept to each input.
    """

    prefix: ClassVar = "masks"
    density: tuple[np.ndarray | None, ...] = each("u1", 2)
    shape: tuple[np.ndarray | None, ...] = each("i8", 1)
    kept: np.ndarray | None = array("u1", "bytes", optional=True)
    weights: np.ndarray | None = array("f2", "units", "channels", "rows", "columns", optional=True)
    pixels: np.ndarray | None = array("u1", "channels", "rows", "columns", optional=True)


@dataclass(frozen=True, kw_only=True, eq=False)
class Change(Recorded):
    """Predicted and measured change of the loss for units really removed one at a time.

    ``predicted`` the score; ``measured`` the change of the mean loss, the others moved as the method moves them; ``zeroed`` with
    the others left alone; ``layer``: its number; ``correlation``: Spearman's, predicted with measured; ``all``: whether these are
    all units; ``samples``: on how many.
    """

    prefix: ClassVar = "change"
    stages: ClassVar = (Stage.START,)
    predicted: np.ndarray = array("f8", "removals")
    measured: np.ndarray = array("f8", "removals")
    zeroed: np.ndarray = array("f8", "removals")
    layer: np.ndarray = array("i2", "removals")
    correlation: float = number("f8")
    all: int = number("i8")
    samples: int = number("i8")


@dataclass(frozen=True, kw_only=True, eq=False)
class Sensitivity(Recorded):
    """Accuracy against the share of filters removed, one layer at a time, without training; on so many validation samples."""

    prefix: ClassVar = "sensitivity"
    stages: ClassVar = (Stage.START,)
    ratios: np.ndarray = array("f8", "ratios")
    accuracy: np.ndarray = array("f4", "layers", "ratios")
    samples: int = number("i8")


@dataclass(frozen=True, kw_only=True, eq=False)
class Network(Recorded):
    """A network small enough to be sent: of each layer the weights that are left, in the order of ``weight.flatten()``, the packed
    bits that say which, the weight's shape, and the bias. Rounded to float16."""

    prefix: ClassVar = "network"
    stages: ClassVar = (None, Stage.DENSE)
    weights: tuple[np.ndarray | None, ...] = each("f2", 1)
    kept: tuple[np.ndarray | None, ...] = each("u1", 1)
    shape: tuple[np.ndarray | None, ...] = each("i8", 1)
    bias: tuple[np.ndarray | None, ...] = each("f2", 1)


KINDS: tuple[type[Recorded], ...] = (
    Saliency, Spectra, Directions, Cut, Jacobians, Ranking, Kept, Change, Sensitivity, Network
)  # fmt: skip

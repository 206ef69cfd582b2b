"""Curvature quantity by quantity: each call is a sweep of its own, and keeps nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal
from warnings import warn

import torch
from torch import Tensor, nn

from pruneviz.basics.errors import InvalidSetting, PruningWarning
from pruneviz.basics.seeds import number_for
from pruneviz.curvature.jacobian import jacobian_singular_values as singular_values
from pruneviz.curvature.kronecker import KroneckerFactors
from pruneviz.curvature.statistic import Diagonal, DiagonalKind, Kronecker, Rows
from pruneviz.curvature.sweep import sweep
from pruneviz.curvature.woodbury import Blocks, inverse_of
from pruneviz.door.arrival import enter
from pruneviz.door.loss import CROSS_ENTROPY, Loss
from pruneviz.door.samples import Chosen, Samples, joined

KINDS = ("ggn", "exact", "fisher", "empirical")


def diagonal(
    model: nn.Module,
    batches: Iterable[tuple[Samples, Tensor]],
    *,
    kind: DiagonalKind = "ggn",
    loss: Loss = CROSS_ENTROPY,
    generator: torch.Generator | None = None,
) -> dict[str, Tensor]:
    r"""Diagonal of the mean loss's curvature for every weight that the forward pass multiplies with, and for their biases.

    ``kind`` "exact": :math:`\partial^2 L / \partial \theta_q^2`, signed. "ggn": :math:`E[J^\top A J]_{qq}`, A the loss's
    Hessian at the outputs (for softmax and squared error the Fisher's). "fisher": the mean over samples of the squared
    gradient for one label drawn from the model. "empirical": the same for the labels given. All per sample: the mean of
    squares, never the square of a mini-batch's mean. Evaluation mode. (LeCun et al. 1990, section 2; Martens 2020,
    sections 5 and 8.)

    Returns: parameter name -> tensor like it. Where a weight is no plain product (used twice, inside attention, an LSTM),
    each sample passes by itself. Raises: InvalidSetting; Unsuitable, where too many slopes or entries are asked for.
    """
    if kind not in KINDS:
        raise InvalidSetting(f"A diagonal is 'ggn', 'exact', 'fisher' or 'empirical'; found {kind!r}.")
    wanted = Diagonal(kind)
    return sweep(model, batches, (wanted,), loss=loss, generator=generator)[wanted]


def kronecker_factors(
    model: nn.Module,
    batches: Iterable[tuple[Samples, Tensor]],
    *,
    fisher: Literal["sampled", "exact", "empirical"] = "sampled",
    samples: int = 1,
    generator: torch.Generator | None = None,
    loss: Loss = CROSS_ENTROPY,
) -> dict[str, KroneckerFactors]:
    r"""Kronecker factors of the Fisher, one pair per Linear, Conv1d or Conv2d layer.

    :math:`F_\ell \approx S_\ell \otimes A_\ell`. Linear: :math:`A = E[a a^\top]`, :math:`S = E[g g^\top]`, ``g`` the
    gradient of one sample's loss at the layer's output (Martens & Grosse 2015, section 3). Convolution, with patches
    :math:`x_l` at locations :math:`l \in I`: :math:`A = \sum_l E[x_l x_l^\top]`, :math:`S = |I|^{-1} \sum_l E[g_l g_l^\top]`
    (Grosse & Martens 2016). Weights only, no bias column; undamped; mean over samples of per-sample quantities, in
    evaluation mode. ``fisher``: labels drawn from the model (``samples`` times each), all labels weighted by their
    probability, or the labels given.

    Returns: module name -> factors, ``A [in, in]``, ``S [out, out]`` (``in`` counts the kernel's entries).
    With groups, a pair for each. Raises: UnsupportedLayer, if a layer is used twice in one forward pass; InvalidSetting.
    """
    if fisher not in ("sampled", "exact", "empirical"):
        raise InvalidSetting(f"fisher is 'sampled', 'exact' or 'empirical'; found {fisher!r}.")
    wanted = Kronecker(fisher, samples if fisher == "sampled" else 1)
    return sweep(model, batches, (wanted,), loss=loss, generator=generator)[wanted]


def inverse_hessian(
    model: nn.Module,
    batches: Iterable[tuple[Samples, Tensor]],
    *,
    alpha: float,
    size: int | None = None,
    loss: Loss = CROSS_ENTROPY,
    fisher: Literal["exact", "empirical"] = "exact",
    alive: Mapping[str, Tensor] | None = None,
) -> tuple[list[Blocks], dict[str, int]]:
    r"""The inverse of :math:`H = \alpha I + \frac1n \sum_i X_i^\top A_i X_i`, X the Jacobian of the outputs, A the loss's
    Hessian there (the Gauss-Newton Hessian; Hassibi & Stork 1993, section 3, for several outputs and any loss); with
    ``fisher="empirical"`` of :math:`H = \alpha I + \frac1n \sum_i g_i g_i^\top`, g a sample's gradient under its given label.

    See :func:`pruneviz.curvature.woodbury.inverse_of` for the rest.
    """
    wanted = Rows(("labels", 1) if fisher == "empirical" else ("all", 0))
    portions = sweep(model, batches, (wanted,), loss=loss)[wanted]
    return inverse_of(model, portions, alpha=alpha, size=size, alive=alive)


def kfac(
    model: nn.Module,
    x: Any,
    y: Any = None,
    *,
    fisher: Literal["sampled", "exact", "empirical"] = "sampled",
    samples: int = 1,
    seed: int = 0,
    loss: str | Loss = "cross-entropy",
    outputs: Chosen = None,
) -> dict[str, KroneckerFactors]:
    """Kronecker factors on exactly these samples: see :func:`kronecker_factors`. ``x``, ``y``, ``loss``, ``outputs`` as of ``pv.score``.

    Warns where a weight has no factors, and names it. Raises: Unsuitable.
    """
    at = enter(model, x, y, loss=loss, outputs=outputs)
    generator = torch.Generator().manual_seed(number_for(seed, "kfac"))
    found = kronecker_factors(at.model, at.batches, fisher=fisher, samples=samples, generator=generator, loss=at.loss)
    missing = {w.name: w.why or w.kind for w in at.network.counted().values() if w.layer not in found}
    if missing:
        said = "; ".join(f"{name!r}: {why}" for name, why in list(missing.items())[:6])
        warn(f"{len(missing)} weights have no Kronecker factors: {said}.", PruningWarning, stacklevel=2)
    return found


def jacobian_singular_values(
    model: nn.Module, x: Any, *, conv: Literal["kernel", "operator"] = "kernel", outputs: Chosen = None
) -> dict[str, Tensor]:
    """See :func:`pruneviz.curvature.jacobian.jacobian_singular_values`; samples in any form, as of ``pv.score``."""
    at = enter(model, x, outputs=outputs, targets=False)
    return singular_values(at.model, joined([one for one, _ in at.batches]), conv=conv)

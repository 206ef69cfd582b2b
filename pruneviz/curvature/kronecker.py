"""Kronecker factors of the Fisher (K-FAC)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from pruneviz.curvature.gradients import untouched
from pruneviz.curvature.layers import Recorder
from pruneviz.errors import InvalidSetting
from pruneviz.loss import CROSS_ENTROPY, Loss

EXACT = 2048
ENTRIES = 2**26  # of one temporary of patches


@dataclass(frozen=True)
class KroneckerFactors:
    r"""The pair of one layer, :math:`F_\ell \approx S \otimes A`. Shapes: ``A [in, in]``, ``S [out, out]``, symmetric.

    A convolution with groups has a pair for each: ``A [groups, in, in]``, ``S [groups, out / groups, out / groups]``.
    """

    A: Tensor
    S: Tensor

    def eigh(self) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """(eigenvalues, eigenvectors) of A and of S; eigenvalues ascending, clamped at 0."""
        return spectral(self.A), spectral(self.S)

    def inverse(self, damping: float) -> KroneckerFactors:
        """Inverses of both factors, each damped by ``damping`` times its own mean eigenvalue."""
        return KroneckerFactors(*(inverted(m, damping).to(m) for m in (self.A, self.S)))

    def dense(self) -> Tensor:
        """``torch.kron(S, A)``, in the order of ``weight.flatten()``: [out * in, out * in]; block-diagonal with groups."""
        if self.A.dim() == 2:
            return torch.kron(self.S, self.A)
        return torch.block_diag(*(torch.kron(s, a) for s, a in zip(self.S, self.A, strict=True)))


def inverted(matrix: Tensor, damping: float) -> Tensor:
    """The inverse of a symmetric positive matrix [..., n, n] with ``damping`` times its mean eigenvalue added, in float64.

    A matrix of zeros gives the identity. By Cholesky; where rounding left eigenvalues below -damping, by eigenvalues raised to 0.
    """
    exact = matrix.to("cpu" if matrix.device.type == "mps" else matrix.device).double()
    mean = exact.diagonal(dim1=-2, dim2=-1).mean(-1)
    ridge = torch.where(mean > 0, damping * mean, 1.0)[..., None]
    damped = exact + torch.diag_embed(ridge.expand(exact.shape[:-1]))
    factor, failed = torch.linalg.cholesky_ex(damped)
    if not bool(failed.any()):
        return torch.cholesky_inverse(factor)
    values, vectors = torch.linalg.eigh(exact)
    raised = values.clamp(min=0) + ridge.clamp(min=torch.finfo(torch.float64).eps * values.amax())
    return vectors / raised[..., None, :] @ vectors.mT


def spectral(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """(eigenvalues, eigenvectors), ascending, clamped at 0; in float64 up to 2,048 rows where the device has it."""
    exact = matrix.shape[-1] <= EXACT and matrix.device.type != "mps"
    values, vectors = torch.linalg.eigh(matrix.double() if exact else matrix)
    return values.clamp(min=0).to(matrix.dtype), vectors.to(matrix.dtype)


def kfac(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    fisher: Literal["sampled", "exact", "empirical"] = "sampled",
    samples: int = 1,
    generator: torch.Generator,
    loss: Loss = CROSS_ENTROPY,
) -> dict[str, KroneckerFactors]:
    r"""Kronecker factors of the Fisher, one pair per Linear or Conv2d layer.

    :math:`F_\ell \approx S_\ell \otimes A_\ell`. Linear: :math:`A = E[a a^\top]`, :math:`S = E[g g^\top]`, ``g`` the
    gradient of one sample's loss at the layer's output (Martens & Grosse 2015, section 3). Convolution, with patches
    :math:`x_l` at locations :math:`l \in I`: :math:`A = \sum_l E[x_l x_l^\top]`, :math:`S = |I|^{-1} \sum_l E[g_l g_l^\top]`
    (Grosse & Martens 2016). Weights only, no bias column; undamped; mean over samples of per-sample quantities, in
    evaluation mode. ``fisher``: labels drawn from the model (``samples`` times each), all labels weighted by their
    probability, or the labels given.

    Returns: module name -> factors, ``A [in, in]``, ``S [out, out]`` (``in`` counts the kernel's entries).
    With groups, a pair for each. Raises: UnsupportedLayer, if a layer is used twice in one forward pass.
    """
    A: dict[str, Tensor] = {}
    S: dict[str, Tensor] = {}
    seen = 0

    def add(into: dict[str, Tensor], name: str, matrix: Tensor) -> None:
        into[name] = into[name] + matrix if name in into else matrix

    with untouched(model), Recorder(model, groups=True) as recorder:
        for x, y in batches:
            recorder.clear()
            logits = model(x)
            seen += len(x)
            for name in recorder.outputs:
                for rows in recorder.portions(name, ENTRIES):
                    add(A, name, _gram(rows, recorder.groups(name)))
            for slope in cotangents(loss, logits, y, fisher, samples, generator):
                for name, slopes in recorder.gradients(slope, logits).items():
                    add(S, name, _gram(slopes, recorder.groups(name)) / slopes.shape[1])
            del logits
    draws = samples if fisher == "sampled" else 1
    return {name: KroneckerFactors(A[name] / seen, S[name] / (seen * draws)) for name in A}


def _gram(rows: Tensor, groups: int) -> Tensor:
    """Sum over samples and positions of outer products: [n, l, d] -> [d, d], or for each group [g, d / g, d / g]."""
    flat = rows.flatten(0, 1)
    if groups == 1:
        return flat.T @ flat
    parts = flat.unflatten(1, (groups, -1)).transpose(0, 1)
    return parts.mT @ parts


def cotangents(
    loss: Loss, outputs: Tensor, y: Tensor, fisher: str, samples: int, generator: torch.Generator | None
) -> Iterator[Tensor]:
    """Slopes at the outputs [n, outputs] whose outer products add up to the Fisher (times ``samples`` where drawn)."""
    outputs = outputs.detach()
    match fisher:
        case "empirical":
            yield loss.slope(outputs, y)
        case "exact":
            yield from loss.root(outputs).unbind(2)
        case "sampled":
            assert generator is not None
            for _ in range(samples):
                yield loss.drawn(outputs, generator)
        case _:
            raise InvalidSetting(f"fisher is 'sampled', 'exact' or 'empirical'; found {fisher!r}.")

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


@dataclass(frozen=True)
class KroneckerFactors:
    r"""The pair of one layer, :math:`F_\ell \approx S \otimes A`. Shapes: ``A [in, in]``, ``S [out, out]``, symmetric."""

    A: Tensor
    S: Tensor

    def eigh(self) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """(eigenvalues, eigenvectors) of A and of S; eigenvalues ascending, clamped at 0."""
        (a, qa), (s, qs) = torch.linalg.eigh(self.A), torch.linalg.eigh(self.S)
        return (a.clamp(min=0), qa), (s.clamp(min=0), qs)

    def inverse(self, damping: float) -> KroneckerFactors:
        """Inverses of both factors, each damped by ``damping`` times its own mean eigenvalue."""

        def inverted(matrix: Tensor) -> Tensor:
            ridge = (
                damping * matrix.diagonal().mean() * torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)
            )
            return torch.cholesky_inverse(torch.linalg.cholesky(matrix + ridge))

        return KroneckerFactors(inverted(self.A), inverted(self.S))

    def dense(self) -> Tensor:
        """``torch.kron(S, A)``, in the order of ``weight.flatten()``: [out * in, out * in]."""
        return torch.kron(self.S, self.A)


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
    Raises:  UnsupportedLayer, if a layer is used twice in one forward pass or is a grouped convolution.
    """
    A: dict[str, Tensor] = {}
    S: dict[str, Tensor] = {}
    seen = 0

    def add(into: dict[str, Tensor], name: str, matrix: Tensor) -> None:
        into[name] = into[name] + matrix if name in into else matrix

    with untouched(model), Recorder(model) as recorder:
        for x, y in batches:
            recorder.clear()
            logits = model(x)
            seen += len(x)
            for name in recorder.outputs:
                rows = recorder.rows(name).flatten(0, 1)  # [samples * positions, in]
                add(A, name, rows.T @ rows)
            for slope in cotangents(loss, logits, y, fisher, samples, generator):
                for name, slopes in recorder.gradients(slope, logits).items():
                    positions, flat = slopes.shape[1], slopes.flatten(0, 1)  # [samples * positions, out]
                    add(S, name, flat.T @ flat / positions)
            del logits
    draws = samples if fisher == "sampled" else 1
    return {name: KroneckerFactors(A[name] / seen, S[name] / (seen * draws)) for name in A}


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

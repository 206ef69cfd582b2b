"""Derivatives of the loss and of the layers: pure functions that know nothing of pruning."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from pruneviz.curvature import end_to_end, jacobian, kronecker
from pruneviz.curvature.kronecker import KroneckerFactors

__all__ = ["KroneckerFactors", "end_to_end_singular_values", "jacobian_singular_values", "kfac"]

jacobian_singular_values = jacobian.jacobian_singular_values
end_to_end_singular_values = end_to_end.end_to_end_singular_values


def kfac(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    fisher: Literal["sampled", "exact", "empirical"] = "sampled",
    samples: int = 1,
    seed: int = 0,
) -> dict[str, KroneckerFactors]:
    """Kronecker factors on exactly these samples: see :func:`pruneviz.curvature.kronecker.kfac`."""
    from pruneviz.task import generator_for

    generator = generator_for(seed, "kfac")
    return kronecker.kfac(model, [(x, y)], fisher=fisher, samples=samples, generator=generator)

"""Weights before training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn


def initialise_(model: nn.Module, generator: torch.Generator) -> nn.Module:
    """Glorot normal weights (a variance-scaling initialisation), zero biases, fresh normalisation; in place.

    Drawn on the CPU in the order of ``named_modules``, so every device and dtype starts from the same numbers.
    """

    def glorot(module: nn.Linear | nn.Conv2d) -> Tensor:
        weight = torch.empty(module.weight.shape, dtype=torch.float32)
        return nn.init.xavier_normal_(weight, generator=generator)

    return _fill(model, glorot)


def orthogonal_(
    model: nn.Module, generator: torch.Generator, *, kernel: Literal["delta", "matrix"] = "delta"
) -> nn.Module:
    """Orthogonal weights, zero biases, fresh normalisation; in place (Saxe et al. 2014; Xiao et al. 2018, algorithm 2).

    Linear [out, in]: orthonormal rows where out <= in, else orthonormal columns, so all min(out, in) singular values are 1.
    Conv2d, ``kernel="delta"``: delta-orthogonal, zero but at the kernel's centre, whose [out, in] matrix is as a linear
    layer's, for each group. Xiao et al. ask for out >= in and an odd kernel; here out < in gets orthonormal rows (of an image
    the part in their span passes unchanged), and the centre of an even side is entry (k - 1) // 2. ``kernel="matrix"``: no
    zeros, the kernel matrix [out, in k k] of each group is as a linear layer's; an image's size is kept only on average.

    Uniform over orthogonal matrices, drawn on the CPU in float64 in the order of ``named_modules``, then cast: every device
    and dtype starts alike.
    """

    def orthonormal(shape: Sequence[int]) -> Tensor:
        return nn.init.orthogonal_(torch.empty(shape, dtype=torch.float64), generator=generator)

    def orthogonal(module: nn.Linear | nn.Conv2d) -> Tensor:
        if isinstance(module, nn.Linear):
            return orthonormal(module.weight.shape)
        weight = torch.zeros(module.weight.shape, dtype=torch.float64)
        for block in weight.chunk(module.groups):
            if kernel == "matrix":
                block.copy_(orthonormal(block.shape))  # flattens all axes but the first
            else:
                row, column = ((k - 1) // 2 for k in module.kernel_size)
                block[:, :, row, column] = orthonormal(block.shape[:2])
        return weight

    return _fill(model, orthogonal)


@torch.no_grad()
def _fill(model: nn.Module, draw: Callable[[nn.Linear | nn.Conv2d], Tensor]) -> nn.Module:
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            module.weight.copy_(draw(module).to(module.weight.dtype))  # cast first: not every device has float64
            if module.bias is not None:
                module.bias.zero_()
        elif isinstance(module, nn.modules.batchnorm._NormBase):
            module.reset_parameters()
    return model

"""Weights before training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn


def initialise_(model: nn.Module, generator: torch.Generator) -> nn.Module:
    """Glorot normal weights (a variance-scaling initialisation), zero biases, fresh normalisation; in place.

    Drawn on the CPU in the order of ``named_modules``, so every device and dtype starts from the same numbers. Other modules
    reset themselves, from the generator's seed; parameters of no module of torch (position embeddings) stay: see :func:`free`.
    """

    def glorot(module: nn.Linear | nn.Conv2d) -> Tensor:
        weight = torch.empty(module.weight.shape, dtype=torch.float32)
        return nn.init.xavier_normal_(weight, generator=generator)

    return _fill(model, glorot, generator)


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

    return _fill(model, orthogonal, generator)


def free(model: nn.Module) -> list[str]:
    """Names of the parameters that no rule initialises: those which a module of one's own holds directly."""
    resets = {name for name, module in model.named_modules() if hasattr(module, "reset_parameters")}
    return [name for name, _ in model.named_parameters() if name.rpartition(".")[0] not in resets]


@torch.no_grad()
def _fill(model: nn.Module, draw: Callable[[nn.Linear | nn.Conv2d], Tensor], generator: torch.Generator) -> nn.Module:
    for place, module in enumerate(model.modules()):
        if isinstance(module, nn.Linear | nn.Conv2d):
            module.weight.copy_(draw(module).to(module.weight.dtype))  # cast first: not every device has float64
            if module.bias is not None:
                module.bias.zero_()
        elif callable(reset := getattr(module, "reset_parameters", None)):
            with seeded(generator.initial_seed() + place):
                reset()
    return model


@contextmanager
def seeded(number: int) -> Iterator[None]:
    """Draws from torch's global CPU generator begin at this number; afterwards it is as before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(number % 2**63)
        yield

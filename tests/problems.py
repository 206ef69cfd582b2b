"""Samples for the small networks of ``conftest.py``."""

from __future__ import annotations

import torch
from torch import nn


def samples(model: nn.Module, n: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    """Random samples that fit ``mlp`` or ``cnn``."""
    generator = torch.Generator().manual_seed(5)
    first = next(m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d))
    shape = (n, 1, 6, 6) if isinstance(first, nn.Conv2d) else (n, first.in_features)
    x = torch.randn(shape, generator=generator, dtype=torch.float64).to(first.weight.dtype)
    return x, torch.randint(0, 3, (n,), generator=generator)

"""Weights before training."""

from __future__ import annotations

import torch
from torch import nn


@torch.no_grad()
def initialise_(model: nn.Module, generator: torch.Generator) -> nn.Module:
    """Glorot normal weights (a variance-scaling initialisation), zero biases, fresh normalisation; in place.

    Drawn on the CPU in the order of ``named_modules``, so every device and dtype starts from the same numbers.
    """
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            weight = torch.empty(module.weight.shape, dtype=torch.float32)
            module.weight.copy_(nn.init.xavier_normal_(weight, generator=generator))
            if module.bias is not None:
                module.bias.zero_()
        elif isinstance(module, nn.modules.batchnorm._NormBase):
            module.reset_parameters()
    return model

"""Statistics of batch normalisation, estimated again once weights are gone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from pruneviz.door.samples import forward


@torch.no_grad()
def recalibrate_(model: nn.Module, batches: Iterable[tuple[Any, Any]]) -> nn.Module:
    """Means and variances of every batch normalisation over these batches (their plain average), in place; weights stay."""
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._NormBase) and m.track_running_stats]
    if not norms:
        return model
    modes = {module: module.training for module in model.modules()}
    momenta = {norm: norm.momentum for norm in norms}
    try:
        model.eval()
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the average over all batches
            norm.train()
        for x, _ in batches:
            forward(model, x)
    finally:
        for module, training in modes.items():
            module.training = training
        for norm, momentum in momenta.items():
            norm.momentum = momentum
    return model

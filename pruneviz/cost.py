"""What a network costs: parameters and floating-point operations."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from pruneviz.masks import Mask


@dataclass(frozen=True)
class Cost:
    """``parameters``: all that are left, biases and normalisation included; ``weights_and_biases``: those of Linear and
    Conv2d; ``flops``: of one sample's forward pass, a multiply-add counted as two, pruned weights left out."""

    parameters: int
    weights_and_biases: int
    flops: int


@torch.no_grad()
def cost(model: nn.Module, sample: Tensor, mask: Mask | None = None) -> Cost:
    """The cost for one sample ``[1, ...]``. Single pruned weights are counted as gone; no hardware is that kind to them."""
    gone = {name: int((~keep).sum()) for name, keep in (mask or {}).items()}
    total = sum(p.numel() for p in model.parameters()) - sum(gone.values())
    layers = {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)}
    own = sum(p.numel() for m in layers.values() for p in m.parameters(recurse=False)) - sum(gone.values())
    training = model.training
    with FlopCounterMode(display=False) as counter:
        model.eval()(sample)
    model.train(training)
    counts = counter.get_flop_counts()
    root = type(model).__name__
    flops = 0.0
    for name, module in layers.items():
        full = sum(counts.get(f"{root}.{name}" if name else root, {}).values())
        weight = f"{name}.weight" if name else "weight"
        flops += full * (1 - gone.get(weight, 0) / module.weight.numel())
    return Cost(total, own, round(flops))

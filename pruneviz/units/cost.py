"""What a network costs: parameters, floating-point operations, and the time it really takes."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import cached_property
from statistics import median

import torch
from torch import nn

from pruneviz.door.network import network_of
from pruneviz.door.samples import Samples, changed, forward, tensors
from pruneviz.units.masks import Mask

BATCHES = (1, 256)  # samples at a time for which latency is measured
RUNS, SECONDS = (5, 101), 0.5  # fewest and most forward passes, and how long one measurement goes on


@dataclass(frozen=True)
class Cost:
    """``parameters``: all that are left, biases and normalisation included; ``weights_and_biases``: those of Linear and
    Conv2d; ``flops``: of one sample's forward pass, a multiply-add counted as two, pruned weights left out; None
    where an operation's cost is not known.

    ``latency``: batch size (1 and 256) -> seconds of a forward pass, the median of many, measured when first asked for.
    """

    parameters: int
    weights_and_biases: int
    flops: int | None
    _measured: tuple[nn.Module, Samples] | None = field(default=None, repr=False, compare=False)

    @property
    def operations(self) -> int:
        """The same, 0 where it is not known: for estimates of time."""
        return self.flops or 0

    @cached_property
    def latency(self) -> dict[int, float]:
        if self._measured is None:
            return {}
        return {batch: latencies([self._measured[0]], self._measured[1], batch)[0] for batch in BATCHES}


def cost(model: nn.Module, sample: Samples, mask: Mask | None = None) -> Cost:
    """The cost for one sample ``[1, ...]``. Single pruned weights are counted as gone; no hardware is that kind to them.

    Operations are those that run: of layers, functions and attention; of a weight its unpruned share.
    """
    gone = {name: int((~keep).sum()) for name, keep in (mask.everything if mask is not None else {}).items()}
    total = sum(p.numel() for p in model.parameters()) - sum(gone.values())
    layers = {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)}
    inside = {f"{n}.{kind}" if n else kind for n in layers for kind in ("weight", "bias")}
    own = sum(p.numel() for m in layers.values() for p in m.parameters(recurse=False))
    own -= sum(count for name, count in gone.items() if name in inside)
    network = network_of(model, sample)
    saved = sum(w.flops * gone.get(w.name, 0) / w.size for w in network.weights.values())
    return Cost(total, own, None if network.uncounted else round(network.flops - saved), (model, sample))


@torch.no_grad()
def latencies(models: list[nn.Module], sample: Samples, batch: int) -> list[float]:
    """Median seconds of a forward pass of each network on ``batch`` copies of the sample, in turns (A B A B), evaluation mode."""
    x = changed(sample, lambda t: t.expand(batch, *t.shape[1:]).contiguous())
    modes = [{module: module.training for module in model.modules()} for model in models]
    times: list[list[float]] = [[] for _ in models]
    try:
        for model in models:
            forward(model.eval(), x)
        started = time.perf_counter()
        while len(times[0]) < RUNS[1] and (len(times[0]) < RUNS[0] or time.perf_counter() - started < SECONDS):
            for model, found in zip(models, times, strict=True):
                found.append(_timed(model, x))
    finally:
        for each in modes:
            for module, training in each.items():
                module.training = training
    return [median(found) for found in times]


def _timed(model: nn.Module, x: Samples) -> float:
    _settle(x)
    started = time.perf_counter()
    forward(model, x)
    _settle(x)
    return time.perf_counter() - started


def _settle(x: Samples) -> None:
    """Wait for what a device still has to do."""
    device = tensors(x)[0].device
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()

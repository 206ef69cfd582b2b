"""What runs will take on this machine, before they begin: measured on a few steps of their network, not guessed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from copy import deepcopy
from statistics import median

import torch
from torch import nn

from pruneviz.datasets.base import Splits
from pruneviz.door.loss import LOSSES
from pruneviz.plan.config import RunConfig

STEPS = 5


def seconds_a_step(model: nn.Module, data: Splits, config: RunConfig) -> float:
    """Of one training step on the CPU, forward and backward: the median of five, after one that is not counted."""
    work = deepcopy(model).train()
    x, y = (t[: config.train.batch_size] for t in data.train)
    loss, took = LOSSES[config.loss_name], []
    for _ in range(STEPS + 1):
        began = time.perf_counter()
        loss(work(x), y).backward()
        took.append(time.perf_counter() - began)
        work.zero_grad(set_to_none=True)
    return median(took[1:])


def steps_of(configs: Sequence[RunConfig], samples: int) -> int:
    """Training steps that runs take together; a dense network that several share is trained once."""
    dense = {c.dense_key: c.dense_epochs * -(-samples // c.train.batch_size) for c in configs}
    after = [(c.epochs - c.dense_epochs) * -(-samples // c.after_pruning.batch_size) for c in configs]
    return sum(dense.values()) + sum(after)


def bytes_held(model: nn.Module, data: Splits) -> int:
    """What training holds at the least: weights, gradients, two moments of the optimiser, and the samples."""
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    samples = sum(t.numel() * t.element_size() for part in (data.train, data.val, data.test) for t in part)
    return 4 * weights + samples


def in_words(configs: Sequence[RunConfig], model: nn.Module, data: Splits) -> list[str]:
    """What is going to happen: sentences for ``--dry-run``."""
    steps = steps_of(configs, len(data.train[0]))
    step = seconds_a_step(model, data, configs[0])
    total = sum(c.epochs - c.dense_epochs for c in configs)
    dense = {c.dense_key: c.dense_epochs for c in configs}
    trained = (
        f"trained for {max(dense.values())} epochs" if any(dense.values()) else "not trained: its weights are given"
    )
    return [
        f"{len(configs)} {'run' if len(configs) == 1 else 'runs'}; the dense network is {trained}; {total:,} epochs after pruning.",
        f"{steps:,} training steps of {1000 * step:.3g} ms (measured here, {torch.get_num_threads()} threads): about "
        f"{_span(steps * step)}; what scoring and measuring take comes on top.",
        f"Memory: at least {bytes_held(model, data) / 2**20:,.0f} MB for weights, optimiser and samples.",
    ]


def _span(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"

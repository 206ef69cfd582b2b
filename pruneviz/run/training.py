"""The masked training loop."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pruneviz.curvature.task import generator_for
from pruneviz.door.loss import CROSS_ENTROPY, Loss, loss_called, right
from pruneviz.plan.recipe import Training
from pruneviz.units.hold import held
from pruneviz.units.masks import Mask, matched
from pruneviz.units.start import partly_zero

if TYPE_CHECKING:
    import pandas as pd

    from pruneviz.datasets.base import Splits


@dataclass(frozen=True)
class Epoch:
    """A point in training: ``done`` epochs (a fraction within one); losses and accuracy only at the end of an epoch."""

    done: float
    of: int
    values: dict[str, float]

    @property
    def complete(self) -> bool:
        return bool(self.values)


@torch.no_grad()
def evaluate(
    model: nn.Module, x: Tensor, y: Tensor, *, loss: Loss = CROSS_ENTROPY, batch: int = 2000
) -> dict[str, float]:
    """Accuracy (a fraction) and mean loss, in evaluation mode; the mode is put back."""
    training = model.training
    model.eval()
    hits = torch.zeros((), dtype=torch.long, device=x.device)
    total = torch.zeros((), dtype=torch.float64 if x.device.type != "mps" else torch.float32, device=x.device)
    for xs, ys in zip(x.split(batch), y.split(batch), strict=True):
        logits = model(xs)
        hits += right(logits, ys).sum()
        total += loss.each(logits, ys).sum()
    model.train(training)
    return {"accuracy": int(hits) / len(x), "loss": float(total) / len(x)}


def fit(
    model: nn.Module,
    data: Splits,
    budget: Training,
    *,
    generator: torch.Generator,
    mask: Mask | None = None,
    loss: Loss = CROSS_ENTROPY,
    at_step: Callable[[int], None] | None = None,
) -> Iterator[Epoch]:
    """Train in place, yielding at each epoch and at least every half second.

    With a mask, gradients of pruned weights are cleared before each step and the weights after it, so momentum, weight
    decay and optimiser state never bring one back. ``at_step(k)`` is called before step k. Same generator state, same
    device: same result.
    """
    x, y = data.train
    params = dict(model.named_parameters())
    masked = [
        (parameter, keep.to(parameter.dtype))
        for parameter, keep in matched(model, mask.everything if mask is not None else {}).values()
        if not bool(keep.all())
    ]
    if mask is not None:
        mask.apply_(model)
    optimizer = _optimizer(budget, list(params.values()))
    best: tuple[float, float, dict[str, Tensor]] | None = None
    step, said = 0, time.monotonic()
    for epoch in range(1, budget.epochs + 1):
        model.train()
        order = torch.randperm(len(x), generator=generator).to(x.device)
        total = torch.zeros((), device=x.device)
        for i in range(0, len(x), budget.batch_size):
            if at_step is not None:
                at_step(step)
            part = order[i : i + budget.batch_size]
            now = loss(model(x[part]), y[part])
            optimizer.zero_grad(set_to_none=True)
            now.backward()
            _silence([(p.grad, keep) for p, keep in masked if p.grad is not None])
            optimizer.step()
            _silence(masked)
            total += now.detach() * len(part)
            step += 1
            if time.monotonic() - said > 0.5:
                said = time.monotonic()
                yield Epoch(epoch - 1 + (i + len(part)) / len(x), budget.epochs, {})
        on_val = evaluate(model, *data.val, loss=loss)
        if budget.keep == "best" and (best is None or (on_val["accuracy"], -on_val["loss"]) > best[:2]):
            best = (on_val["accuracy"], -on_val["loss"], deepcopy(model.state_dict()))
        said = time.monotonic()
        yield Epoch(
            epoch,
            budget.epochs,
            {"train_loss": float(total) / len(x), "val_loss": on_val["loss"], "val_accuracy": on_val["accuracy"]},
        )
    if at_step is not None:
        at_step(step)
    if best is not None:
        model.load_state_dict(best[2])


@torch.no_grad()
def _silence(pairs: Sequence[tuple[Tensor, Tensor]]) -> None:
    for tensor, keep in pairs:
        tensor.mul_(keep)


def _loose(model: nn.Module) -> list[str]:
    """Weight matrices that are partly zero and that nothing keeps so; an embedding's rows of padding are zero for good."""
    kept = held(model)
    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding | nn.EmbeddingBag)}
    return [
        name
        for name, p in model.named_parameters()
        if p.dim() > 1 and p.requires_grad and id(p) not in tables and name not in kept and partly_zero(p.detach())
    ]


def _optimizer(budget: Training, params: list[nn.Parameter]) -> torch.optim.Optimizer:
    if budget.optimizer == "adam":
        return torch.optim.Adam(params, lr=budget.lr, weight_decay=budget.weight_decay)
    return torch.optim.SGD(params, lr=budget.lr, momentum=budget.momentum, weight_decay=budget.weight_decay)


def train(
    model: nn.Module,
    data: Splits,
    *,
    epochs: int,
    seed: int = 0,
    mask: Mask | None = None,
    loss: str = "cross-entropy",
    **settings: Any,
) -> pd.DataFrame:
    """Train in place; returns the history: epoch, train_loss, val_loss, val_accuracy.

    ``mask``: what it prunes stays zero. Without one, and without :func:`pruneviz.hold`, a warning says where zeros will come
    back. ``loss``: "cross-entropy" or "squared". ``settings`` are those of :class:`pruneviz.plan.config.Training` (lr,
    batch_size, optimizer, …).
    """
    import pandas as pd

    budget = Training(epochs=epochs, **settings)
    zeros = _loose(model) if mask is None and epochs else []
    if zeros:
        more = f" and {len(zeros) - 1} more" if zeros[1:] else ""
        warnings.warn(
            f"Some weights of {zeros[0]!r}{more} are exactly zero, and training will move them from there. If they were pruned, "
            "pass mask=, or train inside pv.hold(model, mask).",
            stacklevel=2,
        )
    rows = [
        {"epoch": int(e.done), **e.values}
        for e in fit(model, data, budget, generator=generator_for(seed, "training"), mask=mask, loss=loss_called(loss))
        if e.complete
    ]
    return pd.DataFrame(rows, columns=["epoch", "train_loss", "val_loss", "val_accuracy"])

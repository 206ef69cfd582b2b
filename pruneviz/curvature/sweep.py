"""One pass over the data for the statistics that methods declare, kept by digest of weights and samples."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from pruneviz.statistic import Diagonal, Gradient, Kronecker, Statistic

if TYPE_CHECKING:
    from pruneviz.task import Task


def _digest(hasher: hashlib._Hash, tensor: torch.Tensor) -> None:
    hasher.update(str((tensor.dtype, tuple(tensor.shape))).encode())
    hasher.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())


def digest(model: nn.Module, task: Task, statistic: Statistic) -> str:
    """What a statistic depends on: the weights, the samples, the loss, and the generator where labels are drawn."""
    hasher = hashlib.sha256(repr((statistic, task.loss.key)).encode())
    for name, tensor in model.state_dict().items():
        hasher.update(name.encode())
        _digest(hasher, tensor)
    for x, y in task.batches():
        _digest(hasher, x)
        _digest(hasher, y)
    if statistic == Diagonal("fisher") or (isinstance(statistic, Kronecker) and statistic.fisher == "sampled"):
        _digest(hasher, task.generator.get_state())
    return hasher.hexdigest()


def gather(model: nn.Module, task: Task, wanted: tuple[Statistic, ...]) -> dict[Statistic, Any]:
    """The statistics wanted, each computed over the task's samples."""
    from pruneviz.curvature.diagonals import diagonal
    from pruneviz.curvature.gradients import mean_gradient
    from pruneviz.curvature.kronecker import kfac

    found: dict[Statistic, Any] = {}
    for statistic in wanted:
        match statistic:
            case Gradient(mode=mode):
                found[statistic] = mean_gradient(model, task.batches(), task.loss, mode=mode)
            case Kronecker(fisher=fisher, samples=samples):
                found[statistic] = kfac(
                    model, task.batches(), fisher=fisher, samples=samples, generator=task.generator, loss=task.loss
                )
            case Diagonal(kind=kind):
                found[statistic] = diagonal(model, task.batches(), kind=kind, loss=task.loss, generator=task.generator)
    return found


class Statistics:
    """Statistics kept for the length of one ``execute``, or (``keep=False``) not at all."""

    def __init__(self, *, keep: bool = False):
        self._keep = keep
        self._found: dict[str, Any] = {}

    def get(self, model: nn.Module, task: Task, statistic: Statistic) -> Any:
        """The statistic, from memory if these very weights and samples were seen before."""
        if not self._keep:
            return gather(model, task, (statistic,))[statistic]
        key = digest(model, task, statistic)
        if key not in self._found:
            self._found[key] = gather(model, task, (statistic,))[statistic]
        return self._found[key]

    def clear(self) -> None:
        """Forget everything, when the network changes."""
        self._found.clear()

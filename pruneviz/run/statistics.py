"""Statistics kept by the digest of weights and samples, for the length of one ``execute``."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from pruneviz.curvature.statistic import Rows, Statistic
from pruneviz.curvature.sweep import passing
from pruneviz.curvature.task import Anew, Task
from pruneviz.door.samples import tensors


def _digest(hasher: hashlib._Hash, tensor: torch.Tensor) -> None:
    hasher.update(str((tensor.dtype, tuple(tensor.shape))).encode())
    hasher.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())


def digest(model: nn.Module, task: Task) -> str:
    """What a statistic depends on: the weights, the samples, the loss, and the seed that labels are drawn from."""
    hasher = hashlib.sha256(repr((task.loss.key, task.generator.initial_seed())).encode())
    for name, tensor in model.state_dict().items():
        hasher.update(name.encode())
        _digest(hasher, tensor)
    for x, y in task.batches():
        for tensor in tensors(x):
            _digest(hasher, tensor)
        _digest(hasher, y)
    return hasher.hexdigest()


class Statistics:
    """Statistics kept for the length of one ``execute``."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, Statistic], Any] = {}

    def get(self, model: nn.Module, task: Task, statistic: Statistic) -> Any:
        """The statistic, from memory if these very weights and samples were seen before. Rows are large: handed out once."""
        key = (digest(model, task), statistic)
        if key in self._found:
            return self._found.pop(key) if isinstance(statistic, Rows) else self._found[key]
        found = Anew().get(model, task, statistic)
        if not isinstance(statistic, Rows):
            self._found[key] = found
        return found

    def gather(self, model: nn.Module, task: Task, wanted: Sequence[Statistic]) -> Iterator[int]:
        """One sweep for all that are wanted and not known yet; yields how many samples are done."""
        key = digest(model, task)
        missing = [s for s in dict.fromkeys(wanted) if (key, s) not in self._found]
        if missing:
            found = yield from passing(model, task.batches(), missing, loss=task.loss, generator=task.generator)
            self._found |= {(key, statistic): value for statistic, value in found.items()}

    def clear(self) -> None:
        """Forget everything, when the network changes."""
        self._found.clear()

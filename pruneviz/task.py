"""Task: all that a score may look at."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from pruneviz.curvature.sweep import Statistics
from pruneviz.errors import Unsuitable
from pruneviz.loss import CROSS_ENTROPY, Loss
from pruneviz.statistic import Statistic

Batch = tuple[Tensor, Tensor]


def generator_for(seed: int, purpose: str) -> torch.Generator:
    """A CPU generator that depends on the seed and on what it is for, and on nothing that happened before."""
    digest = hashlib.sha256(f"{seed}:{purpose}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


@dataclass
class Task:
    """The samples, the loss and the surroundings of one scoring.

    ``batches()`` gives the same batches at every call; ``initial`` holds the weights before training where a criterion
    reads them; ``generator`` (CPU) is the only source of randomness; ``scope`` is the run's.
    """

    batches: Callable[[], Iterable[Batch]]
    generator: torch.Generator
    loss: Loss = CROSS_ENTROPY
    initial: Mapping[str, Tensor] | None = None
    device: torch.device | str = "cpu"
    scope: str = "global"
    statistics: Statistics = field(default_factory=Statistics)

    def statistic(self, model: nn.Module, wanted: Statistic):
        """A declared statistic of this model on these samples: computed on first use, then from memory."""
        return self.statistics.get(model, self, wanted)

    def initial_value(self, name: str, *, method: str, why: str) -> Tensor:
        """The value of a parameter before training. Raises Unsuitable where the caller gave none."""
        if self.initial is None or name not in self.initial:
            raise Unsuitable(
                f"{method} with {why} reads the weights before training, and none were given. "
                "Pass initial=the state dict saved before training (a run keeps it by itself)."
            )
        return self.initial[name].to(self.device)

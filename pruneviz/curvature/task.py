"""Task: all that a score may look at."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from pruneviz.basics.errors import Unsuitable
from pruneviz.basics.seeds import number_for
from pruneviz.curvature.statistic import Statistic
from pruneviz.curvature.sweep import sweep
from pruneviz.door.arrival import form_of
from pruneviz.door.loss import CROSS_ENTROPY, Loss
from pruneviz.door.network import Network, network_of
from pruneviz.door.samples import Samples

Batch = tuple[Samples, Tensor]
Part = tuple[Tensor, Tensor]  # of a data set


def generator_for(seed: int, purpose: str) -> torch.Generator:
    """A CPU generator that depends on the seed and on what it is for, and on nothing that happened before."""
    return torch.Generator().manual_seed(number_for(seed, purpose))


class Source(Protocol):
    """Where statistics come from: computed anew each time, or kept."""

    def get(self, model: nn.Module, task: Task, statistic: Statistic) -> Any: ...


class Anew:
    """Each statistic by a sweep of its own; nothing is kept."""

    def get(self, model: nn.Module, task: Task, statistic: Statistic) -> Any:
        return sweep(model, task.batches(), (statistic,), loss=task.loss, generator=task.generator)[statistic]


@dataclass
class Task:
    """The samples, the loss and the surroundings of one scoring.

    ``batches()`` gives the same batches at every call; ``initial`` holds the weights before training where a criterion
    reads them; ``generator`` (CPU) is the only source of randomness; ``scope`` is the run's. ``skip``: patterns of layers
    that are left alone; ``alive``: parameter -> which of its entries are there at the start (bool), where the network is sparse already.
    """

    batches: Callable[[], Iterable[Batch]]
    generator: torch.Generator
    loss: Loss = CROSS_ENTROPY
    initial: Mapping[str, Tensor] | None = None
    device: torch.device | str = "cpu"
    scope: str = "global"
    skip: tuple[str, ...] = ()
    statistics: Source = field(default_factory=Anew)
    alive: Mapping[str, Tensor] | None = None

    @property
    def seed(self) -> int:
        """What the generator started from: decides between units of equal score, whatever was drawn before."""
        return self.generator.initial_seed()

    def network(self, model: nn.Module) -> Network:
        """What a look at the network on these samples finds."""
        return network_of(model, next(iter(self.batches()))[0])

    def sample(self, model: nn.Module) -> Samples:
        """The form of the network's inputs: one of the samples, or two where it does not run on one alone."""
        return form_of(model, self.network(model), next(iter(self.batches()))[0])

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

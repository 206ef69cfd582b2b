"""What the methods of Wang et al. 2019 share: the Fisher's Kronecker factors and filters as units."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from pruneviz.basics.citation import Paper
from pruneviz.curvature.statistic import Kronecker
from pruneviz.methods.base import Method, drawn

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import torch
    from torch import Tensor, nn

    from pruneviz.curvature.kronecker import KroneckerFactors
    from pruneviz.curvature.task import Batch, Part, Task
    from pruneviz.door.network import Weight
    from pruneviz.units.masks import Group, Mask, Scores

WANG = Paper(
    "wang2019eigendamage",
    "Chaoqi Wang, Roger Grosse, Sanja Fidler, Guodong Zhang",
    "EigenDamage: Structured Pruning in the Kronecker-Factored Eigenbasis",
    2019,
    "International Conference on Machine Learning",
    "https://arxiv.org/abs/1905.05934",
)
SAMPLES = 2000  # drawn for the factors


class KroneckerMethod(Method):
    """A method that reads Kronecker factors."""

    fisher: Literal["sampled", "exact", "empirical"] = Field(
        "sampled", description="Labels for the Fisher: drawn from the network, all weighted, or the data's own"
    )
    samples: int = Field(1, ge=1, le=1000, description="Labels drawn for each sample")
    damping: float = Field(
        1e-6, ge=0, le=1, description="Added to a factor before it is inverted, relative to its mean eigenvalue"
    )

    def needs(self) -> tuple[Kronecker]:
        return (Kronecker(self.fisher, self.samples if self.fisher == "sampled" else 1),)

    def factors(self, model: nn.Module, task: Task) -> dict[str, KroneckerFactors]:
        """Layer -> factors of this network on the task's samples; layers that are left alone need none."""
        from pruneviz.units.weights import skips

        (wanted,) = self.needs()
        if task.skip:
            weights = task.network(model).weights.values()
            wanted = replace(wanted, without=tuple(w.name for w in weights if skips(task.skip, w)))
        return task.statistic(model, wanted)

    def draw(self, train: Part, generator: torch.Generator) -> Iterable[Batch]:
        return drawn(train, SAMPLES, generator)

    def whole(self, weight: Weight) -> str:
        """Why a layer has no Kronecker factors; "" where it has."""
        if not weight.slope:
            return "no slope of the loss reaches it (no_grad, or detached)"
        return "" if weight.factors else weight.why or f"{weight.kind} has no Kronecker factors"


class FilterMethod(Method):
    """A method whose units are the outputs of layers."""

    def full(self, model: nn.Module, task: Task) -> Mask:
        from pruneviz.units.filters import Filters
        from pruneviz.units.weights import SKIPPED, skips

        weights = list(task.network(model).weights.values())
        skipped = {w.layer for w in weights if skips(task.skip, w)}
        others = {
            w.layer: f"{w.kind} weights have no filters"
            for w in weights
            if w.kind not in ("linear", "conv1d", "conv2d")
        }
        stays = others | {w.layer: why for w in weights if (why := self.whole(w))} | dict.fromkeys(skipped, SKIPPED)
        sample = task.sample(model)
        return Filters(model, sample, share=self.share(), alive=task.alive, stays=stays, skip=skipped).full()

    @classmethod
    def share(cls) -> float | None:
        """Of a layer's filters at most; None: all but one."""
        from pruneviz.units.filters import SIDE

        return SIDE

    def choose(self, model: nn.Module, task: Task, scores: Scores, mask: Mask, target: float) -> Mask:
        from pruneviz.units.choice import select_units

        seed = task.seed if task.scope == "global" else None
        return select_units(self.ranked(scores, mask, task.scope, task.seed), mask, target, seed=seed)

    def ranked(self, scores: Scores, mask: Mask, scope: str, seed: int = 0) -> Mapping[Group, Tensor]:
        """What units are ordered by: the score itself, or with scope "layer" the share of the layer that leaves before."""
        from pruneviz.units.choice import tie_ranks

        if scope == "global":
            return scores.values
        return {
            group: places(value, mask.units[group], tie_ranks(value, group.name, seed)) / group.size
            for group, value in scores.values.items()
        }


def places(value: Tensor, kept: Tensor, ranks: Tensor) -> Tensor:
    """How many leave before each: those gone already, then in rising order; ties by ``ranks``. [n] -> [n]."""
    import torch

    first = torch.argsort(ranks, stable=True).to(value.device)
    order = first[torch.argsort(torch.where(kept, value, -torch.inf)[first], stable=True)]
    found = torch.empty_like(value)
    found[order] = torch.arange(len(value), dtype=value.dtype, device=value.device)
    return found


def filter_rows(model: nn.Module, group: Group) -> Tensor:
    """A layer's filters as rows: [out, in] of a Linear, [out, in k k] of a Conv2d."""
    from pruneviz.curvature.layers import layer_called

    return layer_called(group.layer, model).weight.detach().flatten(1)

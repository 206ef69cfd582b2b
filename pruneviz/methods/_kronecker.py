"""What the methods of Wang et al. 2019 share: the Fisher's Kronecker factors and filters as units."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pruneviz.citation import Paper
from pruneviz.methods.base import Method, drawn
from pruneviz.statistic import Kronecker

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

    def needs(self):
        return (Kronecker(self.fisher, self.samples if self.fisher == "sampled" else 1),)

    def factors(self, model, task):
        """Layer -> factors of this network on the task's samples."""
        return task.statistic(model, self.needs()[0])

    def draw(self, train, generator):
        return drawn(train, SAMPLES, generator)


class FilterMethod(Method):
    """A method whose units are the outputs of layers."""

    def full(self, model, task):
        from pruneviz.structured import Filters

        return Filters(model, next(iter(task.batches()))[0][:1], share=self.share()).full()

    @classmethod
    def share(cls) -> float | None:
        """Of a layer's filters at most; None: all but one."""
        from pruneviz.structured import SIDE

        return SIDE

    def choose(self, model, task, scores, mask, target):
        from pruneviz.structured import select_units

        return select_units(self.ranked(scores, mask, task.scope), mask, target)

    def ranked(self, scores, mask, scope):
        """What units are ordered by: the score itself, or with scope "layer" the share of the layer that leaves before."""
        if scope == "global":
            return scores.values
        return {group: places(value, mask.units[group]) / group.size for group, value in scores.values.items()}


def places(value, kept):
    """How many leave before each: those gone already, then in rising order; ties by position. [n] -> [n]."""
    import torch

    order = torch.argsort(torch.where(kept, value, -torch.inf), stable=True)
    found = torch.empty_like(value)
    found[order] = torch.arange(len(value), dtype=value.dtype, device=value.device)
    return found


def filter_rows(model, group):
    """A layer's filters as rows: [out, in] of a Linear, [out, in k k] of a Conv2d."""
    from pruneviz.curvature.layers import layer_called

    return layer_called(group.layer, model).weight.detach().flatten(1)

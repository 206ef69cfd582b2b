"""SNIP, Lee et al. 2019."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from pruneviz.basics.citation import Paper
from pruneviz.curvature.statistic import Gradient
from pruneviz.methods.base import Card, Start, WeightMethod

if TYPE_CHECKING:
    from collections.abc import Iterable

    import torch
    from torch import nn

    from pruneviz.curvature.statistic import Statistic
    from pruneviz.curvature.task import Batch, Part, Task
    from pruneviz.units.masks import Mask, Scores

ORDER = 70


class Snip(WeightMethod):
    """|weight x gradient| on one mini-batch before training."""

    card = Card(
        key="snip",
        title="SNIP",
        idea="Before any training, keep the connections whose removal would change the loss the most.",
        formula=r"s_q = \left| \theta_q \, \frac{\partial L}{\partial \theta_q} \right|",
        symbols=(
            (r"\theta_q", "initial weight q"),
            (r"\partial L / \partial \theta_q", "slope of the loss on one mini-batch; the product is the slope at a gate on the weight"),
        ),
        criterion="connection sensitivity",
        starts=Start.INIT,
        paper=Paper(
            "lee2019snip",
            "Namhoon Lee, Thalaiyasingam Ajanthan, Philip H. S. Torr",
            "SNIP: Single-shot Network Pruning based on Connection Sensitivity",
            2019,
            "International Conference on Learning Representations",
            "https://arxiv.org/abs/1810.02340",
            "section 4, equations 4 to 6",
        ),
        steps=(
            "Initialise the network so that signals keep their variance from layer to layer.",
            "Take one mini-batch and multiply each weight by its gradient.",
            "Keep the weights with the largest products over the whole network, once.",
            "Train what is left as usual.",
        ),
        departures=(
            "score_init=fresh scores another random initialisation than the one that is trained, as the authors' code does.",
            "include_bias=true ranks and counts biases, as the authors' code does.",
            "bn_mode=eval scores with normalisation in inference mode, as the authors' code does.",
        ),
        colour="#f04e16",
        mark="cross",
    )  # fmt: skip
    batches: int = Field(1, ge=1, le=1000, description="Mini-batches to score on (100 grey images each, 128 in colour)")
    score_init: Literal["same", "fresh"] = Field(
        "same", description="Score the weights that are trained, or fresh ones"
    )
    include_bias: bool = Field(False, description="Prune biases too, and count them")
    bn_mode: Literal["train", "eval"] = Field("train", description="Mode of normalisation and dropout while scoring")

    def needs(self) -> tuple[Statistic, ...]:
        return (Gradient(self.bn_mode),) if self.score_init == "same" else ()

    def draw(self, train: Part, generator: torch.Generator) -> Iterable[Batch]:
        import torch

        x, y = train
        size = 128 if x.dim() == 4 and x.shape[1] == 3 else 100
        order = torch.randperm(len(x), generator=generator)[: size * self.batches].to(x.device)
        return [(x[part], y[part]) for part in order.split(size)]

    def score(self, model: nn.Module, task: Task, mask: Mask) -> Scores:
        from copy import deepcopy

        from pruneviz.door.parameters import named
        from pruneviz.models._torch.initialisation import initialise_
        from pruneviz.units.masks import Scores

        if self.score_init == "fresh":
            model = initialise_(deepcopy(model), task.generator)
            mask.apply_(model)
        gradient = task.statistic(model, Gradient(self.bn_mode))
        params = named(model)
        return Scores.of_weights({name: (params[name].detach() * gradient[name]).abs() for name in mask})

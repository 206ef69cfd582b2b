"""Random pruning: the floor that every curve is drawn against."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from pruneviz.methods.base import Card, Start, WeightMethod

if TYPE_CHECKING:
    from torch import nn

    from pruneviz.curvature.task import Task
    from pruneviz.units.masks import Mask, Scores

ORDER = 0


class Random(WeightMethod):
    """Weights leave at random, from the initial or the trained network: it follows the run's start."""

    slopes = False
    card = Card(
        key="random",
        title="Random",
        idea="Remove weights at random: the floor that any criterion has to beat.",
        formula=r"s_q \sim \mathcal{U}(0, 1)",
        symbols=(
            (r"s_q", "score of weight q; the lowest leave"),
            (r"\mathcal{U}(0, 1)", "any number between 0 and 1, all as likely"),
        ),
        criterion="none",
        starts=Start.INIT,
        steps=("Draw a number for each weight.", "Remove the weights with the lowest numbers.", "Train what is left."),
        colour="#7f8287",
        mark="x",
    )
    scope: Literal["global", "layer"] = Field(
        "global", description="Draw over the whole network, or the same share of each layer"
    )

    def score(self, model: nn.Module, task: Task, mask: Mask) -> Scores:
        import torch

        from pruneviz.door.parameters import named
        from pruneviz.units.masks import Scores

        params = named(model)
        return Scores.of_weights(
            {
                name: torch.rand(params[name].shape, generator=task.generator, dtype=torch.float64).to(params[name])
                for name in mask
            }
        )

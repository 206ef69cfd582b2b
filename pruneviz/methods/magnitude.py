"""Magnitude pruning, Han et al. 2015."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from pruneviz.basics.citation import Paper
from pruneviz.methods.base import Card, Start, WeightMethod

if TYPE_CHECKING:
    from torch import Tensor, nn

    from pruneviz.curvature.task import Task
    from pruneviz.units.masks import Mask, Scores

ORDER = 10


class Magnitude(WeightMethod):
    """Rank |w| over the layer's standard deviation; one common threshold c for all layers."""

    slopes = False
    card = Card(
        key="magnitude",
        title="Magnitude",
        idea="Small weights matter little: remove them, retrain, and repeat.",
        formula=r"s_q = \frac{|w_q|}{\operatorname{std}(W_\ell)}, \qquad \text{remove } |w_q| < c \cdot \operatorname{std}(W_\ell)",
        symbols=(
            (r"w_q", "weight q, in layer ℓ"),
            (r"\operatorname{std}(W_\ell)", "standard deviation of the layer's surviving weights, taken once a round"),
            (r"c", "the threshold all layers share; it follows from the sparsity asked for, and the run reports it"),
        ),
        criterion="weight size",
        starts=Start.TRAINED,
        rounds=5,
        paper=Paper(
            "han2015learning",
            "Song Han, Jeff Pool, John Tran, William J. Dally",
            "Learning both Weights and Connections for Efficient Neural Networks",
            2015,
            "Advances in Neural Information Processing Systems 28",
            "https://arxiv.org/abs/1506.02626",
            "section 3",
        ),
        steps=(
            "Train the network.",
            "Divide each weight's size by the standard deviation of its layer and remove the smallest.",
            "Train the survivors from where they are, at a lower learning rate.",
            "Repeat: five rounds, each removing the same share of what is left.",
        ),
        departures=(
            "scale=none ranks plain |w|, as most public code does: layers with small weights lose far more.",
            "rounds=1 prunes in one shot; the paper's figures need the rounds.",
        ),
        colour="#1d5bf2",
        mark="circle",
    )
    scale: Literal["std", "none"] = Field(
        "std", description="Divide by the layer's standard deviation, or rank plain |w|"
    )
    include_bias: bool = Field(False, description="Prune biases too, and count them")

    def score(self, model: nn.Module, task: Task, mask: Mask) -> Scores:
        from pruneviz.door.parameters import named
        from pruneviz.units.masks import Scores

        params = named(model)
        return Scores.of_weights({name: self._ranked(params[name].detach(), keep) for name, keep in mask.items()})

    def _ranked(self, weight: Tensor, keep: Tensor) -> Tensor:
        size = weight.abs()
        if self.scale == "none":
            return size
        alive = weight[keep]
        std = float(alive.std(correction=0)) if alive.numel() else 0.0
        return size / (std or 1.0)  # a layer of equal weights is ranked as if its std were 1

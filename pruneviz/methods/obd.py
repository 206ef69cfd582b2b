"""Optimal Brain Damage, LeCun et al. 1990."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from pruneviz.basics.citation import Paper
from pruneviz.curvature.statistic import Diagonal, Gradient
from pruneviz.methods.base import CURVATURE_SAMPLES, Card, Start, WeightMethod, drawn

if TYPE_CHECKING:
    from collections.abc import Iterable

    import torch
    from torch import nn

    from pruneviz.curvature.statistic import Statistic
    from pruneviz.curvature.task import Batch, Part, Task
    from pruneviz.units.masks import Mask, Scores

ORDER = 40


class Obd(WeightMethod):
    """Half the curvature times the weight squared: the rise of the loss to second order, weight by weight."""

    card = Card(
        key="obd",
        title="Optimal Brain Damage",
        idea="At the bottom of a valley the loss rises by half the curvature times the step squared: remove what rises least.",
        formula=r"s_q = \tfrac{1}{2}\, H_{qq}\, \theta_q^2",
        symbols=(
            (r"\theta_q", "trained weight q"),
            (r"H_{qq}", "curvature of the loss along weight q: its second derivative, or a stand-in that is never negative"),
        ),
        criterion="second-order loss rise",
        starts=Start.TRAINED,
        rounds=5,
        predicts=True,
        schema=2,  # labels are drawn by the seed alone
        paper=Paper(
            "lecun1990optimal",
            "Yann LeCun, John S. Denker, Sara A. Solla",
            "Optimal Brain Damage",
            1990,
            "Advances in Neural Information Processing Systems 2",
            "https://proceedings.neurips.cc/paper/1989/hash/6c9882bbac1c7093bd25041881277658-Abstract.html",
            "sections 2 and 3",
        ),
        steps=(
            "Train the network until the loss no longer falls: its slope is then taken to be zero.",
            "Compute the curvature of the loss along each weight, sample by sample.",
            "Remove the weights with the smallest half curvature times weight squared.",
            "Train the survivors from where they are, and repeat.",
        ),
        departures=(
            "hessian=exact uses the true second derivative; scores may then be negative: removing such a weight should lower the loss.",
            "hessian=fisher squares the gradient for one label drawn from the network, sample by sample.",
            "hessian=empirical squares the gradient for the label given, as much public code does.",
            "gradient_term=true adds minus gradient times weight (our addition): real networks stop before the slope is zero.",
        ),
        colour="#a4422f",
        mark="triangle-up",
    )  # fmt: skip
    hessian: Literal["ggn", "exact", "fisher", "empirical"] = Field(
        "ggn", description="Curvature: Gauss-Newton, exact (signed), Fisher with drawn labels, or squared gradients"
    )
    gradient_term: bool = Field(False, description="Add the first-order term, which the paper assumes to be zero")
    include_bias: bool = Field(False, description="Prune biases too, and count them")

    def needs(self) -> tuple[Statistic, ...]:
        return (Diagonal(self.hessian, self.embeddings), *([Gradient()] if self.gradient_term else []))

    def draw(self, train: Part, generator: torch.Generator) -> Iterable[Batch]:
        return drawn(train, CURVATURE_SAMPLES, generator)

    def score(self, model: nn.Module, task: Task, mask: Mask) -> Scores:
        from pruneviz.door.parameters import named
        from pruneviz.units.masks import Scores

        curvature = task.statistic(model, Diagonal(self.hessian, self.embeddings))
        params = {name: value.detach() for name, value in named(model).items()}
        scores = {name: curvature[name] * params[name].square() / 2 for name in mask}
        if self.gradient_term:
            gradient = task.statistic(model, Gradient())
            scores = {name: value - gradient[name] * params[name] for name, value in scores.items()}
        return Scores.of_weights(scores)

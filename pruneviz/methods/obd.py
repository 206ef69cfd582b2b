"""Optimal Brain Damage, LeCun et al. 1990."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pruneviz.citation import Paper
from pruneviz.methods.base import CURVATURE_SAMPLES, Card, Method, Start, drawn
from pruneviz.statistic import Diagonal, Gradient

ORDER = 40


class Obd(Method):
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
    )  # fmt: skip
    hessian: Literal["ggn", "exact", "fisher", "empirical"] = Field(
        "ggn", description="Curvature: Gauss-Newton, exact (signed), Fisher with drawn labels, or squared gradients"
    )
    gradient_term: bool = Field(False, description="Add the first-order term, which the paper assumes to be zero")
    include_bias: bool = Field(False, description="Prune biases too, and count them")

    def needs(self):
        return (Diagonal(self.hessian), *([Gradient()] if self.gradient_term else []))

    def draw(self, train, generator):
        return drawn(train, CURVATURE_SAMPLES, generator)

    def score(self, model, task, mask):
        from pruneviz.masks import Scores

        curvature = task.statistic(model, Diagonal(self.hessian))
        params = {name: value.detach() for name, value in model.named_parameters()}
        scores = {name: curvature[name] * params[name].square() / 2 for name in mask}
        if self.gradient_term:
            gradient = task.statistic(model, Gradient())
            scores = {name: value - gradient[name] * params[name] for name, value in scores.items()}
        return Scores.of_weights(scores)

"""Layerwise dynamical isometry, Lee et al. 2020."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from pruneviz.basics.citation import Paper
from pruneviz.curvature.statistic import Gradient
from pruneviz.methods.base import Card, Start, WeightMethod

if TYPE_CHECKING:
    from torch import Tensor, nn

    from pruneviz.curvature.statistic import Statistic
    from pruneviz.curvature.task import Task
    from pruneviz.units.masks import Mask, Scores

ORDER = 90


class Isometry(WeightMethod):
    """SNIP's score over all training samples on orthogonal weights; survivors are made isometric again."""

    card = Card(
        key="isometry",
        title="Signal propagation",
        idea="Start with weights that keep every signal's size, and repair that in each layer after pruning.",
        formula=r"s_q = \left| \theta_q \, \frac{\partial L}{\partial \theta_q} \right|, \qquad "
        r"\min_{W_\ell} \left\| (m_\ell \odot W_\ell)^\top (m_\ell \odot W_\ell) - I \right\|_F",
        symbols=(
            (r"\theta_q", "weight q of the orthogonal initialisation"),
            (r"\partial L / \partial \theta_q", "slope of the loss over the training set, with its sign"),
            (r"W_\ell,\ m_\ell", "weight matrix and mask of layer ℓ; a convolution's matrix is [out, in k k]"),
            (r"\odot", "multiplied entry by entry"),
            (r"I", "identity matrix: it leaves every vector as it is"),
            (r"\lVert \cdot \rVert_F", "Frobenius norm: the root of the sum of all squared entries"),
        ),
        criterion="connection sensitivity",
        starts=Start.INIT,
        paper=Paper(
            "lee2020signal",
            "Namhoon Lee, Thalaiyasingam Ajanthan, Stephen Gould, Philip H. S. Torr",
            "A Signal Propagation Perspective for Pruning Neural Networks at Initialization",
            2020,
            "International Conference on Learning Representations",
            "https://arxiv.org/abs/1906.06307",
            "sections 4 and 5",
        ),
        steps=(
            "Initialise each layer orthogonally, so that all singular values of its matrix are 1.",
            "Sum the gradient over the training set and multiply each weight by it.",
            "Keep the weights with the largest products over the whole network, once.",
            "Move the survivors of each layer, without any data, until its singular values are as near 1 as the mask allows.",
            "Train what is left as usual.",
        ),
        departures=(
            "init=variance-scaling scores and trains the Glorot weights that the other methods start from.",
            "repair=false leaves the survivors as they are: the paper's control.",
            "norm=true minimises the norm and not its square, as the authors' code does; the minimum is at the same place.",
            "steps=10000 is the authors' budget, of gradient descent; conjugate gradients with exact line search settle earlier.",
            "init=delta-orthogonal starts convolutions with zeros but at the kernel's centre (Xiao et al. 2018): all those zeros "
            "score 0, leave first and cannot be repaired. The authors' code takes a kernel without zeros, as init=orthogonal does.",
        ),
        colour="#8f9474",
        mark="star-diamond",
    )  # fmt: skip
    init: Literal["orthogonal", "delta-orthogonal", "variance-scaling"] = Field(
        "orthogonal",
        description="Weights that are scored and trained: orthogonal, for convolutions at the centre only, or Glorot's",
    )
    repair: bool = Field(True, description="Make the surviving weights of each layer isometric again")
    steps: int = Field(1000, ge=1, le=100_000, description="Most steps of the repair in each layer")
    tolerance: float = Field(
        1e-3, ge=0, lt=1, description="The repair stops where 50 steps change its objective by less than this share"
    )
    norm: bool = Field(False, description="Minimise the norm itself, not its square")

    def needs(self) -> tuple[Statistic, ...]:
        return (Gradient("eval"),)

    def prepare(self, model: nn.Module, task: Task) -> nn.Module:
        if self.init == "variance-scaling":
            return model
        from copy import deepcopy

        from pruneviz.models._torch.initialisation import orthogonal_

        kernel = "delta" if self.init == "delta-orthogonal" else "matrix"
        return orthogonal_(deepcopy(model), task.generator, kernel=kernel)

    def score(self, model: nn.Module, task: Task, mask: Mask) -> Scores:
        from pruneviz.door.parameters import named
        from pruneviz.units.masks import Scores

        gradient = task.statistic(model, Gradient("eval"))
        params = named(model)
        return Scores.of_weights({name: (params[name].detach() * gradient[name]).abs() for name in mask})

    def repaired(self, model: nn.Module, task: Task, scores: Scores, mask: Mask) -> dict[str, Tensor]:
        if not self.repair:
            return {}
        from pruneviz.units.isometry import isometric

        return isometric(model, mask, steps=self.steps, tolerance=self.tolerance, norm=self.norm)[0]

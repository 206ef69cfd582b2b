"""EigenDamage: directions of the Kronecker eigenbasis, Wang et al. 2019."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from pydantic import Field

from pruneviz.methods._kronecker import WANG, KroneckerMethod
from pruneviz.methods.base import Card, Start, Unit
from pruneviz.statistic import Diagonal

ORDER = 62
_DIAGONAL: dict[str, Literal["fisher", "ggn", "empirical"]] = {
    "sampled": "fisher", "exact": "ggn", "empirical": "empirical"
}  # fmt: skip


class EigenDamage(KroneckerMethod):
    """The rise of the loss when a direction of a layer's inputs or outputs is cut, in the basis where directions do not mix."""

    card = Card(
        key="eigendamage",
        title="EigenDamage",
        idea="Turn each layer into the basis in which its curvature is simplest, and remove directions there instead of filters.",
        formula=r"W' = Q_S^\top W Q_A, \qquad \Theta = \tfrac12\, W'^{\,2} \odot \lambda_S \lambda_A^\top, \qquad "
        r"s^{\text{out}}_i = \sum_j \Theta_{ij}, \; s^{\text{in}}_j = \sum_i \Theta_{ij}",
        symbols=(
            (r"W'", "the layer's weights in the eigenbasis: its core"),
            (r"Q_A, Q_S", "eigenvectors of A (what comes in) and S (slopes that come back): the two rotations"),
            (r"\lambda_A, \lambda_S", "their eigenvalues"),
            (r"\Theta", "rise of the loss by each entry of the core: the importance"),
            (r"\odot", "multiplied entry by entry"),
            (r"s^{\text{out}}_i,\ s^{\text{in}}_j", "scores of direction i of the outputs and of direction j of the inputs"),
        ),
        criterion="loss rise, direction cut",
        starts=Start.TRAINED,
        unit=Unit.EIGENBASIS,
        predicts=True,
        schema=2,  # labels are drawn by the seed alone
        paper=replace(WANG, section="section 4"),
        steps=(
            "Train the network.",
            "Measure how inputs and slopes of each layer vary together: the Kronecker factors A and S.",
            "Turn each layer into their eigenbasis: a rotation, the core, a rotation back. Its function stays the same.",
            "Score each direction by the rise of the loss that cutting it causes, and cut the lowest of all layers together.",
            "Train again, the rotations too. A layer that three pieces would make larger is left whole.",
        ),
        departures=(
            "count=core leaves the rotations out of the count, as the paper's tables do; they are real weights and take real time.",
            "basis=patches turns whole patches: a better basis, and larger rotations.",
            "eigenvalues=corrected measures the curvature along each direction, which the authors' code has and never calls.",
            "The authors' rotation changes the function of convolutions that have biases and padding; this one does not.",
            "The last layer is left out, and at most 95% of a side leaves, as in the authors' code.",
            "damping enters inverses only, and this score inverts nothing.",
        ),
    )  # fmt: skip
    eigenvalues: Literal["product", "corrected"] = Field(
        "product", description="Curvature by the eigenvalues' product, or measured along each direction"
    )
    basis: Literal["channels", "patches"] = Field(
        "channels", description="Of a convolution's input: directions of channels, or of whole patches"
    )
    count: Literal["compacted", "core"] = Field(
        "compacted", description="Sparsity counts what is really left, rotations included, or the cores alone"
    )

    def frame(self, model, task):
        from pruneviz.rotation import rotated, wrap_

        factors, layers = self.factors(model, task), rotated(model)
        if not layers:
            named = list(self._sized(model, task))
            wrap_(model, dict.fromkeys(named, self.basis))
            layers = rotated(model)
            factors = {f"{name}.core": factors[name] for name in named}
        for name, layer in layers.items():
            layer.turn_(factors[f"{name}.core"])
        return model

    def full(self, model, task):
        from pruneviz.masks import Mask
        from pruneviz.rotation import Directions, rotated

        return Directions(model, self.count).full() if rotated(model) else Mask.full(model, self.prunable(model))

    def score(self, model, task, mask):
        from copy import deepcopy

        from pruneviz.masks import Scores
        from pruneviz.rotation import Directions, rotated

        if mask.layout is None:  # a network as it was trained
            model = self.frame(deepcopy(model), task)
            mask = Directions(model, self.count).full()
        values, thetas = {}, {}
        curvature = task.statistic(model, Diagonal(_DIAGONAL[self.fisher])) if self.eigenvalues == "corrected" else None
        for name, layer in rotated(model).items():
            W = layer.core.weight.detach()
            parts = W.reshape(layer.groups, -1, *W.shape[1:])  # [g, out, in, k, k]
            if curvature is None:
                each = layer.outputs[:, None] * layer.inputs
                theta = parts.flatten(3).square().sum(3) * each if W.dim() > 2 else parts.square() * each
            else:
                theta = (W.square() * curvature[f"{name}.core.weight"]).reshape(parts.shape)
                theta = theta.flatten(3).sum(3) if W.dim() > 2 else theta
            thetas[name] = theta.sum(0) / 2
        for group in mask.units:
            values[group] = thetas[group.layer].sum(1 if group.name.endswith(" out") else 0)
        return Scores(values, thetas)

    def choose(self, model, task, scores, mask, target):
        from pruneviz.rotation import Directions
        from pruneviz.structured import select_units

        found = select_units(scores.values, mask, target)
        assert isinstance(mask.layout, Directions)
        return found if self.count == "core" else mask.keeping(mask.layout.paying(found.units))

    def _sized(self, model, task) -> list[str]:
        """Layers in forward order, but the last."""
        from pruneviz.channels import trace

        return list(trace(model, next(iter(task.batches()))[0][:1]).writes)[:-1]

"""EigenDamage: directions of the Kronecker eigenbasis, Wang et al. 2019."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from pruneviz.basics.errors import Unsuitable
from pruneviz.curvature.statistic import Diagonal
from pruneviz.methods._kronecker import WANG, KroneckerMethod
from pruneviz.methods.base import Card, Start, Unit

if TYPE_CHECKING:
    from torch import nn

    from pruneviz.curvature.task import Task
    from pruneviz.door.network import Weight
    from pruneviz.units.masks import Mask, Scores

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
        colour="#a90cd0",
        mark="star",
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

    def frame(self, model: nn.Module, task: Task) -> nn.Module:
        from pruneviz.units.directions import rotated, wrap_
        from pruneviz.units.start import whole_units

        layers = rotated(model)
        sized = [] if layers else self._sized(model, task)
        factors = self.factors(model, task)
        if not layers:
            there, sized = task.alive or {}, [name for name in sized if name in factors]
            alive = {name: there[f"{name}.weight"] for name in sized if f"{name}.weight" in there}
            groups = {name: getattr(model.get_submodule(name), "groups", 1) for name in alive}
            named = [name for name in sized if name not in alive or whole_units(alive[name], groups[name])]
            if sized and not named:
                raise Unsuitable(
                    f"EigenDamage turns each layer into another basis, and {sized[0]!r}, like all others here, has single "
                    "weights that are zero already: turned, they would be alive again. Use Kron-OBD or Kron-OBS."
                )
            wrap_(model, dict.fromkeys(named, self.basis))
            layers = rotated(model)
            factors = {f"{name}.core": factors[name] for name in named}
        for name, layer in layers.items():
            if f"{name}.core" in factors:  # not where the network's code reads the weight itself, once it is turned
                layer.turn_(factors[f"{name}.core"])
        return model

    def full(self, model: nn.Module, task: Task) -> Mask:
        from pruneviz.units.directions import Directions, rotated
        from pruneviz.units.masks import Mask

        if rotated(model):
            return Directions(model, self.count, alive=task.alive, skip=task.skip).full()
        return Mask.full(model, self.prunable(model), alive=task.alive)

    def score(self, model: nn.Module, task: Task, mask: Mask) -> Scores:
        from pruneviz.door.parameters import copied
        from pruneviz.units.directions import Directions, rotated
        from pruneviz.units.masks import Scores

        if mask.layout is None:  # a network as it was trained
            model = self.frame(copied(model), task)
            mask = Directions(model, self.count, alive=task.alive, skip=task.skip).full()
        if not rotated(model):
            return Scores({}, {})
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

    def choose(self, model: nn.Module, task: Task, scores: Scores, mask: Mask, target: float) -> Mask:
        from pruneviz.units.choice import select_units
        from pruneviz.units.directions import Directions

        if not isinstance(mask.layout, Directions):  # nothing is turned
            if target == 0:
                return mask
            raise Unsuitable(
                f"Asked for sparsity {target:g}, and EigenDamage finds no layer that it can turn here: the last layer is left "
                "out, because its outputs are the answer, and so are layers whose weight is used in several places or whose "
                "basis would be too large. Use a method that removes single weights, e.g. magnitude or OBD."
            )
        found = select_units(scores.values, mask, target, seed=task.seed)
        return found if self.count == "core" else mask.keeping(mask.layout.paying(found.units))

    def turns(self, weight: Weight, task: Task) -> bool:
        """Whether a layer has factors, and was not to be left alone."""
        from pruneviz.units.weights import skips

        return not self.whole(weight) and not skips(task.skip, weight)

    def foretell(self, model: nn.Module) -> str:
        large = self._large(model)
        return f"left in one piece, since three would be larger: {', '.join(large)}" if large else ""

    def _sized(self, model: nn.Module, task: Task) -> list[str]:
        """Layers that can be turned, in forward order: not the last, none whose weight has other readers, none too large.

        Raises Unsuitable where the cores are to be counted and one is too large.
        """
        from pruneviz.curvature.layers import layer_called
        from pruneviz.units.channels import trace
        from pruneviz.units.directions import sides

        found = trace(model, task.sample(model))
        once = {
            w.layer for w in task.network(model).weights.values() if w.factors and w.uses == 1 and not w.shared_with
        }
        left = {w.layer for w in task.network(model).weights.values() if not self.turns(w, task)}
        named = [n for n in list(found.writes)[:-1] if n not in left and (n not in found.shared or n in once)]
        large = [name for name in self._large(model) if name in named]
        if large and self.count == "core":
            layer = layer_called(large[0], model)
            side = max(sides(layer, self.basis))
            size = side**2 * layer.weight.element_size() / 1e9
            raise Unsuitable(
                f"EigenDamage with count=core would turn layer {large[0]!r} into a basis of {side:,} x {side:,} numbers "
                f"({size:.1f} GB, and several times as much while it is found). Use count=compacted, which leaves this layer "
                "in one piece, or Kron-OBD."
            )
        return [name for name in named if name not in large]

    def _large(self, model: nn.Module) -> list[str]:
        from pruneviz.door.parameters import Layer
        from pruneviz.units.directions import too_large

        layers = {name: m for name, m in model.named_modules() if isinstance(m, Layer)}
        return [name for name, layer in layers.items() if too_large(layer, self.basis)]

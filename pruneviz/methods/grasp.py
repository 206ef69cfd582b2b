"""GraSP, Wang et al. 2020."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from pruneviz.basics.citation import Paper
from pruneviz.basics.errors import Unsuitable
from pruneviz.curvature.statistic import HessianGradient
from pruneviz.methods.base import Card, Start, WeightMethod

if TYPE_CHECKING:
    from collections.abc import Iterable

    import torch
    from torch import Tensor, nn

    from pruneviz.curvature.statistic import Statistic
    from pruneviz.curvature.task import Batch, Part, Task
    from pruneviz.units.masks import Mask, Scores


ORDER = 80


class Grasp(WeightMethod):
    """weight x (Hessian x gradient) before training, signed: what removal would do to the gradient's length."""

    card = Card(
        key="grasp",
        title="GraSP",
        idea="Before any training, keep the connections without which the gradient would be shorter and learning slower.",
        formula=r"s_q = \theta_q \, (H g)_q",
        symbols=(
            (r"\theta_q", "initial weight q"),
            (r"g", "gradient of the loss with respect to the weights, logits divided by the temperature"),
            (r"H", "Hessian of the same loss; H g is how the gradient changes along itself"),
        ),
        criterion="gradient flow",
        starts=Start.INIT,
        positive=False,
        paper=Paper(
            "wang2020picking",
            "Chaoqi Wang, Guodong Zhang, Roger Grosse",
            "Picking Winning Tickets Before Training by Preserving Gradient Flow",
            2020,
            "International Conference on Learning Representations",
            "https://arxiv.org/abs/2002.07376",
            "section 4, equations 6 to 8, and algorithm 2",
        ),
        steps=(
            "Initialise the network and draw 10 samples of each class.",
            "Divide the logits by 200, take the gradient g of the loss, and multiply it by the Hessian.",
            "Multiply H g by the weights. To first order, removing weight q changes the squared length of g by -2 times "
            "its score. With H = I the score would be weight times gradient: SNIP without the absolute value.",
            "Keep the weights with the largest scores over the whole network, once, and train what is left as usual.",
        ),
        departures=(
            "bn_mode=train scores with the samples' own normalisation statistics, as the authors' code does.",
            "split=by-class takes gradients and products on two halves of the samples sorted by class and adds them, as "
            "the authors' code does: with normalisation in inference mode the same mask.",
            "reinit_classifier=true redraws the last dense layer of the copy that is scored, as the authors' code does.",
            "Exactly the asked number of weights is removed; the authors' code keeps one more.",
            "A single output is a probability: its log-odds are divided. Squared error has no logits and no temperature.",
        ),
        colour="#476a60",
        mark="hexagram",
    )  # fmt: skip
    temperature: float = Field(200.0, gt=0, le=1e6, description="Divide the logits by this")
    per_class: int = Field(
        10, ge=1, le=10_000, description="Samples of each class to score on, or as many as the smallest class has"
    )
    split: Literal["none", "by-class"] = Field("none", description="Add up two halves of the samples, sorted by class")
    reinit_classifier: bool = Field(False, description="Redraw the last dense layer of the copy that is scored")
    bn_mode: Literal["eval", "train"] = Field("eval", description="Mode of normalisation and dropout while scoring")

    def draw(self, train: Part, generator: torch.Generator) -> Iterable[Batch]:
        import torch

        x, y = train
        order = torch.randperm(len(x), generator=generator).to(y.device)
        each = min(
            self.per_class, int(y.unique(return_counts=True)[1].min())
        )  # of each class, whatever the smallest has
        chosen = []
        for label in y.unique().tolist():
            chosen.append(order[y[order] == label][:each])
        every = torch.cat(chosen)  # class by class
        # batch statistics are those of all samples; without them smaller batches give the same sums in less memory
        parts = every.split(len(every) if self.bn_mode == "train" else 100)
        return [(x[part], y[part]) for part in parts]

    def needs(self) -> tuple[Statistic, ...]:
        # dropout, in training mode, is drawn within score
        plain = self.split == "none" and not self.reinit_classifier and self.bn_mode == "eval"
        return (HessianGradient(self.temperature, checked=True),) if plain else ()

    def score(self, model: nn.Module, task: Task, mask: Mask) -> Scores:
        from pruneviz.door.parameters import named
        from pruneviz.units.masks import Scores

        if self.reinit_classifier:
            model = _redrawn(model, mask, task.generator)
        params = named(model)
        from pruneviz.curvature.hvp import weights_of

        usual = set(mask) == set(weights_of(task.network(model)))
        if self.needs() and usual and all(bool(keep.all()) for keep in mask.values()):
            product = task.statistic(model, *self.needs())
        else:
            product = self._masked(model, task, mask)
        # halves are added, not averaged: twice the gradient, twice the Hessian
        times = 4 if self.split == "by-class" else 1
        return Scores.of_weights({name: times * params[name].detach() * product[name] for name in mask})

    def _masked(self, model: nn.Module, task: Task, mask: Mask) -> dict[str, Tensor]:
        """The same product over what the mask keeps, or on halves of the samples."""
        from pruneviz.curvature.hvp import hessian_gradient
        from pruneviz.door.loss import tempered

        batches = list(task.batches())
        if self.split == "by-class":
            batches = _halves(batches)
        loss = tempered(task.loss, self.temperature)
        return hessian_gradient(
            model, batches, loss, names=list(mask), mode=self.bn_mode, within=mask, checked=True, seed=task.seed
        )


def _halves(batches: list[Batch]) -> list[Batch]:
    """All samples sorted by class, the first half and the second."""
    import torch

    from pruneviz.door.samples import joined

    x, y = joined([x for x, _ in batches]), torch.cat([y for _, y in batches])
    if y.dim() > 2 or (y.dim() == 2 and not y.is_floating_point()):
        raise Unsuitable(
            f"split=by-class sorts samples by their class, and these have {y[0].numel()} targets each. Leave split at none."
        )
    label = y if y.dim() == 1 else y.argmax(1)
    order = label.argsort(stable=True)
    return [(x[part], y[part]) for part in (order[: len(y) // 2], order[len(y) // 2 :]) if len(part)]


def _redrawn(model: nn.Module, mask: Mask, generator: torch.Generator) -> nn.Module:
    """A copy with fresh Glorot normal weights in its last dense layer, pruned ones zero as before."""
    import torch
    from torch import nn

    from pruneviz.door.parameters import copied

    copy = copied(model)
    dense = [module for module in copy.modules() if isinstance(module, nn.Linear)]
    if not dense:
        raise Unsuitable(
            "reinit_classifier=true redraws the last dense layer, and this network has none. Leave it false."
        )
    with torch.no_grad():
        fresh = torch.empty(dense[-1].weight.shape, dtype=torch.float32)  # drawn as initial weights are
        dense[-1].weight.copy_(nn.init.xavier_normal_(fresh, generator=generator))
    mask.apply_(copy)
    return copy

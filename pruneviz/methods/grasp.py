"""GraSP, Wang et al. 2020."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from pruneviz.citation import Paper
from pruneviz.errors import Unsuitable
from pruneviz.methods.base import Card, Method, Start
from pruneviz.statistic import HessianGradient

if TYPE_CHECKING:
    import torch
    from torch import nn

    from pruneviz.masks import Mask
    from pruneviz.task import Batch

ORDER = 80


class Grasp(Method):
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
    )  # fmt: skip
    temperature: float = Field(200.0, gt=0, le=1e6, description="Divide the logits by this")
    per_class: int = Field(
        10, ge=1, le=10_000, description="Samples of each class to score on, or as many as the smallest class has"
    )
    split: Literal["none", "by-class"] = Field("none", description="Add up two halves of the samples, sorted by class")
    reinit_classifier: bool = Field(False, description="Redraw the last dense layer of the copy that is scored")
    bn_mode: Literal["eval", "train"] = Field("eval", description="Mode of normalisation and dropout while scoring")

    def draw(self, train, generator):
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

    def needs(self):
        # dropout, in training mode, is drawn within score
        plain = self.split == "none" and not self.reinit_classifier and self.bn_mode == "eval"
        return (HessianGradient(self.temperature, checked=True),) if plain else ()

    def score(self, model, task, mask):
        from pruneviz.masks import Scores

        if self.reinit_classifier:
            model = _redrawn(model, mask, task.generator)
        params = dict(model.named_parameters())
        if self.needs() and all(bool(keep.all()) for keep in mask.values()):
            product = task.statistic(model, *self.needs())
        else:
            with _repeatable(task.generator):
                product = self._masked(model, task, mask)
        # halves are added, not averaged: twice the gradient, twice the Hessian
        times = 4 if self.split == "by-class" else 1
        return Scores.of_weights({name: times * params[name].detach() * product[name] for name in mask})

    def _masked(self, model, task, mask):
        """The same product over what the mask keeps, or on halves of the samples."""
        from pruneviz.curvature.hvp import hessian_gradient
        from pruneviz.loss import tempered

        batches = list(task.batches())
        if self.split == "by-class":
            batches = _halves(batches)
        loss = tempered(task.loss, self.temperature)
        return hessian_gradient(model, batches, loss, names=list(mask), mode=self.bn_mode, within=mask, checked=True)


def _halves(batches: list[Batch]) -> list[Batch]:
    """All samples sorted by class, the first half and the second."""
    import torch

    x, y = (torch.cat(parts) for parts in zip(*batches, strict=True))
    label = y if y.dim() == 1 else y.argmax(1)
    order = label.argsort(stable=True)
    return [(x[part], y[part]) for part in (order[: len(y) // 2], order[len(y) // 2 :]) if len(part)]


def _redrawn(model: nn.Module, mask: Mask, generator: torch.Generator) -> nn.Module:
    """A copy with fresh Glorot normal weights in its last dense layer, pruned ones zero as before."""
    from copy import deepcopy

    import torch
    from torch import nn

    copy = deepcopy(model)
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


@contextmanager
def _repeatable(generator: torch.Generator) -> Iterator[None]:
    """Dropout draws from torch's global generators: seeded from the task's here, as they were afterwards."""
    import torch

    seed = int(torch.randint(2**31, (), generator=generator))
    device = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=device):
        torch.default_generator.manual_seed(seed)
        if device:
            torch.cuda.manual_seed(seed)
        yield

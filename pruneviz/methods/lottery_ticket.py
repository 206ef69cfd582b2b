"""The lottery ticket hypothesis, Frankle & Carbin 2019."""

from __future__ import annotations

from math import log
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from pruneviz.basics.citation import Paper
from pruneviz.methods.base import Card, Scope, Start, Survivors, WeightMethod

if TYPE_CHECKING:
    from torch import Tensor, nn

    from pruneviz.curvature.task import Task
    from pruneviz.units.masks import Mask, Scores

ORDER = 30
RATE = 0.2  # the share of a hidden layer's weights that leaves in one of the paper's rounds


class LotteryTicket(WeightMethod):
    """Per layer the smallest weights leave, survivors go back to their initial values, in rounds."""

    slopes = False
    card = Card(
        key="lottery-ticket",
        title="Lottery ticket",
        idea="Inside a network sits a small one that would have trained as well alone, from the same initial weights.",
        formula=r"m \leftarrow m \odot [\,|\theta^*| > \tau_\ell\,], \qquad \theta \leftarrow m \odot \theta_0",
        symbols=(
            (r"\theta_0,\ \theta^*", "weights before and after training"),
            (r"m", "mask: 1 keeps a weight, 0 removes it"),
            (r"\odot", "multiplied entry by entry"),
            (r"\tau_\ell", "threshold of layer ℓ: the lowest 20% of its survivors lie below (10% in the last layer)"),
        ),
        criterion="weight size",
        starts=Start.TRAINED,
        survivors=Survivors.REWIND,
        rounds=RATE,
        scope=Scope.LAYER,
        paper=Paper(
            "frankle2019lottery",
            "Jonathan Frankle, Michael Carbin",
            "The Lottery Ticket Hypothesis: Finding Sparse, Trainable Neural Networks",
            2019,
            "International Conference on Learning Representations",
            "https://arxiv.org/abs/1803.03635",
            "section 2 and appendix G",
        ),
        steps=(
            "Keep a copy of the initial weights, then train.",
            "In each layer remove the 20% of surviving weights that ended smallest (10% in the last layer).",
            "Set the survivors back to their initial values and train again.",
            "Repeat until the network is as sparse as you like.",
        ),
        departures=(
            "survivors=reinit draws new initial weights: the paper's control, which loses the advantage.",
            "survivors=reinit-sign draws new sizes but keeps each weight's initial sign.",
            "rewind_step=k goes back to the weights after k steps instead of 0 (late rewinding, needed for deep networks).",
            "scope=global ranks all layers together, as the paper does for deep networks.",
        ),
        colour="#4c9230",
        mark="diamond",
    )
    criterion: Literal["final", "increase", "movement", "initial", "random"] = Field(
        "final", description="Rank |w| after training, its increase, its movement, |w| before training, or at random"
    )
    output_rate: float = Field(
        0.5, ge=0, le=1, description="The last layer's pruning rate as a share of the other layers'"
    )

    def score(self, model: nn.Module, task: Task, mask: Mask) -> Scores:
        import torch

        from pruneviz.door.parameters import named
        from pruneviz.units.masks import Scores

        def initial(name: str) -> Tensor:
            return task.initial_value(name, method="lottery-ticket", why=f"criterion={self.criterion}")

        def ranked(name: str, final: Tensor) -> Tensor:
            match self.criterion:
                case "final":
                    return final.abs()
                case "increase":
                    return final.abs() - initial(name).abs()
                case "movement":
                    return (final - initial(name)).abs()
                case "initial":
                    return initial(name).abs()
                case "random":
                    return torch.rand(final.shape, generator=task.generator, dtype=torch.float64).to(final)

        params = named(model)
        return Scores.of_weights({name: ranked(name, params[name].detach()) for name in mask})

    def choose(self, model: nn.Module, task: Task, scores: Scores, mask: Mask, target: float) -> Mask:
        if task.scope == "global":
            return super().choose(model, task, scores, mask, target)
        from pruneviz.units.choice import apportion, count, must_shrink, remove_lowest
        from pruneviz.units.masks import Mask

        names = list(mask)
        sizes = [mask[name].numel() for name in names]
        gone = [int((~mask[name]).sum()) for name in names]
        must_shrink(target, sum(gone), sum(sizes))
        shares = removed_shares(sizes, count(target, sum(sizes)) / sum(sizes), self.output_rate)
        counts = apportion(count(target, sum(sizes)), shares, gone, sizes)
        values = {group.name: value for group, value in scores.values.items()}

        def kept(name: str, more: int) -> Tensor:
            found = remove_lowest(values[name], mask[name].flatten(), more, name=name, seed=task.seed)
            return found.view(mask[name].shape)

        return Mask({name: kept(name, n - g) for name, n, g in zip(names, counts, gone, strict=True)})


def removed_shares(sizes: list[int], target: float, output_rate: float) -> list[float]:
    """Weights to remove from each layer so that ``target`` of all are gone and the last layer fell at ``output_rate`` times the rate.

    After n rounds hidden layers keep (1 - p)^n and the last (1 - r p)^n, so that kept_out = kept_hidden ** e with
    e = log(1 - r p) / log(1 - p), p = 0.2; kept_hidden is found by bisection (Frankle & Carbin 2019, appendix G).
    """
    exponent = log(1 - output_rate * RATE) / log(1 - RATE)
    hidden, last, wanted = sum(sizes[:-1]), sizes[-1], (1 - target) * sum(sizes)
    if not hidden:
        return [target * last]
    low, high = 0.0, 1.0
    for _ in range(200):
        kept = (low + high) / 2
        low, high = (kept, high) if kept * hidden + kept**exponent * last < wanted else (low, kept)
    return [(1 - high) * size for size in sizes[:-1]] + [(1 - high**exponent) * last]

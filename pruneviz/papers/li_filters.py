"""Li et al.'s filter counts, exactly; and what half the operations take off the clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from pruneviz.methods import METHODS
from pruneviz.papers.base import Claim, Reproduction, Result, Say, Table

COMMAND = "python -m pruneviz papers li-filters"


@dataclass(frozen=True)
class Plan:
    """Shares of filters that leave in each stage, and convolutions left whole, as the paper numbers them."""

    network: str
    per_stage: Mapping[int, float]
    skip: tuple[int, ...]
    parameters: tuple[int, int]  # weights and biases of Conv2d and Linear, before and after
    reduction: tuple[float, float]  # the paper's: of parameters, of FLOPs


# After: the paper's table where it prints the count; for ResNet-56 it follows from kept = int(n (1 - ratio)).
PLANS = {
    "vgg-16-a": Plan("vgg-16", {1: 0.5, 4: 0.5, 5: 0.5}, (2,), (14_982_474, 5_393_354), (0.640, 0.342)),
    "resnet-56-a": Plan("resnet-56", {1: 0.1, 2: 0.1, 3: 0.1}, (16, 20, 38, 54), (848_954, 769_466), (0.094, 0.104)),
    "resnet-56-b": Plan(
        "resnet-56", {1: 0.6, 2: 0.3, 3: 0.1}, (16, 18, 20, 34, 38, 54), (848_954, 732_026), (0.137, 0.276)
    ),
}
SHAPE, CLASSES = (3, 32, 32), 10
LATENCY = ("vgg-16", "resnet-20")


def pruned(plan: Plan) -> Any:
    """The untrained network with the plan's filters removed: counts do not depend on the weights."""
    import torch

    import pruneviz as pv
    from pruneviz.basics.errors import Unreachable

    model = pv.build(plan.network, shape=SHAPE, classes=CLASSES)
    x, y = torch.zeros(2, *SHAPE), torch.zeros(2, dtype=torch.long)
    params = {"per_stage": plan.per_stage, "skip": plan.skip}
    try:
        return pv.prune(model, x, y, method="l1-filters", sparsity=0.9999, **params)
    except Unreachable as beyond:  # the ratios themselves are the most that may leave
        return pv.prune(model, x, y, method="l1-filters", sparsity=beyond.most, **params)


def halved(network: str) -> Any:
    """The network with the same share of filters removed in every layer, so that at most half of its FLOPs are left; where
    shared channels forbid that, as far as inner convolutions go."""
    import torch

    import pruneviz as pv
    from pruneviz.basics.errors import Unreachable

    model = pv.build(network, shape=SHAPE, classes=CLASSES)
    x, y = torch.zeros(2, *SHAPE), torch.zeros(2, dtype=torch.long)
    dense = pv.prune(model, x, y, method="l1-filters", sparsity=0.0)
    low, high, best = 0.0, 1.0, dense
    for _ in range(12):  # the smallest sparsity at which half of the FLOPs are gone
        middle = (low + high) / 2
        try:
            found = pv.prune(model, x, y, method="l1-filters", sparsity=middle)
        except Unreachable as beyond:
            high = min(beyond.most, high)
            if middle > beyond.most:
                best = pv.prune(model, x, y, method="l1-filters", sparsity=beyond.most)
            continue
        if found.report["flops"] > dense.report["flops"] / 2:
            low = middle
        else:
            high, best = middle, found
    return best


def run(full: bool, say: Say) -> Result:
    """Counts, then latency with half of the FLOPs removed. There is nothing to train, so both budgets are the same."""
    import pruneviz as pv
    from pruneviz.run.loop import default_device

    claims, rows, times = [], [], []
    for key, plan in PLANS.items():
        say(f"{key}: removing filters")
        found = pv.compact(pruned(plan))
        before, after = found.before, found.after
        names = f"{key.upper()}: "
        for what, ours, paper in (
            ("parameters-before", before.weights_and_biases, plan.parameters[0]),
            ("parameters-after", after.weights_and_biases, plan.parameters[1]),
        ):
            text = f"{names}weights and biases {what.split('-')[1]} pruning"
            verdict = "holds" if ours == paper else "does not hold"
            claims.append(Claim(f"{key}-{what}", text, ours, paper, verdict=verdict, command=COMMAND))
        for what, ours, paper in (
            ("parameters", 1 - after.weights_and_biases / before.weights_and_biases, plan.reduction[0]),
            ("flops", 1 - after.operations / before.operations, plan.reduction[1]),
        ):
            verdict = "holds" if abs(ours - paper) <= 0.0011 else "does not hold"
            text = f"{names}share of {'FLOPs' if what == 'flops' else what} removed"
            claims.append(Claim(f"{key}-{what}-share", text, round(ours, 5), paper, verdict=verdict, command=COMMAND))
        rows.append((key.upper(), before.weights_and_biases, after.weights_and_biases, before.flops, after.flops))
    for network in LATENCY:
        say(f"{network}: latency with half of the FLOPs removed")
        found = pv.compact(halved(network))
        share = 1 - found.after.operations / found.before.operations
        again = [pv.compact(halved(network)).speedup[256] for _ in range(4)]  # each a median of passes in turns
        falls = [1 - 1 / speedup for speedup in (found.speedup[256], *again)]
        times.append((network, round(100 * share, 1), *(round(found.speedup[batch], 2) for batch in (1, 256))))
        if network == "vgg-16":
            text = "VGG-16 with half of the FLOPs removed by one ratio: latency of 256 samples falls by at least a third (median share)"
            claims.append(Claim.over("vgg-16-latency", text, falls, holds=median(falls) >= 1 / 3, command=COMMAND))
    return Result(
        tuple(claims),
        (
            Table(
                "counts",
                "Weights and biases of convolutions and dense layers, and FLOPs of one image (a multiply-add is two)",
                ("network", "before", "after", "FLOPs before", "FLOPs after"),
                tuple(rows),
                "Images of 3 x 32 x 32, 10 classes. The paper counts a multiply-add once.",
            ),
            Table(
                "latency",
                "How much faster it really gets, one ratio for all layers",
                ("network", "FLOPs removed (%)", "faster with 1 image (times)", "faster with 256 images (times)"),
                tuple(times),
                "Medians, dense and pruned in turns. ResNet-20's shortcuts keep their channels: only the convolutions inside its "
                "blocks lose filters.",
            ),
        ),
        str(default_device()),
    )


PAPER = Reproduction(
    "li-filters",
    "Removing filters: counts and clock",
    "Do the networks shrink to the sizes that the paper prints, and do fewer operations take less time?",
    METHODS["l1-filters"].paper,
    ("cifar-10",),
    (2, 2),
    run,
)

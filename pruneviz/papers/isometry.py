"""Signal propagation in sparse networks, Lee et al. 2020: what pruning does to singular values, and what repairing them gains.

A tanh network of seven layers starts orthogonal on MNIST and is pruned at once by the paper's score. Its survivors stay as they
are, or each layer is only scaled so that its mean singular value is 1 (a control that the paper does not have), or they are made
isometric again without data. Then each network is trained for a few steps, from the same weights in the same order of samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median
from typing import TYPE_CHECKING, Any

from pruneviz.methods import METHODS
from pruneviz.papers.base import Claim, Reproduction, Result, Say, Table, Verdict

if TYPE_CHECKING:
    from torch import nn

    from pruneviz.datasets.base import Splits
    from pruneviz.units.masks import Mask

DATA, MODEL = "mnist", "mlp-7x100"
SPARSITIES = (0.9, 0.95)
WIDER = (0.5, 0.8, 0.9, 0.95, 0.98)
SEEDS = (5, 20)  # quick, full
ENOUGH = 5  # seeds below which a claim stays open
STEPS, BATCH, LR = 200, 275, 1.2e-3  # of Adam; 200 x 275 samples are MNIST's training set once
SAMPLES = 16  # for the layers' Jacobians
REPAIRS = ("none", "rescale", "isometry")
FALL, RESTORED = 0.2, 0.7
COMMAND = "python -m pruneviz papers isometry"

Row = dict[str, Any]


def measure(
    seeds: Sequence[int],
    sparsities: Sequence[float],
    steps: int,
    progress: Say,
    repairs: Sequence[str] = REPAIRS,
) -> list[Row]:
    """A row for each seed, sparsity and repair, and one for each seed before pruning (sparsity 0, repair "none").

    ``mean_singular_value`` and ``spread`` (mean abs(value - 1)) are of the layers' Jacobians, averaged over layers;
    ``end_mean`` of the Jacobian from input to outputs; all three before training. ``accuracy`` is on test samples after
    ``steps``, of which there are at most 200. Repairs: "none", "rescale", "isometry", and "norm", the authors' objective.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the steps are too small for two
    try:
        return [row for seed in seeds for row in _of_seed(seed, sparsities, steps, progress, repairs)]
    finally:
        torch.set_num_threads(threads)


def _of_seed(
    seed: int, sparsities: Sequence[float], steps: int, progress: Say, repairs: Sequence[str]
) -> Iterator[Row]:
    from pruneviz.curvature.task import Task, generator_for
    from pruneviz.datasets import load
    from pruneviz.methods import method_class
    from pruneviz.models import build
    from pruneviz.units.masks import Mask

    data = load(DATA)
    method = method_class("isometry")()
    batches = list(method.draw(data.train, generator_for(seed, "score")))
    task = Task(lambda: batches, generator_for(seed, "score"))
    model = method.prepare(build(MODEL, data, seed=seed), task)
    full = Mask.full(model, method.prunable(model))
    yield {"seed": seed, "sparsity": 0.0, "repair": "none", **_followed(model, full, "none", data, seed, steps)}
    scores = method.score(model, task, full)
    for sparsity in sparsities:
        mask = method.choose(model, task, scores, full, sparsity)
        for repair in repairs:
            found = _followed(model, mask, repair, data, seed, steps)
            progress(
                f"seed {seed}, {sparsity:.0%} removed, {repair}: mean singular value {found['mean_singular_value']:.2f}, "
                f"accuracy {found['accuracy']:.3f}"
            )
            yield {"seed": seed, "sparsity": sparsity, "repair": repair, **found}


def _followed(model: nn.Module, mask: Mask, repair: str, data: Splits, seed: int, steps: int) -> dict[str, float]:
    """What one pruned copy is like before training, and after."""
    from copy import deepcopy
    from dataclasses import replace

    import torch

    from pruneviz.curvature.task import generator_for
    from pruneviz.plan.recipe import Training
    from pruneviz.run.probes import jacobians
    from pruneviz.run.training import evaluate, fit
    from pruneviz.units.isometry import isometric, repaired

    model = deepcopy(model)
    values = isometric(model, mask, norm=True, steps=10_000)[0] if repair == "norm" else repaired(repair, model, mask)
    with torch.no_grad():
        for name, value in values.items():
            model.get_parameter(name).copy_(value)
    mask.apply_(model)
    x, y = (part[: steps * BATCH] for part in data.train)
    before = jacobians(model, x[:SAMPLES])
    budget = Training(epochs=1, batch_size=BATCH, lr=LR)
    for _ in fit(model, replace(data, train=(x, y)), budget, generator=generator_for(seed, "training"), mask=mask):
        pass
    return {
        "mean_singular_value": float(before.mean.mean()),
        "spread": float(before.spread.mean()),
        "end_mean": float(before.end_mean[0]) if before.end_mean is not None else float("nan"),
        "accuracy": evaluate(model, *data.test)["accuracy"],
    }


def _by_seed(rows: Sequence[Row], sparsity: float, repair: str, what: str) -> list[float]:
    return [row[what] for row in rows if row["sparsity"] == sparsity and row["repair"] == repair]


def falls(rows: Sequence[Row], sparsity: float) -> list[float]:
    """By how much pruning lowers the mean singular value, seed by seed."""
    dense = _by_seed(rows, 0.0, "none", "mean_singular_value")
    return [a - b for a, b in zip(dense, _by_seed(rows, sparsity, "none", "mean_singular_value"), strict=True)]


def restored(rows: Sequence[Row], sparsity: float, repair: str = "isometry") -> list[float]:
    """What share of that fall a repair makes good, seed by seed."""
    pruned, after = (_by_seed(rows, sparsity, r, "mean_singular_value") for r in ("none", repair))
    return [(b - a) / fall for a, b, fall in zip(pruned, after, falls(rows, sparsity), strict=True)]


def gains(rows: Sequence[Row], sparsity: float, over: str) -> list[float]:
    """By how much the isometric network's accuracy is above another's after the same steps, seed by seed."""
    ours, other = (_by_seed(rows, sparsity, r, "accuracy") for r in ("isometry", over))
    return [a - b for a, b in zip(ours, other, strict=True)]


def _claim(key: str, text: str, found: Sequence[float], least: float) -> Claim:
    """It holds where every seed is at least ``least``, fails where every seed is below, and is open between and with few seeds."""
    low, high = min(found), max(found)
    verdict: Verdict = "open"
    if len(found) >= ENOUGH and (low >= least or high < least):
        verdict = "holds" if low >= least else "does not hold"
    return Claim(key, text, median(found), None, low, high, len(found), verdict, COMMAND)


def claims(rows: Sequence[Row], sparsity: float) -> Iterator[Claim]:
    """What pruning takes, what the repair gives back, and what that is worth in training."""
    at = f"{sparsity * 100:g}"
    yield _claim(
        f"fall-{at}",
        f"Pruning {at}% at initialisation lowers the layers' mean Jacobian singular value (here by at least {FALL:g})",
        falls(rows, sparsity),
        FALL,
    )
    yield _claim(
        f"restored-{at}",
        f"{at}% removed: making the survivors isometric restores it (share of the fall, at least {RESTORED:g})",
        restored(rows, sparsity),
        RESTORED,
    )
    pruned, scaled, whole = (median(_by_seed(rows, sparsity, r, "accuracy")) for r in REPAIRS)
    yield _claim(
        f"training-{at}",
        f"{at}% removed: the repaired network trains faster (test accuracy after {STEPS} steps, less the pruned network's; "
        f"medians {whole:.3f} and {pruned:.3f})",
        gains(rows, sparsity, "none"),
        0.0,
    )
    yield _claim(
        f"control-{at}",
        f"{at}% removed: it trains faster than with layers only scaled to a mean singular value of 1 (again the difference; "
        f"medians {whole:.3f} and {scaled:.3f})",
        gains(rows, sparsity, "rescale"),
        0.0,
    )


def table(rows: Sequence[Row]) -> Table:
    """One row for each sparsity and repair: medians over seeds, and the range of accuracies."""
    names = {"none": "pruned", "rescale": "rescaled", "isometry": "isometric", "norm": "isometric, norm"}
    cells = []
    for sparsity, repair in dict.fromkeys((row["sparsity"], row["repair"]) for row in rows):

        def seen(what: str, sparsity: float = sparsity, repair: str = repair) -> list[float]:
            return _by_seed(rows, sparsity, repair, what)

        middles = [round(median(seen(what)), 3) for what in ("mean_singular_value", "spread", "end_mean")]
        accuracy = [round(f(seen("accuracy")), 4) for f in (median, min, max)]
        cells.append((sparsity, names[repair] if sparsity else "dense", *middles, *accuracy))
    return Table(
        "signal",
        f"Singular values before training, and accuracy after {STEPS} steps",
        ("removed", "network", "mean", "spread", "end to end", "accuracy", "lowest", "highest"),
        tuple(cells),
        f"{MODEL} on MNIST, orthogonal weights, Adam, learning rate {LR:g}, {BATCH} samples a step, last weights. Mean and spread "
        "(mean distance from 1) of the singular values of the layers' Jacobians, each layer with equal weight; end to end: mean of "
        f"the Jacobian from input to outputs; {SAMPLES} training samples. Medians over seeds; accuracy on test samples with its range.",
    )


def run(full: bool, say: Say) -> Result:
    """All seeds; the full budget also has lower and higher sparsities, and the authors' form of the objective."""
    if full:
        rows = measure(range(SEEDS[1]), WIDER, STEPS, say, (*REPAIRS, "norm"))
    else:
        rows = measure(range(SEEDS[0]), SPARSITIES, STEPS, say)
    return Result(tuple(claim for s in SPARSITIES for claim in claims(rows, s)), (table(rows),))


PAPER = Reproduction(
    "isometry",
    "Signal propagation in pruned networks",
    "Does pruning at initialisation weaken signals, and does a network whose survivors are isometric again train faster?",
    METHODS["isometry"].paper,
    (DATA,),
    (1.5, 18),
    run,
)

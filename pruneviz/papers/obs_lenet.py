"""Optimal Brain Surgeon in blocks on LeNet-300-100, MNIST, without retraining; and when Optimal Brain Damage beats |w|."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from pruneviz.methods import METHODS
from pruneviz.papers.base import Claim, Reproduction, Result, Say, Table

COMMAND = "python -m pruneviz papers obs-lenet --full"
SPARSITIES = (0.8, 0.9, 0.95)
BATCH, EPOCHS = 128, (2, 5)  # quick, full
SEEDS = (0, 1, 2)
OBS, OBD, SIZE = "OBS, blocks of 50", "OBD", "|w|"
METHODS_RUN: Mapping[str, tuple[str, dict[str, Any]]] = {
    SIZE: ("magnitude", {"scale": "none"}),
    OBD: ("obd", {}),
    OBS: ("obs", {"blocks": 50}),
}


@dataclass(frozen=True)
class Recipe:
    """How the dense network is trained: pixels from 0 to 1 or normalised, with or without L2 weight decay."""

    normalise: bool
    decay: float

    def __str__(self) -> str:
        decay = f"weight decay {self.decay:g}" if self.decay else "no decay"
        return f"{'normalised' if self.normalise else 'raw'} pixels, {decay}"


RECIPES = tuple(Recipe(normalise, decay) for decay in (0.0, 1e-4) for normalise in (False, True))


def measure(recipes: tuple[Recipe, ...], epochs: int, say: Say) -> list[dict[str, Any]]:
    """A row for each recipe, seed, method and sparsity: test loss and accuracy right after pruning, and the seconds that
    one network took (scores and pruning at all three sparsities)."""
    import pruneviz as pv
    from pruneviz.run.loop import default_device
    from pruneviz.run.training import evaluate

    device = default_device()
    rows = []
    raw = pv.load("mnist")
    for recipe in recipes:
        data = (raw.normalised() if recipe.normalise else raw).to(device)
        for seed in SEEDS:
            say(f"{recipe}, seed {seed}: training for {epochs} epochs")
            model = pv.build("lenet-300-100", data, seed=seed).to(device)
            pv.train(model, data, epochs=epochs, batch_size=BATCH, weight_decay=recipe.decay, seed=seed)
            dense = evaluate(model, *data.test)
            for name in METHODS_RUN:
                say(f"{recipe}, seed {seed}: {name}")
                seconds, found = _pruned(model, data, name, seed)
                rows += [
                    {"recipe": str(recipe), "seed": seed, "method": name, "sparsity": s, "dense_loss": dense["loss"],
                     "dense_accuracy": dense["accuracy"], **after, "seconds": seconds}
                    for s, after in found.items()
                ]  # fmt: skip
    return rows


def _pruned(model: Any, data: Any, name: str, seed: int) -> tuple[float, dict[float, dict[str, float]]]:
    """Seconds for one order of deletions and its three prefixes, and what each left on the test set."""
    from copy import deepcopy

    from pruneviz.curvature.task import Task, generator_for
    from pruneviz.methods import method_class
    from pruneviz.run.step import remove
    from pruneviz.run.training import evaluate
    from pruneviz.units.masks import Mask

    key, params = METHODS_RUN[name]
    method = method_class(key).from_params(params)
    generator = generator_for(seed, "score")
    task = Task(lambda: batches, generator, scope="global")
    batches = list(method.draw(data.train, generator))  # OBD and OBS: the same 1,000 samples
    started = time.perf_counter()
    full = Mask.full(model, method.prunable(model))
    scores = method.score(model, task, full)
    networks = {s: deepcopy(model) for s in SPARSITIES}
    for s, network in networks.items():
        remove(method, network, task, scores, full, s)
    seconds = time.perf_counter() - started
    return seconds, {s: evaluate(network, *data.test) for s, network in networks.items()}


def claims(rows: list[dict[str, Any]]) -> tuple[Claim, ...]:
    """What acceptance asks of the first recipe: OBS below both in every seed and sparsity, near the dense loss, in time."""
    first = [row for row in rows if row["recipe"] == str(RECIPES[0])]
    loss = {(row["method"], row["sparsity"], row["seed"]): row["loss"] for row in first}
    dense = {row["seed"]: row["dense_loss"] for row in first}

    def claim(key: str, text: str, values: list[float], holds: bool) -> Claim:
        return Claim.over(key, text, values, holds=holds, command=COMMAND)

    found = []
    for s in SPARSITIES:
        for other, short in ((OBD, "obd"), (SIZE, "size")):
            gaps = [loss[other, s, seed] - loss[OBS, s, seed] for seed in SEEDS]
            found.append(
                claim(
                    f"obs-below-{short}-{100 * s:.0f}",
                    f"At {100 * s:.0f}% without retraining, {other} has a higher test loss than {OBS}, in every seed (the gap, nats)",
                    gaps,
                    min(gaps) > 0,
                )
            )
    rise = [loss[OBS, 0.9, seed] - dense[seed] for seed in SEEDS]
    found.append(
        claim(
            "obs-rise-90",
            "At 90% the test loss of OBS is at most 0.05 above the dense one, in every seed",
            rise,
            max(rise) <= 0.05,
        )
    )
    seconds = [row["seconds"] for row in first if row["method"] == OBS and row["sparsity"] == SPARSITIES[0]]
    found.append(
        claim(
            "obs-seconds",
            "OBS scores a network and prunes it at three sparsities in at most 10 seconds",
            seconds,
            max(seconds) <= 10,
        )
    )
    return tuple(found)


def tables(rows: list[dict[str, Any]]) -> tuple[Table, ...]:
    """Test loss by recipe, and in how many seeds OBD beats |w|."""
    recipes = list(dict.fromkeys(row["recipe"] for row in rows))
    losses, wins = [], []
    for recipe in recipes:
        for s in SPARSITIES:
            here = [row for row in rows if row["recipe"] == recipe and row["sparsity"] == s]
            by = {m: {row["seed"]: row["loss"] for row in here if row["method"] == m} for m in METHODS_RUN}
            dense = median(row["dense_loss"] for row in here)
            losses.append((recipe, 100 * s, round(dense, 4), *(round(median(by[m].values()), 4) for m in METHODS_RUN)))
            wins.append(
                (
                    recipe,
                    100 * s,
                    sum(by[OBD][seed] < by[SIZE][seed] for seed in SEEDS),
                    len(SEEDS),
                    round(median(by[SIZE][seed] - by[OBD][seed] for seed in SEEDS), 4),
                )
            )
    return (
        Table(
            "loss",
            "Test loss (nats) right after pruning, median over seeds",
            ("recipe", "removed (%)", "dense", *METHODS_RUN),
            tuple(losses),
            "One shot, no training afterwards. OBD and OBS score on the same 1,000 training samples.",
        ),
        Table(
            "recipes",
            "Does OBD beat |w|? It depends on how the network was trained",
            ("recipe", "removed (%)", "OBD lower in", "of seeds", "|w| less OBD (nats, median)"),
            tuple(wins),
            "A recipe is part of the answer: weight decay shrinks the weights that the loss does not need, so that size alone "
            "already tells which may go.",
        ),
    )


def run(full: bool, say: Say) -> Result:
    """Quick: the first recipe, 2 epochs. Full: all four, 5 epochs."""
    from pruneviz.run.loop import default_device

    rows = measure(RECIPES if full else RECIPES[:1], EPOCHS[full], say)
    return Result(claims(rows), tables(rows), str(default_device()))


PAPER = Reproduction(
    "obs-lenet",
    "Removing weights without retraining",
    "On a larger network, does moving the survivors pay, and is half the curvature times the weight squared better than its size?",
    METHODS["obs"].paper,
    ("mnist",),
    (1, 5),
    run,
)

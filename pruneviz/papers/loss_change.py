"""Is the score right? Predicted against measured change of the loss, weight by weight, on trained networks."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median
from typing import TYPE_CHECKING, Any

from pruneviz.methods import METHODS
from pruneviz.papers.base import Claim, Reproduction, Result, Say, Table

if TYPE_CHECKING:
    from torch import nn

    from pruneviz.datasets.base import Splits

COMMAND = "python -m pruneviz papers loss-change --full"
SEEDS = ((0, 1, 2), (0, 1, 2, 3, 4))  # quick, full
NETWORKS: Mapping[
    str, tuple[str, int, int]
] = {  # name -> data set, epochs, samples (the whole training set, or a part)
    "64-16-10": ("digits", 100, 1257),
    "64-16-10, on a fifth": ("digits", 100, 250),
    "64-16-10, half trained": ("digits", 4, 1257),
    "lenet-300-100": ("digits", 30, 1257),
    "digits-cnn": ("digits", 20, 1257),
    "mlp-1d": ("mnist-1d", 15, 3600),
}
WITH_GRADIENT, EXACT, OBS = "OBD + gradient term", "OBD, exact Hessian", "OBS"
SCORES: Mapping[str, tuple[str, dict[str, Any]]] = {
    "random": ("random", {}),
    "|w|": ("magnitude", {"scale": "none"}),
    "|w| / std": ("magnitude", {}),
    "SNIP's |weight x gradient|": ("snip", {"bn_mode": "eval"}),
    "OBD": ("obd", {}),
    EXACT: ("obd", {"hessian": "exact"}),
    WITH_GRADIENT: ("obd", {"hessian": "exact", "gradient_term": True}),
    OBS: ("obs", {"blocks": "auto"}),
}


def network(name: str, data: Splits, seed: int) -> nn.Module:
    """A registered network, or the small one of 16 hidden units."""
    from torch import nn

    from pruneviz.curvature.task import generator_for
    from pruneviz.models import MODELS, build
    from pruneviz.models._torch.initialisation import initialise_

    if name in MODELS:
        return build(name, data, seed=seed)
    small = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))
    return initialise_(small, generator_for(seed, "initial weights"))


def measure(seeds: tuple[int, ...], say: Say) -> list[dict[str, Any]]:
    """A row for each network, seed and score: rank correlation with the measured change, and what removals really cost."""
    import pruneviz as pv
    from pruneviz.curvature.task import Task, generator_for
    from pruneviz.methods import method_class
    from pruneviz.run.probes import change
    from pruneviz.units.masks import Mask

    rows = []
    for name, (dataset, epochs, samples) in NETWORKS.items():
        data = pv.load(dataset)
        x, y = data.train[0][:samples], data.train[1][:samples]
        for seed in seeds:
            say(f"{name}, seed {seed}: training for {epochs} epochs")
            model = network(name.split(",")[0], data, seed)
            pv.train(model, data, epochs=epochs, seed=seed)
            for score, (key, params) in SCORES.items():
                method = method_class(key).from_params(params)
                task = Task(lambda x=x, y=y: [(x, y)], generator_for(seed, "score"))
                full = Mask.full(model, method.prunable(model))
                found = change(method, model, task, full, generator_for(seed, "change"), samples)
                rows.append(
                    {
                        "network": name, "seed": seed, "score": score, "weights": len(found.measured),
                        "correlation": found.correlation, "rise": float(found.measured.mean()),
                        "zeroed": float(found.zeroed.mean()), "negative": float((found.zeroed < 0).mean()),
                    }
                )  # fmt: skip
    return rows


def claims(rows: list[dict[str, Any]]) -> tuple[Claim, ...]:
    """The gradient term makes OBD's ranking right everywhere; OBS's update cuts the rise."""

    def claim(key: str, text: str, values: list[float], holds: bool) -> Claim:
        return Claim.over(key, text, values, holds=holds, command=COMMAND)

    found = []
    for name in NETWORKS:
        values = [r["correlation"] for r in rows if (r["network"], r["score"]) == (name, WITH_GRADIENT)]
        text = f"{name}: OBD with the gradient term ranks single removals at a rank correlation of at least 0.9, in every seed"
        found.append(claim(f"gradient-term-{_slug(name)}", text, values, min(values) >= 0.9))
    shares = [r["rise"] / r["zeroed"] for r in rows if (r["network"], r["score"]) == ("64-16-10", OBS)]
    found.append(
        claim(
            "obs-rise-64-16-10",
            "64-16-10: the mean rise after OBS's update is at most a fifth of that by zeroing (the share), in every seed",
            shares,
            0 <= max(shares) <= 0.2,
        )
    )
    return tuple(found)


def tables(rows: list[dict[str, Any]]) -> tuple[Table, ...]:
    """Rank correlations over seeds, and the size of the rises."""
    correlations, rises = [], []
    for score in SCORES:
        cells: list[Any] = [score]
        for name in NETWORKS:
            values = [r["correlation"] for r in rows if (r["network"], r["score"]) == (name, score)]
            cells.append(f"{median(values):.2f} ({min(values):.2f} to {max(values):.2f})")
        correlations.append(tuple(cells))
    for name in NETWORKS:
        obs = [r for r in rows if (r["network"], r["score"]) == (name, OBS)]
        rises.append(
            (
                name,
                obs[0]["weights"],
                float(f"{median(r['zeroed'] for r in obs):.3g}"),
                float(f"{median(r['rise'] for r in obs):.3g}"),
                float(f"{median(r['rise'] / r['zeroed'] for r in obs):.3g}"),
                round(median(r["negative"] for r in obs), 3),
            )
        )
    return (
        Table(
            "correlations",
            "Rank correlation of score and measured change of the loss: median over seeds (range)",
            ("score", *NETWORKS),
            tuple(correlations),
            "Each weight is really removed, alone, in float64, and the loss measured on the samples that the score saw: the whole "
            "training set, or a fifth of it in the second column; OBS is measured with its update. OBD assumes a slope of zero. "
            "Where training stopped early, or on a part of the samples, the slope is not zero, and the first-order term that OBD "
            "and OBS leave out decides the order of most weights: with it the ranking is right everywhere. OBS's update shrinks "
            "the second-order rise far more than the first-order term, so that what is left to rank is mostly the slope.",
        ),
        Table(
            "rises",
            "How much the loss rises when one weight leaves: mean over weights, median over seeds (nats)",
            ("network", "weights", "by zeroing", "after OBS's update", "share", "negative by zeroing"),
            tuple(rises),
            "The update is what OBS is for: compare the rises, not the correlations.",
        ),
    )


def _slug(name: str) -> str:
    return name.replace(", ", "-").replace(" ", "-")


def run(full: bool, say: Say) -> Result:
    """Three seeds, or five."""
    rows = measure(SEEDS[full], say)
    return Result(claims(rows), tables(rows))


PAPER = Reproduction(
    "loss-change",
    "Predicted and measured loss change",
    "A score says how much the loss rises when a weight leaves. When the weight is really removed, does it?",
    METHODS["obd"].paper,
    ("digits", "mnist-1d"),
    (3, 6),
    run,
)

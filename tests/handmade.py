"""Runs whose numbers are known: what figures read of stored ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from pruneviz.figures.change import spearman
from pruneviz.plan.about import about
from pruneviz.plan.config import RunConfig
from pruneviz.records.about import About
from pruneviz.records.arrays import (
    WHOLE,
    Change,
    Directions,
    Jacobians,
    Kept,
    Saliency,
    Sensitivity,
    Spectra,
)  # fmt: skip
from pruneviz.records.base import Recorded
from pruneviz.records.stages import Stage

SPARSITIES = (0.5, 0.9, 0.98)
LAYERS = ["1", "3"]
SIZES = np.array([1000, 200])
EDGES = np.linspace(-3, 0, 61)
WEIGHTS = tuple(f"{name}.weight" for name in LAYERS)
Probes = dict[str, tuple[dict[str, np.ndarray], list[str]]]


@dataclass
class HandMade:
    """A run whose numbers are known: what figures read of a stored one."""

    config: RunConfig
    probes: Probes = field(default_factory=dict)
    accuracy: dict[float, float] = field(default_factory=dict)
    state: str = "succeeded"
    moves: bool = False  # survivors move: the network was measured before that too
    extra: dict[tuple[float, str, str], float] = field(default_factory=dict)  # (sparsity, stage, metric) -> value

    @property
    def id(self) -> str:
        return self.config.id

    @cached_property
    def about(self) -> About:
        return about(self.config)

    def at(self, kind: type[Recorded], stage: Stage | None = None) -> list[float]:
        return kind.sparsities(self.files, stage)

    def read(self, kind, sparsity: float = 0.0, stage: Stage | None = None):
        name = kind.name(sparsity, stage)
        return kind.read(*self.probes[name]) if name in self.probes else None

    @property
    def files(self) -> dict[str, dict[str, Any]]:
        return {name: {"sha256": name} for name in self.probes}

    def names(self, probe: str) -> list[str]:
        return [name for name in self.probes if name.startswith(f"{probe}-")]

    def arrays(self, name: str) -> dict[str, np.ndarray]:
        return self.probes[name][0] if name in self.probes else {}

    @property
    def metrics(self) -> pd.DataFrame:
        rows = [(0.0, "dense", "test", "accuracy", 0.97), (0.0, "dense", "test", "loss", 0.1)] if self.accuracy else []
        for s, value in self.accuracy.items():
            left = round(1200 * (1 - s))
            rows += [
                (s, "pruned", "test", "accuracy", value / 2), (s, "pruned", "", "reached", s), (s, "pruned", "", "parameters", left),
                (s, "tuned", "test", "accuracy", value), (s, "tuned", "", "reached", s), (s, "tuned", "", "parameters", left),
                (s, "tuned", "", "epochs", 45), (s, "pruned", "test", "loss", 2.0), (s, "tuned", "test", "loss", 0.2),
            ]  # fmt: skip
            if self.moves:
                rows += [(s, "zeroed", "test", "accuracy", value / 4), (s, "zeroed", "test", "loss", 20.0)]
        rows += [(s, stage, "", metric, value) for (s, stage, metric), value in self.extra.items()]
        table = pd.DataFrame(rows, columns=["sparsity", "stage", "split", "metric", "value"])
        return table.assign(run=self.id, method=self.config.method, seed=self.config.seed)


def written(what: Recorded, sparsity: float | None = None, stage: Stage | None = None) -> Probes:
    """What a probe recorded, by its name in a run."""
    return {what.name(sparsity, stage): (what.write()[0], list(what.layers))}


def binned(sparsity: float) -> Saliency:
    """Every layer has its scores spread evenly over the bins; the lowest ``sparsity`` of them leave."""
    whole = np.stack([np.bincount(np.arange(n) * 60 // n, minlength=60) for n in SIZES])
    removed = np.clip(np.round(sparsity * SIZES)[:, None] - (np.cumsum(whole, 1) - whole), 0, whole).astype(int)
    return Saliency(
        layers=WEIGHTS, edges=EDGES, kept=whole - removed, removed=removed, zeros=np.zeros((2, 2), int), sizes=SIZES,
        alive=(whole - removed).sum(1), log=1, linthresh=1.0, threshold=10 ** (3 * sparsity - 3),
    )  # fmt: skip


def histograms(sparsity: float) -> dict[str, np.ndarray]:
    """The arrays of :func:`binned`."""
    return binned(sparsity).write()[0]


def change(
    predicted: Any = (1e-4, 2e-4, 3e-4, 4e-4),
    measured: Any = (1e-4, 4e-4, 2e-4, 8e-4),
    zeroed: Any = None,
    every: bool = False,
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Measured removals, the first half of them in the first layer."""
    p, m = np.array(predicted, float), np.array(measured, float)
    made = Change(
        layers=WEIGHTS, predicted=p, measured=m, zeroed=m if zeroed is None else np.array(zeroed, float),
        layer=np.arange(len(p)) * 2 // len(p), correlation=spearman(p, m), all=int(every), samples=512,
    )  # fmt: skip
    return made.write()[0], list(made.layers)


def turned() -> Directions:
    """Layer "1" of 10 x 100 directions in 10 x 32 blocks, all worth 1 but the first, worth 100; "3" of 20 x 10, nothing left."""
    theta = np.ones((32, 10))
    theta[0, 0] = 100
    images = np.zeros((2, 1, 3, 3))
    images[0, 0, 1], images[1, 0, :, 1] = 0.5, -0.5  # a line across and one down
    shapes = np.array([100, 10]), np.array([20, 10])
    return Directions(layers=tuple(LAYERS), theta=(theta, np.zeros((20, 10))), shape=shapes, vectors=(images, None))


def masks(sparsity: float) -> Kept:
    """Layer "1" of 100 x 10 in 32 x 10 blocks, of which the first keeps everything; "3" of 20 x 10, in blocks of one weight."""
    share = round(WHOLE * (1 - sparsity))
    first = np.full((32, 10), share, np.uint8)
    first[0, 0] = WHOLE
    shapes = np.array([100, 10]), np.array([20, 10])
    return Kept(layers=tuple(LAYERS), density=(first, np.full((20, 10), share, np.uint8)), shape=shapes)


def sensitivity() -> Sensitivity:
    """The first layer can lose anything, the second falls to chance."""
    lost = np.array([[0.9, 0.9, 0.9], [0.9, 0.4, 0.1]])
    return Sensitivity(layers=tuple(LAYERS), ratios=np.array([0.0, 0.5, 0.9]), accuracy=lost, samples=360)


def passing(size: float = 1.0) -> Jacobians:
    """Quantiles that rise evenly from 0 to 2, from input to output from 0 to 4, times ``size``."""
    return Jacobians(
        layers=tuple(LAYERS), quantiles=size * np.stack([np.linspace(0, 2, 65)] * 2), mean=size * np.array([1.0, 0.6]),
        spread=size * np.array([0.5, 0.3]), end=size * np.linspace(0, 4, 65), end_mean=size * np.array([2.0]),
        end_spread=size * np.array([1.25]),
    )  # fmt: skip


def run(method: str = "snip", accuracy: dict[float, float] | None = None, **settings: Any) -> HandMade:
    """A finished run with all probes: A0 has equal eigenvalues, the others fall; singular values are :func:`passing`, before a
    repair a tenth of that."""
    config = RunConfig(method=method, sparsities=SPARSITIES, **settings)
    inputs = np.ones(10), np.r_[1.0, np.zeros(9)]
    falling = Spectra(layers=tuple(LAYERS), A=inputs, S=(0.5 ** np.arange(100.0), np.ones(20)))
    probes: Probes = {Change.name(stage=Stage.START): change()}
    for what in (falling, passing(), turned(), sensitivity()):
        probes |= written(what, stage=Stage.START)
    moves = config.repair != "none" or config.params.get("repair") is True or method == "obs"
    for s in SPARSITIES:
        probes |= written(binned(s), s) | written(masks(s), s)
        probes |= written(falling, s, Stage.TUNED) | written(turned(), s, Stage.TUNED)
        for stage in (Stage.PRUNED, Stage.TUNED):
            probes |= written(passing(), s, stage)
        probes |= written(passing(0.1), s, Stage.ZEROED) if moves else {}
    return HandMade(config, probes, accuracy or {0.5: 0.96, 0.9: 0.9, 0.98: 0.5}, moves=moves)


def repairs(method: str = "snip", **settings: Any) -> list[Any]:
    """Runs that differ in the repair alone."""
    return [run(method, repair=kind, **settings) for kind in ("none", "rescale", "isometry")]


def long_run(layers: int = 16, widest: int = 4608, method: str = "snip", seed: int = 0) -> HandMade:
    """A deep network with noisy numbers, none of which is short."""
    rng = np.random.default_rng(seed)
    names = tuple(f"features.{i}" for i in range(layers))

    def falling() -> tuple[np.ndarray, ...]:
        return tuple(np.sort(rng.random(widest))[::-1] for _ in names)

    factors = Spectra(layers=names, A=falling(), S=falling())
    values = Jacobians(
        layers=names, quantiles=np.sort(rng.random((layers, 65)), 1), mean=rng.random(layers), spread=rng.random(layers),
        end=np.sort(rng.random(65)), end_mean=rng.random(1), end_spread=rng.random(1),
    )  # fmt: skip
    counts = rng.integers(1000, 90_000, (2, layers, 60))
    bars = Saliency(
        layers=tuple(f"{n}.weight" for n in names), edges=EDGES, kept=counts[0], removed=counts[1], log=1, linthresh=1.0,
        zeros=np.zeros((layers, 2), int), sizes=counts.sum((0, 2)), alive=counts[0].sum(1), threshold=0.1234567,
    )  # fmt: skip
    shapes = tuple(np.array([widest, widest]) for _ in names)
    images = (rng.standard_normal((6, 3, 28, 28)), *(None for _ in names[1:]))

    def matrices() -> Directions:
        return Directions(layers=names, theta=tuple(rng.random((32, 32)) for _ in names), shape=shapes, vectors=images)

    tried = Sensitivity(layers=names, ratios=np.linspace(0, 0.9, 11), accuracy=rng.random((layers, 11)), samples=1000)
    probes: Probes = {Change.name(stage=Stage.START): change(*rng.standard_normal((3, 2000)))}
    for what in (factors, values, matrices(), tried):
        probes |= written(what, stage=Stage.START)
    for s in SPARSITIES:
        shares = tuple(rng.integers(0, 256, (32, 32)).astype(np.uint8) for _ in names)
        probes |= written(Kept(layers=names, density=shares, shape=shapes), s) | written(bars, s)
        probes |= written(matrices(), s, Stage.TUNED) | written(factors, s, Stage.TUNED)
        for stage in (Stage.PRUNED, Stage.TUNED):
            probes |= written(values, s, stage)
    network = {"model": "lenet-5-caffe", "dataset": "mnist"} if method == "l1-filters" else {}
    return HandMade(RunConfig(method=method, sparsities=SPARSITIES, seed=seed, **network), probes, {0.5: 0.9})


def signed_run(method: str = "grasp") -> HandMade:
    """Scores of both signs: 60 bins of one unit each on 6 powers of ten, the lower half of them below 0."""
    made = run(method)
    bars = histograms(0.5) | {"edges": np.linspace(-3, 3, 61), "log": np.array([2]), "linthresh": np.array([1e-4])}
    made.probes["saliency-0.5"] = {**bars, "threshold": np.array([0.0])}, [f"{name}.weight" for name in LAYERS]
    return made


def structured(method: str = "kron-obd", **settings: Any) -> HandMade:
    """A run that removes filters or directions: layers are named as modules, and the last has no scores."""
    made = run(method, {0.5: 0.9, 0.9: 0.8}, **settings)
    for s in (0.5, 0.9):
        bars = {
            key: value[:1] if key in ("kept", "removed", "zeros", "sizes", "alive") else value
            for key, value in histograms(s).items()
        }
        made.probes[f"saliency-{s:g}"] = bars, ["1"]
    del made.probes["saliency-0.98"]
    made.extra = {
        (0.0, "dense", "latency_256"): 0.004,
        (0.5, "pruned", "latency_256"): 0.002,
        (0.9, "pruned", "latency_256"): 0.005,
    }
    made.extra |= {
        (0.5, "pruned", "speedup_256"): 2.0,
        (0.9, "pruned", "speedup_256"): 0.8,
        (0.98, "pruned", "most"): 0.93,
    }
    return made

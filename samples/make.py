"""Remake the sample runs: ``python samples/make.py``. They are made by the ordinary pipeline and exported without weights."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from pruneviz.comparison import plan  # noqa: E402
from pruneviz.config import RunConfig  # noqa: E402
from pruneviz.jobs.crew import record_together  # noqa: E402
from pruneviz.methods import METHODS  # noqa: E402
from pruneviz.store import Store  # noqa: E402

FACTORED = ("kron-obd", "kron-obs", "eigendamage")
UNITS = ("random", "magnitude", "snip", "l1-filters", *FACTORED)


def _configs() -> list[RunConfig]:
    """Every method that fits LeNet-300-100 on digits, and those that remove whole units beside three that do not on a small CNN;
    OBS, OBD, |w| and chance on MNIST without retraining; pruning at initialisation with three repairs."""
    seeds = (0, 1, 2)
    weights = [key for key in METHODS if key not in FACTORED]
    found: list[RunConfig] = []
    without = {
        "dataset": "mnist", "model": "lenet-300-100", "rounds": 1, "sparsities": (0.8, 0.9, 0.95),
        "train": {"epochs": 3, "batch_size": 128}, "tune": {"epochs": 0},
    }  # fmt: skip
    signals = {
        "dataset": "mnist", "model": "mlp-7x100", "method": "isometry", "params": {"repair": False}, "sparsities": (0.9, 0.95),
        "train": {"epochs": 1, "batch_size": 275}, "probes": ("saliency", "jacobians"),
    }  # fmt: skip
    units = {"dataset": "digits", "model": "digits-cnn", "sparsities": (0.3, 0.5, 0.6)}
    for seed in seeds:  # arrays of the first seed alone: the others are there for their range
        probes = {} if seed == 0 else {"probes": ()}
        found += plan(weights, seeds=(seed,), dataset="digits", model="lenet-300-100", **probes).configs
        found += plan(UNITS, seeds=(seed,), **units, **probes).configs
        found += plan(FACTORED, seeds=(seed,), dataset="digits", model="lenet-300-100", **probes).configs
    for seed in seeds:
        for method, params in (("magnitude", {"scale": "none"}), ("obd", {}), ("obs", {"blocks": 50})):
            looked = ("saliency", "change") if seed else ("saliency", "masks", "change")
            found.append(RunConfig(method=method, params=params, seed=seed, probes=looked, **without))
        looked = () if seed else ("saliency",)
        found.append(RunConfig(method="random", start="trained", seed=seed, probes=looked, **without))
        for repair in ("none", "rescale", "isometry"):
            found.append(RunConfig(repair=repair, seed=seed, **signals))
    return found


def main() -> None:
    """Three seeds each; the folders beside this file are replaced. MNIST is read from the data folder, or downloaded."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder, samples=None)
        ids = store.queue(_configs())
        record_together(store, ids, device="cpu")
        for old in HERE.glob("*/run.json"):
            shutil.rmtree(old.parent)
        made = store.export(ids, HERE, weights=False)
        store.close()
    size = sum(path.stat().st_size for made_ in made for path in made_.iterdir())
    print(f"{len(made)} runs, {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()

"""Remake the sample runs: ``python samples/make.py``. They are made by the ordinary pipeline and exported without weights."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from safetensors.numpy import load_file

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pruneviz.plan.comparison import plan  # noqa: E402
from pruneviz.plan.config import RunConfig  # noqa: E402
from pruneviz.jobs.crew import record_together  # noqa: E402
from pruneviz.methods import METHODS  # noqa: E402
from pruneviz.basics.places import SAMPLES  # noqa: E402
from pruneviz.records.stages import Stage  # noqa: E402
from pruneviz.records.units import Unit  # noqa: E402
from pruneviz.run.checkpoint import thinned  # noqa: E402
from pruneviz.store import Store  # noqa: E402
from pruneviz.store.exports import add_record  # noqa: E402

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


def _add_networks(store: Store, id_: str) -> None:
    """The pruned networks themselves, from 80% on, of the first seed's single-weight methods on LeNet-300-100 and digits; with
    the first of them the dense one."""
    run = store.run(id_)
    config, folder = run.config, SAMPLES / id_
    if (config.dataset, config.model, config.seed, run.about.unit) != ("digits", "lenet-300-100", 0, Unit.WEIGHT):
        return
    for step in (step for step in config.steps if step.requested and step.target >= 0.8):
        add_record(folder, thinned(store.weights(id_, step.name)), step.target)
    if (config.method, config.start) == ("random", "init"):
        dense = load_file(store.dense_folder / f"{config.dense_key}-trained.safetensors")
        add_record(folder, thinned(dense), stage=Stage.DENSE)


def main() -> None:
    """Three seeds each; the folders beside this file are replaced. MNIST is read from the data folder, or downloaded."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder, samples=None)
        ids = store.queue(_configs())
        record_together(store, ids, device="cpu")
        for old in SAMPLES.glob("*/run.json"):
            shutil.rmtree(old.parent)
        made = store.export(ids, SAMPLES, weights=False)
        for id_ in ids:
            _add_networks(store, id_)
        store.close()
    size = sum(path.stat().st_size for made_ in made for path in made_.iterdir())
    print(f"{len(made)} runs, {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()

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
from pruneviz.jobs.recording import record  # noqa: E402
from pruneviz.store import Store  # noqa: E402


def _configs() -> list[RunConfig]:
    """Every method on digits; OBS, OBD and |w| on MNIST without retraining; pruning at initialisation with three repairs."""
    seeds = (0, 1, 2)
    found = list(plan("all", seeds=seeds, dataset="digits", model="lenet-300-100").configs)
    without = {
        "dataset": "mnist", "model": "lenet-300-100", "rounds": 1, "sparsities": (0.8, 0.9, 0.95),
        "train": {"epochs": 3, "batch_size": 128}, "tune": {"epochs": 0}, "probes": ("saliency", "change"),
    }  # fmt: skip
    signals = {
        "dataset": "mnist", "model": "mlp-7x100", "method": "isometry", "params": {"repair": False}, "sparsities": (0.9, 0.95),
        "train": {"epochs": 1, "batch_size": 275}, "probes": ("saliency", "jacobians"),
    }  # fmt: skip
    for seed in seeds:
        for method, params in (("magnitude", {"scale": "none"}), ("obd", {}), ("obs", {"blocks": 50})):
            found.append(RunConfig(method=method, params=params, seed=seed, **without))
        for repair in ("none", "rescale", "isometry"):
            found.append(RunConfig(repair=repair, seed=seed, **signals))
    return found


def main() -> None:
    """Three seeds each; the folders beside this file are replaced. MNIST is read from the data folder, or downloaded."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder, samples=None)
        ids = store.queue(_configs())
        record(store, ids, device="cpu")
        for old in HERE.glob("*/run.json"):
            shutil.rmtree(old.parent)
        made = store.export(ids, HERE, weights=False)
        store.close()
    size = sum(path.stat().st_size for made_ in made for path in made_.iterdir())
    print(f"{len(made)} runs, {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()

"""Remake the sample runs: ``python samples/make.py``. They are made by the ordinary pipeline and exported without weights."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from pruneviz.comparison import plan  # noqa: E402
from pruneviz.jobs.recording import record  # noqa: E402
from pruneviz.store import Store  # noqa: E402


def main() -> None:
    """Every method on digits with LeNet-300-100, three seeds; the folders beside this file are replaced."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder, samples=None)
        ids = store.queue(plan("all", seeds=(0, 1, 2), dataset="digits", model="lenet-300-100").configs)
        record(store, ids, device="cpu")
        for old in HERE.glob("*/run.json"):
            shutil.rmtree(old.parent)
        made = store.export(ids, HERE, weights=False)
        store.close()
    size = sum(path.stat().st_size for made_ in made for path in made_.iterdir())
    print(f"{len(made)} runs, {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()

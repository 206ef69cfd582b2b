"""What the benchmarks share: steady settings, turns, and results with what they were measured with."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
STEADY = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0"}  # waiting threads sleep: a neighbour's load costs less
REPEATS = 7


def steady() -> None:
    """Start this program again with settings that make runs comparable, where it was started without."""
    if any(os.environ.get(name) != value for name, value in STEADY.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | STEADY)


def seconds(run: Callable[[], object], device=None) -> float:
    """How long a call takes, the device's queue emptied."""
    started = time.perf_counter()
    run()
    if device is not None and device.type == "cuda":
        import torch

        torch.cuda.synchronize()
    return time.perf_counter() - started


def turns(runs: Mapping[str, Callable[[], object]], device, repeats: int = REPEATS) -> dict[str, float]:
    """Median seconds of each, all in turns (A B A B), after one turn that does not count."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats + 1):
        for name, run in runs.items():
            times[name].append(seconds(run, device))
    return {name: median(found[1:]) for name, found in times.items()}


def record(name: str, device, packages: tuple[str, ...], **found: object) -> None:
    """Write ``bench/results/<name>.json``, with where and with what it was measured."""
    import torch

    versions = {}
    for package in ("torch", *packages):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    about = {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else device.type,
        "cores": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version(),
        "versions": versions, "load_average_at_end": round(os.getloadavg()[0], 2),
    }  # fmt: skip
    path = ROOT / "bench" / "results" / f"{name}.json"
    path.write_text(json.dumps(about | found, indent=1) + "\n")
    print(path)

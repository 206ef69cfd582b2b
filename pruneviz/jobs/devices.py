"""What there is to compute on. Torch is asked in a process of its own, so that nobody who forks has touched CUDA."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from typing import Any

from pruneviz.basics.errors import WorkerError
from pruneviz.basics.places import CHECKOUT

ASKING = 120.0  # seconds until an answer is given up: importing torch from a cold disk is slow
ROOM = 1.5e9  # bytes of memory for each worker process beside others
MOST = 8  # workers on one device: as many as were measured writing to one store


def find(device: str | None = None) -> list[dict[str, Any]]:
    """Every device, or the one asked for: device, name, memory in bytes; of the CPU, how many workers have room on it.

    Raises WorkerError where it is not there.
    """
    if device == "cpu":
        return [cpu()]
    found = [cpu(), *_ask_torch()]
    if device is None:
        return found
    chosen = [about for about in found if about["device"] == device]
    if not chosen:
        raise WorkerError(f"There is no device {device!r} here; found {', '.join(about['device'] for about in found)}.")
    return chosen


def environment() -> dict[str, str]:
    """This process's environment, with PruneViz importable from any folder."""
    paths = [*([str(CHECKOUT)] if CHECKOUT else []), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))}


def cpu() -> dict[str, Any]:
    """The processor, and how many ``workers`` have room on it: one for each core of this process, as memory allows."""
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not to be had everywhere
        memory = 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = max(1, min(cores, MOST, int(memory / ROOM) if memory else 1))
    return {
        "device": "cpu",
        "name": f"{platform.machine()}, {os.cpu_count()} cores",
        "memory": memory,
        "workers": workers,
    }


def _ask_torch() -> list[dict[str, Any]]:
    asked = [sys.executable, "-P", "-m", "pruneviz.jobs.devices"]
    try:
        done = subprocess.run(asked, env=environment(), capture_output=True, text=True, timeout=ASKING, check=True)
        return json.loads(done.stdout)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        said = (getattr(error, "stderr", None) or str(error)).strip().splitlines()[-1:]
        raise WorkerError(
            f"Torch could not be asked for devices ({''.join(said)}). Reinstall torch, or pass --device cpu."
        ) from None


def _accelerators() -> list[dict[str, Any]]:
    import torch

    found = []
    for i in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(i)
        found.append({"device": f"cuda:{i}", "name": about.name, "memory": about.total_memory})
    if torch.backends.mps.is_available():
        found.append({"device": "mps", "name": "Apple GPU", "memory": cpu()["memory"]})
    return found


if __name__ == "__main__":
    print(json.dumps(_accelerators()))

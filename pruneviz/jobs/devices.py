"""What there is to compute on. Torch is asked in a process of its own, so that nobody who forks has touched CUDA."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from pruneviz.errors import WorkerError

ROOT = Path(__file__).resolve().parent.parent.parent
ASKING = 120.0  # seconds until an answer is given up: importing torch from a cold disk is slow


def find(device: str | None = None) -> list[dict[str, Any]]:
    """Every device, or the one asked for: device, name, memory in bytes. Raises WorkerError where it is not there."""
    if device == "cpu":
        return [_cpu()]
    found = [_cpu(), *_ask_torch()]
    if device is None:
        return found
    chosen = [about for about in found if about["device"] == device]
    if not chosen:
        raise WorkerError(f"There is no device {device!r} here; found {', '.join(about['device'] for about in found)}.")
    return chosen


def environment() -> dict[str, str]:
    """This process's environment, with PruneViz importable from any folder."""
    paths = [str(ROOT), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))}


def _cpu() -> dict[str, Any]:
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not to be had everywhere
        memory = 0
    return {"device": "cpu", "name": f"{platform.machine()}, {os.cpu_count()} cores", "memory": memory}


def _ask_torch() -> list[dict[str, Any]]:
    asked = [sys.executable, "-m", "pruneviz.jobs.devices"]
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
        found.append({"device": "mps", "name": "Apple GPU", "memory": _cpu()["memory"]})
    return found


if __name__ == "__main__":
    print(json.dumps(_accelerators()))

"""Processes by name: which one this is, and whether one that was here goes on."""

from __future__ import annotations

import multiprocessing
import os
import socket
from functools import lru_cache
from pathlib import Path

from pruneviz.basics.errors import WorkerError

GUARD = 'What a script does must stand under `if __name__ == "__main__":`, for each worker reads it.'


def name_of_this() -> str:
    """This process and the one that watches over it, as :func:`ended` knows them: machine, then process ids with their starts.

    Empty where the system does not say when a process began.
    """
    watcher = multiprocessing.parent_process()
    return _name(os.getpid(), watcher.pid if watcher is not None else None)


def ended(name: str | None) -> bool:
    """Whether a process and the one that watches over it have both ended; False also where that is not to be known from here."""
    machine, _, processes = (name or "").partition(" ")
    if not processes or machine != _machine():
        return False
    return not any(_began(int(pid)) == began for pid, _, began in (one.partition(":") for one in processes.split()))


def refuse_while_beginning() -> None:
    """Raises WorkerError in a worker that is only beginning: it reads the script that started it, which would start others."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise WorkerError(f"A worker reads the script that started it, and was told to start the same again. {GUARD}")


@lru_cache(maxsize=8)
def _name(pid: int, watcher: int | None) -> str:
    processes = [(one, _began(one)) for one in (pid, watcher) if one is not None]
    return " ".join([_machine(), *(f"{one}:{began}" for one, began in processes if began)]) if _began(pid) else ""


@lru_cache(maxsize=1)
def _machine() -> str:
    """What tells this machine, since it was switched on, from others; a container counts as one."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{socket.gethostname()}/{boot}/{os.readlink('/proc/self/ns/pid')}".replace(" ", "-")
    except OSError:
        return socket.gethostname().replace(" ", "-")


def _began(pid: int) -> str:
    """When a process began, in the system's ticks; nothing where there is none, or it has ended and nobody asked how."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
        return "" if state in "ZX" else fields[18]
    except (OSError, ValueError, IndexError):
        return ""

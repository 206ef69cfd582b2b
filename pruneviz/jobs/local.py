"""Workers on this machine. The web process starts one supervisor process, or adopts the one that is there."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import traceback
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pruneviz.basics.events import Event
from pruneviz.jobs.crew import record_together
from pruneviz.jobs.devices import environment
from pruneviz.jobs.supervisor import Supervisor, work
from pruneviz.store import Store, default_path

__all__ = ["Handle", "LocalBackend", "Supervisor", "ensure_supervisor", "lifespan_supervisor", "work"]

WATCH = 3.0  # seconds between looks at the supervisor
LONGEST = 60.0  # the same where it dies again and again
STOPPING = 5.0  # seconds from SIGTERM to SIGKILL
LOG = 1_000_000  # bytes after which a log gives way to a new one, once


class LocalBackend:
    """:class:`pruneviz.jobs.base.Backend` on this machine."""

    def __init__(self, store: Store):
        self._store = store

    def submit(self, run_ids: Iterable[str]) -> None:
        """The runs are queued in the store already: a supervisor must be there that takes them."""
        if list(run_ids):
            ensure_supervisor(self._store.path)

    def cancel(self, run_id: str) -> bool:
        """The supervisor sees it and ends the worker."""
        return self._store.cancel(run_id)

    def devices(self) -> list[dict[str, Any]]:
        return self._store.workers()

    def reconcile(self) -> list[str]:
        return self._store.reconcile()

    def lifespan(self) -> AbstractAsyncContextManager[Handle]:
        return lifespan_supervisor(self._store.path)

    def carry_out(self, run_ids: Sequence[str], *, device: str | None, on_event: Callable[[Event], None]) -> None:
        record_together(self._store, run_ids, device=device, on_event=on_event)

    def work(self, device: str | None = None) -> int:
        return work(self._store.path, device=device)


@dataclass(frozen=True)
class Handle:
    """A supervisor process that this process started; ``process`` is None for one that was there already."""

    process: subprocess.Popen[bytes] | None

    @property
    def alive(self) -> bool:
        """Whether the process started here still runs."""
        return self.process is not None and self.process.poll() is None

    def stop(self) -> None:
        """End it, if it was started here: its run is queued again."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(STOPPING)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


_handles: dict[Path, Handle] = {}
_starting = threading.Lock()


def ensure_supervisor(store_path: Path | str | None = None, *, device: str | None = None) -> Handle:
    """Start ``python -m pruneviz work`` for a store, detached and with a log, unless a supervisor is there.

    Where two are started at the same time, the device's lock leaves one.
    """
    path = Path(store_path or default_path()).resolve()
    with _starting:
        handle = _handles.get(path)
        if handle is None or not handle.alive:
            gone = handle.process.pid if handle and handle.process else None
            store = Store(path, samples=None)
            others = [other for other in store.workers() if other["pid"] != gone]
            store.close()
            handle = _handles[path] = Handle(None if others else _start(path, device))
        return handle


@asynccontextmanager
async def lifespan_supervisor(
    store_path: Path | str | None = None, *, device: str | None = None
) -> AsyncIterator[Handle]:
    """For as long as the server lives there is a supervisor; one that dies is replaced, more slowly each time.

    At the end only the one started here is stopped. Where the server is killed the supervisor goes on, and the next
    server adopts it.
    """
    closing = asyncio.Event()
    first = await asyncio.to_thread(ensure_supervisor, store_path, device=device)

    async def watch() -> Handle:
        handle, pause = first, WATCH
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(closing.wait(), pause)
                return handle
            before = handle
            try:
                handle = await asyncio.to_thread(ensure_supervisor, store_path, device=device)
            except Exception:  # a full disk, a busy database: looked at again later
                traceback.print_exc()
            calm = handle.process is None or (handle is before and handle.alive)
            pause = WATCH if calm else min(2 * pause, LONGEST)

    watching = asyncio.create_task(watch())
    try:
        yield first
    finally:
        closing.set()
        handle = await watching
        await asyncio.to_thread(handle.stop)


def _start(path: Path, device: str | None) -> subprocess.Popen[bytes]:
    log = path / "logs" / "work.log"
    log.parent.mkdir(exist_ok=True)
    if log.exists() and log.stat().st_size > LOG:
        log.replace(log.with_suffix(".old.log"))
    command = [sys.executable, "-P", "-m", "pruneviz", "work", "--store", str(path)]
    if device is not None:
        command += ["--device", device]
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment(),
            start_new_session=True,
        )

"""The supervisor: holds a device for a store, and has its queued runs carried out by worker processes."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from pruneviz.basics.processes import name_of_this, refuse_while_beginning
from pruneviz.jobs import devices
from pruneviz.jobs.crew import NICE, Crew, fork_context, rest
from pruneviz.jobs.recording import BEAT, full_name
from pruneviz.store import Store

if TYPE_CHECKING:
    from pruneviz.jobs.crew import Context

POLL = 0.2  # seconds between looks at the store
HANDOVER = 2.0  # seconds that a supervisor waits for the device of one that is just stopping


def work(store_path: Path | str | None = None, device: str | None = None, *, once: bool = False) -> int:
    """Carry out a store's queued runs until SIGTERM or SIGINT (``once``: until none is left). Returns the exit status.

    One process looks after every device, or the one asked for; a device that another supervisor holds is left to it.
    Stopped, it stops its workers and queues their runs again, in their old places: they go on from their last finished
    stage when a supervisor is there again.
    """
    refuse_while_beginning()
    context = fork_context()
    store = Store(store_path, samples=None)
    supervisors = []
    for about in devices.find(full_name(device) if device else None):
        supervisor = Supervisor(store, about["device"], about, context=context)
        if supervisor.acquire():
            supervisors.append(supervisor)
        else:
            _say(about["device"], f"another supervisor holds it for {store.path}; leaving it the work")
    stopping: list[int] = []
    before = {s: signal.signal(s, lambda number, _: stopping.append(number)) for s in (signal.SIGTERM, signal.SIGINT)}
    try:
        while supervisors and not stopping:
            for supervisor in supervisors:
                supervisor.step()
            if once and not any(supervisor.busy for supervisor in supervisors):
                break
            rest([sentinel for s in supervisors for sentinel in s.crew.sentinels], POLL)
    finally:
        for supervisor in supervisors:
            supervisor.close()
        store.close()
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0


class Supervisor:
    """Looks after one device. Nothing here blocks: :meth:`step` is called again and again."""

    def __init__(self, store: Store, device: str, about: Mapping[str, Any], *, context: Context):
        self.store, self.device, self.about = store, device, about
        most = about.get("workers", 1)
        self.crew = Crew(store, device, context, most=most, nice=NICE, say=lambda what: _say(device, what))
        self._beat_at = 0.0
        (store.path / "locks").mkdir(exist_ok=True)
        self._lock = FileLock(store.path / "locks" / f"{device.replace(':', '-')}.lock")

    @property
    def busy(self) -> bool:
        """Whether there is a worker, or work for one."""
        return bool(self.crew.workers or self._waiting())

    def acquire(self) -> bool:
        """Take the device's lock, which ends with this process; False where another supervisor holds it."""
        try:
            self._lock.acquire(timeout=HANDOVER)
        except Timeout:
            return False
        self._sign_of_life()
        return True

    def step(self) -> None:
        """Signs of life; settle what is lost; then the workers' turn."""
        if abs(time.time() - self._beat_at) >= BEAT:
            self._sign_of_life()
        self.store.reconcile()
        self.crew.step(self._waiting)

    def close(self) -> None:
        """Stop the workers, queue their runs again, give the device back."""
        self.crew.close()
        self.store.unregister(self.device, os.getpid())
        self._lock.release()

    def _sign_of_life(self) -> None:
        self._beat_at = time.time()
        self.store.register(self.device, os.getpid(), self.about, worker_id=name_of_this())
        self.crew.beat()

    def _waiting(self) -> list[str]:
        """A CPU takes runs that ask for no device only where there is nothing faster."""
        faster = any(other["device"] != "cpu" for other in self.store.workers())
        return self.store.waiting(self.device, take_any=self.device != "cpu" or not faster)


def _say(device: str, what: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {device}: {what}", flush=True)

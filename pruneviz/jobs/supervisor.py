"""The supervisor: holds a device for a store, and gives its queued runs to one worker process after another."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Mapping
from multiprocessing import connection, forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from pruneviz.jobs import devices
from pruneviz.jobs.recording import BEAT, fail, full_name, share_cores
from pruneviz.jobs.worker import serve
from pruneviz.store import Store

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerContext, SpawnContext

POLL = 0.2  # seconds between looks at the store
PATIENCE = 5.0  # seconds from SIGTERM to SIGKILL for a worker whose run was taken away
FAREWELL = 0.7  # the same where the supervisor itself is stopped
HANDOVER = 2.0  # seconds that a supervisor waits for the device of one that is just stopping
TRIES = 3  # workers in a row that may die before they claim a run
# what a worker needs anyway, imported once: torch's first optimiser imports dynamo (2 s), digits scikit-learn (1.8 s)
PRELOAD = ["pruneviz.pipeline", "pruneviz.jobs.worker", "torch._dynamo", "sklearn.datasets"]
PRELOAD += ["pruneviz.jobs.fork_server"]  # the last: what it registers comes first at the end


def work(store_path: Path | str | None = None, device: str | None = None, *, once: bool = False) -> int:
    """Carry out a store's queued runs until SIGTERM or SIGINT (``once``: until none is left). Returns the exit status.

    One process looks after every device, or the one asked for; a device that another supervisor holds is left to it.
    Stopped, it stops its workers and queues their runs again, in their old places: they go on from their last finished
    stage when a supervisor is there again.
    """
    share_cores()
    os.environ.update(devices.environment())  # the fork server and the workers inherit it
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # asking whether there is CUDA does not spoil a fork
    context = _context()
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
            _rest([s.worker.sentinel for s in supervisors if s.worker is not None])
    finally:
        for supervisor in supervisors:
            supervisor.close()
        store.close()
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0


class Supervisor:
    """Looks after one device. Nothing here blocks: :meth:`step` is called again and again."""

    def __init__(
        self, store: Store, device: str, about: Mapping[str, Any], *, context: SpawnContext | ForkServerContext
    ):
        self.store, self.device, self.about = store, device, about
        self.worker: BaseProcess | None = None
        self._context = context
        self._group: list[str] = []  # what the worker was given
        self._finished: set[str] = set()  # what it was seen to finish
        self._stopped_at: float | None = None  # when the worker was told to stop
        self._beat_at = 0.0
        self._deaths = 0
        (store.path / "locks").mkdir(exist_ok=True)
        self._lock = FileLock(store.path / "locks" / f"{device.replace(':', '-')}.lock")

    @property
    def busy(self) -> bool:
        """Whether there is a worker, or work for one."""
        return self.worker is not None or bool(self._waiting())

    def acquire(self) -> bool:
        """Take the device's lock, which ends with this process; False where another supervisor holds it."""
        try:
            self._lock.acquire(timeout=HANDOVER)
        except Timeout:
            return False
        self._sign_of_life()
        return True

    def step(self) -> None:
        """Signs of life; then start a worker, look after it, or settle what a dead one left."""
        if abs(time.time() - self._beat_at) >= BEAT:
            self._sign_of_life()
        self.store.reconcile()
        if self.worker is None:
            self._begin()
        elif self.worker.exitcode is not None:
            self._settle(self.worker)
        else:
            self._look_after(self.worker)

    def close(self) -> None:
        """Stop the worker, queue its run again, give the device back."""
        if self.worker is not None:
            self._stop(self.worker)
            self.worker.join(FAREWELL)
            self.worker.kill()
            self._settle(self.worker)
        self.store.unregister(self.device, os.getpid())
        self._lock.release()

    def _sign_of_life(self) -> None:
        self._beat_at = time.time()
        self.store.register(self.device, os.getpid(), self.about)
        if self.worker is not None and self.worker.pid:
            for id_ in self.store.running(self.worker.pid):
                self.store.beat(id_, self.worker.pid)

    def _waiting(self) -> list[str]:
        """A CPU takes runs that ask for no device only where there is nothing faster."""
        faster = any(other["device"] != "cpu" for other in self.store.workers())
        return self.store.waiting(self.device, take_any=self.device != "cpu" or not faster)

    def _begin(self) -> None:
        self._group = self._waiting()
        if not self._group:
            return
        arguments = (str(self.store.path), self._group, self.device)
        worker = self._context.Process(target=serve, args=arguments, name=f"worker {self.device}", daemon=True)
        try:
            worker.start()
        except (OSError, EOFError) as error:  # the fork server died, or the machine has no room for a process
            self._died(f"could not be started: {type(error).__name__} {error}")
            return
        self.worker = worker
        _say(self.device, f"worker {worker.pid} takes {len(self._group)} run{'s' * (len(self._group) > 1)}")

    def _look_after(self, worker: BaseProcess) -> None:
        """Stop a worker whose run was cancelled or declared lost, before long computations let it find out by itself."""
        for id_, state in self.store.claimed(worker.pid or 0).items():
            if state in ("succeeded", "failed"):
                self._finished.add(id_)  # whatever is done with it afterwards is no concern of this worker
            elif state != "running" and id_ in self._group and id_ not in self._finished and self._stopped_at is None:
                self._stop(worker)
        if self._stopped_at is not None and time.time() - self._stopped_at > PATIENCE:
            worker.kill()

    def _stop(self, worker: BaseProcess) -> None:
        self._stopped_at = time.time()
        worker.terminate()

    def _settle(self, worker: BaseProcess) -> None:
        """A worker is gone: the run of one that died is lost, of one that was stopped queued again; the next may come."""
        worker.join()
        pid, code = worker.pid or 0, worker.exitcode
        if self._stopped_at is not None:
            self.store.release(pid)
        elif self.store.reconcile(dead=pid) or code == 0:
            self._deaths = 0
        else:
            self._died(f"ended with exit status {code}")
        _say(self.device, f"worker {pid} ended ({code})")
        worker.close()
        self.worker, self._stopped_at, self._finished = None, None, set()

    def _died(self, how: str) -> None:
        """A worker died without a run: after a few of them it is no accident, and the group fails instead of spinning."""
        self._deaths += 1
        if self._deaths >= TRIES:
            self._deaths = 0
            reason = (
                f"The worker process for {self.device} {how} before it could begin, {TRIES} times in a row. What it wrote "
                f"is in {self.store.path / 'logs'}, or where `python -m pruneviz work` runs; then resume the run."
            )
            fail(self.store, self._group, reason, device=self.device)


def _context() -> SpawnContext | ForkServerContext:
    """A fork server that has imported torch and starts a worker in milliseconds; elsewhere every worker starts afresh."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    forkserver.ensure_running()
    return context


def _rest(sentinels: list[int]) -> None:
    """Until the next look, or until a worker ends."""
    if sentinels:
        connection.wait(sentinels, POLL)
    else:
        time.sleep(POLL)


def _say(device: str, what: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {device}: {what}", flush=True)

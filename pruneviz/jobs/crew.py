"""The worker processes of one device: one at a time, or several where each leaves cores idle."""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from multiprocessing import connection, forkserver
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING

from pruneviz.basics.processes import GUARD, refuse_while_beginning
from pruneviz.jobs import devices
from pruneviz.jobs.recording import BEAT, POLL, Follower, fail, record, share_cores
from pruneviz.jobs.worker import serve
from pruneviz.store import STARTING, Store

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.context import ForkServerContext, SpawnContext

    from pruneviz.basics.events import Event

    Context = SpawnContext | ForkServerContext

PATIENCE = 5.0  # seconds from SIGTERM to SIGKILL for a worker whose run was taken away
FAREWELL = 0.7  # the same where all are stopped
TRIES = 3  # workers in a row that may die before a run says a word
NICE = 5  # how much a worker stands back for the pages
# what a worker needs anyway, imported once: torch's first gradient with a given slope imports sympy, its first optimiser a
# compiler
PRELOAD = [
    "pruneviz.run.loop",
    "pruneviz.jobs.worker",
    "torch.fx.experimental.symbolic_shapes",
    "torch._dynamo",
    "pandas",
]
PRELOAD += ["sklearn.datasets"]
PRELOAD += ["pruneviz.jobs.fork_server"]  # the last: what it registers comes first at the end


class Worker:
    """One process, the group of runs that it was given, and the sort of work these are."""

    def __init__(self, process: BaseProcess, group: list[str], sort: str, says: Connection):
        self.process, self.group, self.sort = process, group, sort
        self.pid = process.pid or 0
        self.finished: set[str] = set()  # runs that it was seen to finish
        self.stopped_at: float | None = None  # when it was told to stop
        self._says = says

    def heard(self) -> int | None:
        """The threads that its runs use, once it says so: when it begins the first one."""
        with suppress(EOFError, OSError):
            return self._says.recv() if self._says.poll() else None
        return None

    def stop(self) -> None:
        self.stopped_at = time.time()
        self.process.terminate()

    def close(self) -> None:
        self._says.close()
        self.process.close()


class Crew:
    """Starts, watches and stops the workers. Nothing here blocks: :meth:`step` is called again and again.

    A run says how many threads it uses when it begins. While all that go on use one, others may go on beside them, up to
    ``most`` at a time; each takes the next run of the queue. Numbers do not depend on who goes on beside whom.
    """

    def __init__(
        self,
        store: Store,
        device: str,
        context: Context,
        *,
        most: int = 1,
        nice: int = 0,
        say: Callable[[str], None] = lambda what: None,
    ):
        self.store, self.device, self._say = store, device, say
        self.workers: list[Worker] = []
        self._context, self._most, self._nice = context, most, nice
        self._threads: dict[str, int] = {}  # sort of work -> threads that it uses
        self._deaths = 0
        self._crowded = False  # whether more workers than one died again and again

    @property
    def sentinels(self) -> list[int]:
        """What becomes ready when a worker ends."""
        return [worker.process.sentinel for worker in self.workers]

    def beat(self) -> None:
        """A sign of life for every run that goes on."""
        for worker in self.workers:
            for id_ in self.store.running(worker.pid):
                self.store.beat(id_, worker.pid)

    def step(self, waiting: Callable[[], list[str]]) -> None:
        """Settle what dead workers left, look after the others, and start one where there is work and room.

        ``waiting`` gives the queued runs to take next, all on one network.
        """
        for worker in list(self.workers):
            if worker.process.exitcode is not None:
                self._settle(worker)
            else:
                self._look_after(worker)
        self._crowded = self._crowded and bool(self.workers)
        if len(self.workers) < self._most and not self._crowded and (group := waiting()) and self._room(group):
            self._begin(group)

    def close(self) -> None:
        """Stop the workers and queue their runs again."""
        for worker in self.workers:
            worker.stop()
        until = time.time() + FAREWELL
        for worker in list(self.workers):
            worker.process.join(max(0.0, until - time.time()))
            worker.process.kill()
            self._settle(worker)

    def _room(self, group: Sequence[str]) -> bool:
        """Whether these runs may go on beside those that do; there is always room for the first."""
        idle = sum(not self.store.running(worker.pid) for worker in self.workers)  # they take runs of this group first
        sorts = {self._sort(group[0]), *(worker.sort for worker in self.workers)}
        return not self.workers or (len(group) > idle and all(self._threads.get(sort) == 1 for sort in sorts))

    def _sort(self, id_: str) -> str:
        """What the size of a training step, and with it the number of threads, depends on."""
        config = json.loads(self.store.status(id_)["config"])
        return json.dumps([config.get(name) for name in ("dataset", "model", "width", "train")])

    def _begin(self, group: list[str]) -> None:
        hears, says = self._context.Pipe(duplex=False)
        process = self._context.Process(
            target=serve,
            args=(str(self.store.path), group, self.device, says, self._nice),
            name=f"worker {self.device}",
            daemon=True,
        )
        try:
            process.start()
        except (OSError, EOFError) as error:  # the fork server died, or the machine has no room for a process
            hears.close()
            self._died(group, f"could not be started: {type(error).__name__} {error}")
            return
        finally:
            says.close()
        self.workers.append(Worker(process, group, self._sort(group[0]), hears))
        self._say(f"worker {process.pid} takes {len(group)} run{'s' * (len(group) > 1)}")

    def _look_after(self, worker: Worker) -> None:
        """Stop a worker whose run was cancelled or declared lost, before long computations let it find out by itself."""
        if (threads := worker.heard()) is not None:
            self._threads[worker.sort] = threads
        for id_, state in self.store.claimed(worker.pid).items():
            if state in ("succeeded", "failed"):
                worker.finished.add(id_)  # whatever is done with it afterwards is no concern of this worker
            elif (
                state != "running" and id_ in worker.group and id_ not in worker.finished and worker.stopped_at is None
            ):
                worker.stop()
        if worker.stopped_at is not None and time.time() - worker.stopped_at > PATIENCE:
            worker.process.kill()

    def _settle(self, worker: Worker) -> None:
        """A worker is gone: the run of one that died is lost, of one that was stopped queued again."""
        worker.process.join()
        self.workers.remove(worker)
        code = worker.process.exitcode
        if worker.stopped_at is not None:
            self.store.release(worker.pid)
        elif self._left_begun(worker) or code == 0:
            self._deaths = 0
        else:
            self._died(worker.group, f"ended with exit status {code}")
        self._say(f"worker {worker.pid} ended ({code})")
        worker.close()

    def _left_begun(self, worker: Worker) -> bool:
        """Settle what a worker that died was running; whether any of it had said a word."""
        begun = any(self.store.status(id_)["message"] != STARTING for id_ in self.store.running(worker.pid))
        self.store.reconcile(dead=worker.pid)
        return begun

    def _died(self, group: list[str], how: str) -> None:
        """A worker died before its run said a word: after a few of them it is no accident. The group fails instead of spinning, or where
        others go on, it is left to them."""
        self._deaths += 1
        if self._deaths < TRIES:
            return
        self._deaths = 0
        if self.workers:
            self._crowded = True
            return
        reason = (
            f"The worker process for {self.device} {how} before it could begin, {TRIES} times in a row. What it wrote "
            f"is in {self.store.path / 'logs'}, or where the command or script runs that started it. {GUARD} Then resume the run."
        )
        for id_ in group:
            if self.store.status(id_)["state"] == "lost":
                self.store.resume(id_)  # to be ended with the reason
        fail(self.store, group, reason, device=self.device)


def fork_context() -> Context:
    """A fork server that has imported torch and starts a worker in milliseconds; elsewhere every worker starts afresh."""
    share_cores()
    os.environ.update(devices.environment())  # the fork server and the workers inherit it
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # asking whether there is CUDA does not spoil a fork
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    forkserver.ensure_running()
    return context


def record_together(
    store: Store, ids: Iterable[str], *, device: str | None = None, on_event: Callable[[Event], None] | None = None
) -> None:
    """As :func:`record`, by several processes where each run leaves cores of a CPU idle; this one follows them."""
    refuse_while_beginning()
    ids = list(dict.fromkeys(ids))
    follower = Follower(store, ids, on_event)
    most = devices.cpu()["workers"]
    if most < 2 or len(follower.unfinished()) < 2 or device not in (None, "cpu"):
        return record(store, ids, device=device, on_event=on_event)
    context = fork_context()
    if device is None:
        from pruneviz.run.loop import default_device  # brings torch, while the fork server imports it too

        if str(default_device()) != "cpu":
            return record(store, ids, on_event=on_event)

    def waiting() -> list[str]:
        rows = [row for row in follower.unfinished() if row["state"] == "queued"]
        return [row["id"] for row in rows if row["family"] == rows[0]["family"]]

    crew, beat_at = Crew(store, "cpu", context, most=most), 0.0
    try:
        while follower.look():
            if time.time() - beat_at >= BEAT:
                beat_at = time.time()
                crew.beat()
            store.reconcile()
            crew.step(waiting)
            rest(crew.sentinels, POLL)
    except BaseException:
        mine = {id_ for worker in crew.workers for id_ in store.running(worker.pid)}
        for row in follower.unfinished():
            if row["id"] in mine or row["state"] == "queued":
                store.cancel(row["id"])
        raise
    finally:
        crew.close()
    return None


def rest(sentinels: list[int], seconds: float) -> None:
    """Until the next look, or until a worker ends."""
    if sentinels:
        connection.wait(sentinels, seconds)
    else:
        time.sleep(seconds)

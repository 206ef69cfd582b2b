"""The worker: one process that carries out one group of runs and ends."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection

from pruneviz.basics.errors import StaleAttempt
from pruneviz.jobs.recording import carry_out
from pruneviz.store import Store


def serve(folder: str, ids: Sequence[str], device: str, says: Connection, nice: int = 0) -> None:
    """The body of the process. A run that was taken away ends it quietly; the rest of the group stays queued.

    ``says`` takes the number of threads that its runs use, once. Runs of the group that others have taken are left out.

    SIGTERM keeps its default handler, which frees everything at once, even inside a decomposition; Ctrl-C is the
    supervisor's to answer.
    """
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if nice and hasattr(os, "nice"):
        os.nice(nice)
    store = Store(folder, samples=None)
    threading.Thread(target=_end_with_supervisor, args=(store,), name="supervisor watch", daemon=True).start()
    with suppress(StaleAttempt):
        carry_out(store, ids, device=device, on_begin=lambda threads: _say(says, threads))
    store.close()


def _say(says: Connection, threads: int) -> None:
    with suppress(OSError):  # nobody listens any more
        says.send(threads)


def _end_with_supervisor(store: Store) -> None:
    """Once the supervisor is gone, even by SIGKILL, give the run back and the device with it, for the next one."""
    supervisor = multiprocessing.parent_process()
    if supervisor is None:
        return
    supervisor.join()
    try:
        store.release(os.getpid())
    finally:
        os._exit(1)

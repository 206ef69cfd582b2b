"""Carrying runs out in this process: claim, execute, write each event to the store. Workers and the command line do the same."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pruneviz.basics.errors import InvalidSetting, PrunevizError, StaleAttempt
from pruneviz.basics.events import Done, Event, Failed, Progress
from pruneviz.basics.processes import name_of_this, refuse_while_beginning
from pruneviz.basics.version import __version__
from pruneviz.plan.config import RunConfig
from pruneviz.store import ENDED, Store

if TYPE_CHECKING:
    from pruneviz.run.given import Given
    from pruneviz.run.loop import Resume

BEAT = 2.0  # seconds between signs of life; the store's lease is several of them
POLL = 0.3  # seconds between looks at a run that another process carries out


def record(
    store: Store,
    ids: Iterable[str],
    *,
    device: str | None = None,
    on_event: Callable[[Event], None] | None = None,
    given: Given | None = None,
) -> None:
    """Bring queued runs to their end in this process, reporting to ``on_event``; returns when every one has ended.

    A run that another process carries out is followed, with progress made from its row, and taken over where that
    process gives it back. Interrupted, it cancels what it had not finished: asked for again, a run goes on from its
    last finished stage. ``device`` defaults to the best there is; ``given`` opens what the runs stand on.
    """
    refuse_while_beginning()
    share_cores()
    from pruneviz.run.loop import default_device

    device = full_name(device or str(default_device()))
    follower = Follower(store, ids, on_event)
    try:
        with _heartbeat(store):
            while unfinished := follower.unfinished():
                queued = [row["id"] for row in unfinished if row["state"] == "queued"]
                if queued:
                    with suppress(StaleAttempt):  # cancelled or lost meanwhile, as the store says; the others go on
                        carry_out(store, queued, device=device, on_event=follower.tell, given=given)
                    continue
                follower.look()
                time.sleep(POLL)
                store.reconcile()
    except BaseException:
        mine = set(store.running(os.getpid()))
        for row in follower.unfinished():
            if row["id"] in mine or row["state"] == "queued":
                store.cancel(row["id"])
        raise
    follower.look()


class Follower:
    """Tells what happens to runs: what it is handed, and for those of other processes what their rows say."""

    def __init__(self, store: Store, ids: Iterable[str], on_event: Callable[[Event], None] | None):
        self._store, self._ids, self._on_event = store, list(dict.fromkeys(ids)), on_event
        self._ended: set[str] = set()  # whose end was told
        self._warned: Counter[str] = Counter()  # warnings told, or older than this
        for row in self._rows():
            self._warned[row["id"]] = len(json.loads(row["warnings"])) * (row["state"] in ENDED)

    def tell(self, event: Event) -> None:
        """Pass an event on."""
        if isinstance(event, Done | Failed):
            self._ended.add(event.run)
        elif isinstance(event, Progress) and event.warning:
            self._warned[event.run] += 1
        if self._on_event is not None:
            self._on_event(event)

    def unfinished(self) -> list[dict[str, Any]]:
        """The rows of the runs that have not ended."""
        return [row for row in self._rows() if row["state"] not in ENDED]

    def look(self) -> bool:
        """Tell progress, new warnings and ends, from the rows; whether any run goes on."""
        goes_on = False
        for row in self._rows():
            if row["id"] not in self._ended:
                self._follow(row)
                goes_on |= row["state"] not in ENDED
        return goes_on

    def _rows(self) -> list[dict[str, Any]]:
        return [self._store.status(id_) for id_ in self._ids]

    def _follow(self, row: dict[str, Any]) -> None:
        id_, state, warnings = row["id"], row["state"], json.loads(row["warnings"])
        if state == "queued":
            return
        for said in warnings[self._warned[id_] :]:
            stage, _, message = said.partition(": ")
            self.tell(Progress(id_, row["fraction"], stage, message, warning=True))
        self._warned[id_] = len(warnings)  # a new attempt begins with none
        if state == "running":
            self.tell(Progress(id_, row["fraction"], row["stage"], row["message"]))
        else:
            self.tell(Done(id_) if state == "succeeded" else Failed(id_, row["error"] or row["message"]))


def carry_out(
    store: Store,
    ids: Sequence[str],
    *,
    device: str,
    on_event: Callable[[Event], None] | None = None,
    on_begin: Callable[[int], None] | None = None,
    given: Given | None = None,
) -> None:
    """One pass over queued runs: claim each, execute it, record its events; those that are not to be had are left out.

    The runs share data, dense networks and statistics. ``on_begin`` is told, as the first one begins, how many threads it
    uses. Raises StaleAttempt where a run was taken away while it went.
    """
    import torch

    from pruneviz.run.dense import DenseCache
    from pruneviz.run.loop import execute

    attempts: dict[str, int] = {}
    configs: dict[str, RunConfig] = {}
    kept_as: dict[str, str] = {}  # id of the configuration today -> id that the store has had it under since

    def claim(id_: str) -> bool:
        code = f"pruneviz {__version__}, torch {torch.__version__}"
        attempt = store.claim(id_, device=device, worker=os.getpid(), worker_id=name_of_this(), code=code)
        if attempt is not None:
            attempts[id_] = attempt
        return attempt is not None

    def report(event: Event) -> None:
        store.record(event, attempts[event.run])
        if on_event is not None:
            on_event(event)

    for id_ in ids:
        try:
            config = configs[id_] = config_of(store, id_, objects=given is not None)
            kept_as[config.id] = id_
        except PrunevizError as error:
            if claim(id_):
                report(Failed(id_, str(error)))
    events = execute(
        list(configs.values()),
        resume=lambda id_: resume_of(store, kept_as[id_], configs[kept_as[id_]]),
        cache=DenseCache(store.dense_folder),
        device=device,
        wanted=lambda id_: claim(kept_as[id_]),
        given=given,
    )
    for event in events:
        if on_begin is not None:
            on_begin(torch.get_num_threads())
            on_begin = None
        report(replace(event, run=kept_as[event.run]))


def config_of(store: Store, id_: str, *, objects: bool = False) -> RunConfig:
    """The configuration of a run that is to be carried out. Raises InvalidSetting where it means something else by now."""
    config = RunConfig(**json.loads(store.status(id_)["config"]))
    store.refuse_strange_code(config, objects=objects)
    if config.id not in store or store.status(config.id)["id"] != id_:
        raise InvalidSetting(
            f"Run {id_} was asked for under another version of its method, network or data; here it would be {config.id}. "
            "Delete it and ask for it again."
        )
    return config


def resume_of(store: Store, id_: str, config: RunConfig) -> Resume:
    """What earlier attempts finished. On a trajectory every stage before the last stored one is finished, though the
    transient networks in between have given way."""
    from pruneviz.run.loop import Resume

    stored = store.finished_stages(id_)
    names = [step.name for step in config.steps]
    if not config.one_shot:
        stored_at = [i for i, name in enumerate(names) if name in stored]
        finished = names[: stored_at[-1] + 1] if stored_at else []
        last = finished[-1:]
    else:
        finished = last = [name for name in names if name in stored]
    return Resume(frozenset(finished), lambda stage: store.weights(id_, stage) if stage in last else {})


def fail(store: Store, ids: Iterable[str], reason: str, *, device: str) -> None:
    """End queued runs that no worker could begin."""
    for id_ in ids:
        attempt = store.claim(id_, device=device, worker=os.getpid(), code=f"pruneviz {__version__}")
        if attempt is not None:
            store.record(Failed(id_, reason), attempt)


def share_cores() -> None:
    """Idle OpenMP threads sleep instead of spinning, unless the user chose: on a busy machine a run takes 1 s, not 30.

    It must be said before torch is imported; numbers do not change.
    """
    if "torch" not in sys.modules:
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def full_name(device: str) -> str:
    """``cuda`` is ``cuda:0``."""
    return "cuda:0" if device == "cuda" else device


@contextmanager
def _heartbeat(store: Store) -> Iterator[None]:
    """Signs of life for this process's runs while a long computation says nothing; a thread with its own connection."""
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(BEAT):
            for id_ in store.running(os.getpid()):
                store.beat(id_, os.getpid())
        store.close()

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()

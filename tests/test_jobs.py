"""Workers, with real processes and real kills: what dies, what is lost, what goes on."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from pruneviz.basics.errors import StaleAttempt, WorkerError
from pruneviz.basics.events import Done, Failed, Metric, Progress, Weights
from pruneviz.jobs import devices, local, recording
from pruneviz.jobs.base import Backend
from pruneviz.jobs.crew import Crew, fork_context, record_together
from pruneviz.jobs.local import LocalBackend, ensure_supervisor, lifespan_supervisor
from pruneviz.jobs.recording import carry_out, record
from pruneviz.plan.config import RunConfig
from pruneviz.store import ENDED, Store

LONG = 10_000  # epochs that nobody waits for
SHORT = {"epochs": 1, "batch_size": 256}


def config(epochs: int = 1, **settings) -> RunConfig:
    """Digits, one dense epoch: all on one dense network. ``epochs``: after each pruning step."""
    given = {"method": "magnitude", "sparsities": (0.5, 0.9), "rounds": 1, "probes": (), "train": SHORT, **settings}
    return RunConfig(tune={"epochs": epochs}, **given)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """In this process only: two threads that spin for each other are slow where others work too."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@contextmanager
def supervisor(folder: Path, *, ahead: str = "") -> Iterator[subprocess.Popen]:
    """``python -m pruneviz work``, as a person would start it; ``ahead`` comes first in its import path."""
    command = [sys.executable, "-m", "pruneviz", "work", "--device", "cpu", "--store", str(folder)]
    environment = devices.environment() | {"OMP_WAIT_POLICY": "passive"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (ahead, environment["PYTHONPATH"])))
    with (folder / "work.log").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> Iterator[tuple[Store, subprocess.Popen]]:
    """A store and the supervisor that works on it, for the tests that leave it as it was."""
    store = Store(tmp_path_factory.mktemp("served"), samples=None)
    with supervisor(store.path) as process:
        yield store, process
    store.close()


def until(holds: Callable[[], object], seconds: float = 120.0) -> float:
    """Wait; returns how long it took."""
    started = time.monotonic()
    while not holds():
        assert time.monotonic() - started < seconds, f"not within {seconds:g} s"
        time.sleep(0.01)
    return time.monotonic() - started


def state(store: Store, id_: str) -> str:
    return store.status(id_)["state"]


def worker_of(store: Store, id_: str) -> int:
    """The process that carries a run out, once it has begun to train."""
    until(lambda: state(store, id_) == "running" and store.status(id_)["message"] != "starting")
    return store.status(id_)["worker"]


def gone(pid: int) -> bool:
    """Whether a process has ended; one whose exit status nobody has asked for yet has ended too."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("Z")
    except ProcessLookupError:
        return True
    except FileNotFoundError:  # no /proc on this system
        return False


def freeze(store: Store, pid: int) -> None:
    """Stop a process where it stands, but not while it writes: the database would be frozen with it."""
    with store._write():
        os.kill(pid, signal.SIGSTOP)
        time.sleep(0.02)


def numbers(store: Store, id_: str) -> dict[tuple, float]:
    return {tuple(row[:-1]): row[-1] for row in store.metrics([id_]).fillna("nan").values.tolist()}


def history(store: Store, id_: str) -> list[list]:
    """Losses and accuracies, epoch by epoch, after the dense network, which only the first run trains."""
    found = store.history([id_])
    return found[found["stage"] != "dense"].values.tolist()


def test_a_killed_worker_loses_only_its_run(served):
    store, process = served
    victim, *others = store.queue([config(LONG, seed=1), config(1, seed=1), config(2, seed=1)])
    os.kill(worker_of(store, victim), signal.SIGKILL)
    assert until(lambda: state(store, victim) == "lost") < 5
    until(lambda: all(state(store, id_) in ENDED for id_ in others))
    assert [state(store, id_) for id_ in others] == ["succeeded", "succeeded"]
    assert state(store, victim) == "lost"
    assert process.poll() is None


@pytest.mark.parametrize(
    ("shape", "kill_after", "untouched"),
    [
        ({"sparsities": (0.5, 0.7, 0.9)}, "shot-0.7", "shot-0.5"),
        ({"sparsities": (0.5, 0.9), "rounds": 4}, "round-003", "round-001"),
    ],
    ids=["one shot", "iterative"],
)
def test_a_resumed_run_equals_an_uninterrupted_one(served, shape, kill_after, untouched):
    store, _ = served
    wanted = config(20, seed=2, **shape)
    (id_,) = store.queue([wanted])
    until(lambda: kill_after in store.finished_stages(id_))
    os.kill(store.status(id_)["worker"], signal.SIGKILL)
    until(lambda: state(store, id_) == "lost")
    weights = store.folder(id_) / f"weights-{untouched}.safetensors"
    written = weights.stat().st_mtime_ns
    assert store.resume(id_)
    until(lambda: state(store, id_) in ENDED)
    assert (state(store, id_), store.status(id_)["attempt"]) == ("succeeded", 2)
    assert weights.stat().st_mtime_ns == written, "a finished stage was done again"
    resumed, epochs = numbers(store, id_), history(store, id_)

    store.queue([wanted], again=True)
    until(lambda: state(store, id_) == "succeeded")
    assert store.status(id_)["attempt"] == 3
    assert numbers(store, id_) == resumed
    assert history(store, id_) == epochs
    assert {s for _, _, _, s, *_ in resumed} == {0.0, *wanted.sparsities}


def test_cancel_frees_the_process(served):
    store, process = served
    cancelled, other = store.queue([config(LONG, seed=3), config(1, seed=3)])
    pid = worker_of(store, cancelled)
    assert LocalBackend(store).cancel(cancelled)
    assert state(store, cancelled) == "cancelled"
    assert until(lambda: gone(pid)) < 5
    until(lambda: state(store, other) == "succeeded")
    assert state(store, cancelled) == "cancelled"
    assert process.poll() is None


def test_cancel_ends_a_process_that_does_not_answer(served):
    store, _ = served
    cancelled, other = store.queue([config(LONG, seed=8), config(1, seed=8)])
    pid = worker_of(store, cancelled)
    freeze(store, pid)  # it cannot find out by itself
    store.cancel(cancelled)
    assert until(lambda: gone(pid)) < 15
    until(lambda: state(store, other) == "succeeded")
    assert state(store, cancelled) == "cancelled"


def test_a_queued_run_can_be_cancelled(served):
    store, _ = served
    running, queued = store.queue([config(LONG, seed=4), config(1, seed=4, model="digits-cnn")])  # not side by side
    worker_of(store, running)
    assert store.cancel(queued)
    assert store.cancel(running)
    (after,) = store.queue([config(1, seed=5)])
    until(lambda: state(store, after) == "succeeded")
    assert (state(store, queued), store.status(queued)["attempt"]) == ("cancelled", 0)


def test_a_zombies_report_is_refused(served):
    store, process = served
    (id_,) = store.queue([config(LONG, seed=6)])
    pid = worker_of(store, id_)
    freeze(store, process.pid)  # nobody tells the worker; it must find out by itself
    try:
        store.reconcile(dead=pid)
        store.resume(id_)
        attempt = store.claim(id_, device="cpu", worker=os.getpid(), code="test")
        assert attempt == 2
        store.record(Progress(id_, 0.25, "dense", "the second attempt"), attempt)
        assert until(lambda: gone(pid)) < 10
        assert store.status(id_)["message"] == "the second attempt"
        with pytest.raises(StaleAttempt, match="no longer attempt 1's"):
            store.record(Metric(id_, 0.5, "tuned", "test", "accuracy", 1.0), 1)
    finally:
        process.send_signal(signal.SIGCONT)
    store.cancel(id_)


def test_two_supervisors_do_not_share_a_device(served):
    store, process = served
    with supervisor(store.path) as second:
        assert second.wait(15) == 0
    assert "another supervisor holds it" in (store.path / "work.log").read_text()
    assert [w["pid"] for w in store.workers()] == [process.pid]
    assert process.poll() is None


def test_a_run_that_another_process_carries_out_is_followed(served):
    store, _ = served
    (id_,) = store.queue([config(25, seed=7)])
    pid = worker_of(store, id_)
    events = []
    record(store, [id_], device="cpu", on_event=events.append)
    assert events[-1] == Done(id_)
    assert all(isinstance(event, Progress) for event in events[:-1])
    assert (store.status(id_)["attempt"], store.status(id_)["worker"]) == (1, pid)


def test_a_restarted_supervisor_goes_on(store):
    (id_,) = store.queue([config(40, sparsities=(0.5, 0.7, 0.9))])
    for ending, finished in ((signal.SIGTERM, "shot-0.5"), (signal.SIGKILL, "shot-0.7")):
        with supervisor(store.path) as process:
            until(lambda stage=finished: stage in store.finished_stages(id_))
            pid = store.status(id_)["worker"]
            process.send_signal(ending)
            assert until(lambda ended=process: ended.poll() is not None) < 2
            assert until(lambda worker=pid: gone(worker)) < 5, "a worker without a supervisor keeps its device"
            assert until(lambda: state(store, id_) == "queued") < 5
    finished, events = set(store.finished_stages(id_)), []
    record(store, [id_], device="cpu", on_event=events.append)
    assert (state(store, id_), store.status(id_)["attempt"]) == ("succeeded", 3)
    assert finished == {"shot-0.5", "shot-0.7"}
    assert {event.stage for event in events if isinstance(event, Weights)} == {"shot-0.9"}


@pytest.mark.parametrize("how", ["ImportError", "RuntimeError"])
def test_a_worker_that_cannot_begin_fails_its_runs_and_does_not_spin(store, tmp_path, how):
    (tmp_path / "broken" / "torch").mkdir(parents=True)
    (tmp_path / "broken" / "torch" / "__init__.py").write_text(f"raise {how}('this torch is broken')")
    (id_,) = store.queue([config()])
    with supervisor(store.path, ahead=str(tmp_path / "broken")) as process:
        until(lambda: state(store, id_) in ENDED)
        assert process.poll() is None
    assert state(store, id_) == "failed"
    assert "before it could begin, 3 times in a row" in store.status(id_)["error"]
    assert "this torch is broken" in (store.path / "work.log").read_text()


def test_a_supervisor_is_started_once_adopted_and_stopped_by_whoever_started_it(store, monkeypatch):
    handle = ensure_supervisor(store.path, device="cpu")
    try:
        until(store.workers)
        assert ensure_supervisor(store.path) is handle
        with monkeypatch.context() as another_server:
            another_server.setattr(local, "_handles", {})
            adopted = ensure_supervisor(store.path)
            assert adopted.process is None
            adopted.stop()
        assert handle.alive
        assert [w["device"] for w in LocalBackend(store).devices()] == ["cpu"]
    finally:
        handle.stop()
    assert not handle.alive
    assert store.workers() == []
    assert (store.path / "logs" / "work.log").is_file()


def test_a_server_replaces_a_supervisor_that_died_and_stops_it_at_the_end(store, monkeypatch):
    monkeypatch.setattr(local, "WATCH", 0.1)

    async def serve() -> int:
        async with lifespan_supervisor(store.path, device="cpu") as first:
            await asyncio.to_thread(until, store_knows(first.process.pid))
            first.process.kill()
            await asyncio.to_thread(until, store_knows_other_than(first.process.pid))
            return store.workers()[0]["pid"]

    def pids() -> list[int]:
        reader = Store(store.path, samples=None)
        try:
            return [w["pid"] for w in reader.workers()]
        finally:
            reader.close()

    def store_knows(pid: int) -> Callable[[], bool]:
        return lambda: pids() == [pid]

    def store_knows_other_than(pid: int) -> Callable[[], bool]:
        return lambda: pids() not in ([], [pid])

    second = asyncio.run(serve())
    assert gone(second)
    assert store.workers() == []


def test_the_command_line_carries_runs_out_in_its_own_process(store):
    ids = store.queue([config(), config(2)])
    events = []
    record(store, ids, device="cpu", on_event=events.append)
    assert [event for event in events if isinstance(event, Done | Failed)] == [Done(id_) for id_ in ids]
    assert {store.status(id_)["worker"] for id_ in ids} == {os.getpid()}
    events.clear()
    record(store, ids, device="cpu", on_event=events.append)
    assert events == [Done(id_) for id_ in ids], "a finished run is not run again"


def test_an_interrupted_command_cancels_its_runs_and_the_same_command_goes_on(store):
    ids = store.queue([config(), config(2)])

    def interrupt(event) -> None:
        if isinstance(event, Metric) and event.stage == "tuned":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        record(store, ids, device="cpu", on_event=interrupt)
    assert [state(store, id_) for id_ in ids] == ["cancelled", "cancelled"]
    record(store, store.queue([config(), config(2)]), device="cpu")
    assert [state(store, id_) for id_ in ids] == ["succeeded", "succeeded"]


def test_a_run_cancelled_under_the_command_line_ends_alone(store):
    ids = store.queue([config(), config(2)])
    events = []

    def cancel_first(event) -> None:
        events.append(event)
        if len(events) == 1:
            store.cancel(ids[0])

    record(store, ids, device="cpu", on_event=cancel_first)
    assert [state(store, id_) for id_ in ids] == ["cancelled", "succeeded"]
    assert Failed(ids[0], "cancelled") in events


def test_a_long_silence_in_this_process_is_no_death(store, monkeypatch):
    monkeypatch.setattr(recording, "BEAT", 0.02)
    (id_,) = store.queue([config()])
    store.claim(id_, device="cpu", worker=os.getpid(), code="test")
    claimed = store.status(id_)["heartbeat"]
    with recording._heartbeat(store):
        until(lambda: store.status(id_)["heartbeat"] > claimed, 5)
    assert store.status(id_)["heartbeat"] > claimed


@pytest.fixture(scope="module")
def context():
    """Where workers of this process are forked from: with two threads, however many cores there are."""
    before = dict(os.environ)
    os.environ["OMP_NUM_THREADS"] = "2"
    yield fork_context()
    os.environ.clear()
    os.environ.update(before)


@contextmanager
def crew(store: Store, context, most: int = 2) -> Iterator[tuple[Crew, Callable[[Callable[[], object]], None]]]:
    """Workers for the store's queue, and how to wait for something while they are looked after."""
    made = Crew(store, "cpu", context, most=most)

    def go_on_until(holds: Callable[[], object]) -> None:
        until(lambda: made.step(lambda: store.waiting("cpu", take_any=True)) or holds())

    try:
        yield made, go_on_until
    finally:
        made.close()


def at_work(store: Store, ids: list[str]) -> bool:
    rows = [store.status(id_) for id_ in ids]
    return all(row["state"] == "running" and row["message"] != "starting" for row in rows)


def test_runs_of_one_thread_go_on_beside_each_other_and_one_that_is_cancelled_or_killed_ends_alone(store, context):
    ids = store.queue([config(LONG - i, seed=11) for i in range(4)])
    with crew(store, context) as (workers, go_on_until):
        go_on_until(lambda: at_work(store, ids[:2]))
        cancelled, other = ids[:2]
        pid = store.status(other)["worker"]
        assert pid != store.status(cancelled)["worker"]
        assert len(workers.workers) == 2
        assert [state(store, id_) for id_ in ids[2:]] == ["queued", "queued"], "more at a time than asked for"
        store.cancel(cancelled)
        go_on_until(lambda: at_work(store, [ids[2]]))
        os.kill(store.status(ids[2])["worker"], signal.SIGKILL)
        go_on_until(lambda: at_work(store, [ids[3]]))
        assert [state(store, id_) for id_ in ids] == ["cancelled", "running", "lost", "running"]
        assert (store.status(other)["worker"], store.status(other)["attempt"]) == (pid, 1)
    assert [state(store, id_) for id_ in ids] == ["cancelled", "queued", "lost", "queued"]


def test_numbers_do_not_depend_on_who_goes_on_beside_whom(store, context, tmp_path):
    configs = [config(60, seed=12, method=method) for method in ("magnitude", "snip", "random")]
    ids = store.queue(configs)
    with crew(store, context, most=3) as (_, go_on_until):
        go_on_until(lambda: all(state(store, id_) == "succeeded" for id_ in ids))
    assert len({store.status(id_)["worker"] for id_ in ids}) > 1
    alone = Store(tmp_path / "alone", samples=None)
    record(alone, alone.queue(configs), device="cpu")
    assert [numbers(alone, id_) for id_ in ids] == [numbers(store, id_) for id_ in ids]
    assert [history(alone, id_) for id_ in ids] == [history(store, id_) for id_ in ids]
    alone.close()


def test_a_run_says_how_many_threads_it_uses(store):
    torch.set_num_threads(2)
    try:
        for batch_size, threads in ((64, 1), (4096, 2)):
            ids = store.queue(
                [RunConfig(method="snip", sparsities=(0.5,), train={"epochs": 1, "batch_size": batch_size})]
            )
            said = []
            carry_out(store, ids, device="cpu", on_begin=said.append)
            assert said == [threads]
    finally:
        torch.set_num_threads(1)


def test_a_run_of_several_threads_has_the_device_to_itself(store, context):
    large = {"seed": 13, "train": {"epochs": 1, "batch_size": 4096}}
    ids = store.queue([config(LONG - i, **large) for i in range(2)])
    with crew(store, context) as (workers, go_on_until):
        go_on_until(lambda: at_work(store, ids[:1]))
        for _ in range(20):
            workers.step(lambda: ids[1:])
            time.sleep(0.02)
        assert len(workers.workers) == 1
    assert [store.status(id_)["attempt"] for id_ in ids] == [1, 0]


def test_where_a_second_worker_cannot_begin_the_first_does_the_work(store, context):
    class Full:
        """A machine with room for one process."""

        Pipe = staticmethod(context.Pipe)
        started = 0

        def Process(self, **settings):
            made = context.Process(**settings)
            if self.started:
                made.start = self._no_room
            self.started += 1
            return made

        def _no_room(self):
            raise OSError("no room")

    ids = store.queue([config(20 + i, seed=14) for i in range(3)])
    machine = Full()
    with crew(store, machine) as (_, go_on_until):
        go_on_until(lambda: all(state(store, id_) in ENDED for id_ in ids))
    assert machine.started > 3
    assert [state(store, id_) for id_ in ids] == ["succeeded"] * 3
    assert len({store.status(id_)["worker"] for id_ in ids}) == 1


@pytest.fixture
def two_cores(monkeypatch, context):
    about = devices.cpu()
    monkeypatch.setattr(devices, "cpu", lambda: about | {"workers": 2})


def test_the_command_line_follows_several_workers(store, two_cores):
    reach = {"method": "l1-filters", "model": "digits-cnn", "sparsities": (0.5, 0.99)}
    ids = store.queue([config(5, **reach), config(6, **reach)])
    events = []
    record_together(store, ids, device="cpu", on_event=events.append)
    assert [state(store, id_) for id_ in ids] == ["succeeded"] * 2
    assert os.getpid() not in {store.status(id_)["worker"] for id_ in ids}
    for id_ in ids:
        own = [event for event in events if event.run == id_]
        assert own[-1] == Done(id_)
        assert sum(isinstance(event, Done | Failed) for event in own) == 1
        (warning,) = (event for event in own if isinstance(event, Progress) and event.warning)
        assert (warning.stage, warning.message[:10]) == ("shot-0.99", "Asked for ")
    events.clear()
    record_together(store, ids, device="cpu", on_event=events.append)
    assert events == [Done(id_) for id_ in ids], "a finished run is not run again"


def test_an_interrupted_command_cancels_what_its_workers_carry_out(store, two_cores):
    ids = store.queue([config(LONG - i, seed=15) for i in range(3)])

    def interrupt(event) -> None:
        if at_work(store, ids[:2]):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        record_together(store, ids, device="cpu", on_event=interrupt)
    assert [state(store, id_) for id_ in ids] == ["cancelled"] * 3
    pids = {store.status(id_)["worker"] for id_ in ids[:2]}
    assert len(pids) == 2
    assert all(gone(pid) for pid in pids)


def test_a_run_of_another_version_says_so(store):
    (id_,) = store.queue([config()])
    old = id_[:-12] + "0" * 12
    with store._write() as db:
        db.execute("update runs set id = ?", (old,))
    record(store, [old], device="cpu")
    assert state(store, old) == "failed"
    assert "under another version" in store.status(old)["error"]


def test_a_device_that_is_not_there_is_named_with_those_that_are(monkeypatch):
    monkeypatch.setattr(devices, "_ask_torch", list)
    with pytest.raises(WorkerError, match="no device 'cuda:7' here; found cpu"):
        devices.find("cuda:7")


def test_torch_is_asked_for_devices_in_a_process_of_its_own():
    found = devices.find()
    assert found[0]["device"] == "cpu"
    assert all({"device", "name", "memory"} <= set(about) for about in found)


def test_the_local_backend_is_a_backend(store):
    backend: Backend = LocalBackend(store)
    backend.submit([])
    assert (backend.devices(), backend.reconcile()) == ([], [])


def command(store: Store, *arguments: str) -> subprocess.Popen:
    """``python -m pruneviz``, in a process group of its own."""
    environment = devices.environment() | {"OMP_WAIT_POLICY": "passive", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "pruneviz", *arguments, "--store", str(store.path), "--device", "cpu", "--json"],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip


LESSON = (
    "--sparsity", "0.5,0.7,0.9", "--rounds", "1", "--epochs", "1", "--tune-epochs", "20", "--batch-size", "256",
    "--probes", "masks",
)  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "kill"),
    [
        (("run", "--method", "magnitude"), os.kill),
        (("compare", "--methods", "magnitude,obd"), os.killpg),
    ],
    ids=["one process", "several processes"],
)
def test_a_command_that_was_killed_goes_on_at_once_when_called_again(store, arguments, kill, tmp_path):
    first = command(store, *arguments, *LESSON)
    until(lambda: any(store.finished_stages(id_) for id_ in store.runs()["id"]), 60)
    kill(first.pid, signal.SIGKILL)
    first.communicate()
    with store._write() as db:  # no lease runs out before this test does
        db.execute("update runs set heartbeat = heartbeat + 1000")
    second = command(store, *arguments, *LESSON)
    said, errors = second.communicate(timeout=120)
    assert second.returncode == 0, errors
    ids = list(store.runs()["id"])
    rows = [store.status(id_) for id_ in ids]
    assert {row["state"] for row in rows} == {"succeeded"}
    alone = Store(tmp_path / "alone", samples=None)
    record(alone, alone.queue([store.run(id_).config for id_ in ids]), device="cpu")
    for id_ in ids:
        assert numbers(alone, id_) == numbers(store, id_)
        assert history(alone, id_) == history(store, id_)
    assert len(json.loads(said)["runs"]) == 3 * len(ids)
    alone.close()


def claims_and_dies(folder: str, ids: list[str], device: str, *_: object) -> None:
    Store(folder, samples=None).claim(ids[0], device=device, worker=os.getpid(), code="test")
    os._exit(3)


def test_a_worker_that_dies_before_its_run_says_a_word_is_not_started_for_ever(store, context):
    class Deadly:
        """A machine on which no run gets as far as its first word."""

        Pipe = staticmethod(context.Pipe)

        def Process(self, **settings):
            return context.Process(**(settings | {"target": claims_and_dies}))

    wanted = config()
    (id_,) = store.queue([wanted])

    def asked_for_again_and_again() -> list[str]:
        if state(store, id_) == "lost":
            store.queue([wanted])
        return store.waiting("cpu", take_any=True)

    with crew(store, Deadly()) as (workers, _):
        until(lambda: workers.step(asked_for_again_and_again) or state(store, id_) == "failed")
    assert store.status(id_)["attempt"] <= 4
    assert "3 times in a row" in store.status(id_)["error"]


UNGUARDED = """
import sys
import pruneviz as pv
from pruneviz.jobs import crew, devices
from pruneviz.store import Store

about = devices.cpu()
devices.cpu = lambda: about | {"workers": 2}
store = Store(sys.argv[1], samples=None)
ids = store.queue([pv.RunConfig(dataset="xor", method=m, sparsities=(0.5,)) for m in ("snip", "random")], again=True)
crew.record_together(store, ids, device="cpu")
"""


def test_a_script_without_a_guard_ends_and_its_runs_say_the_mend(store, tmp_path):
    (tmp_path / "script.py").write_text(UNGUARDED)
    script = [sys.executable, str(tmp_path / "script.py"), str(store.path)]
    done = subprocess.run(script, env=devices.environment(), capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
    for id_ in store.runs()["id"]:
        assert (state(store, id_), store.status(id_)["attempt"]) == ("failed", 1)
        assert 'must stand under `if __name__ == "__main__":`' in store.status(id_)["error"]
    assert "was told to start the same again" in done.stderr

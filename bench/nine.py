"""Nine methods on digits, from the click to the last point: ``python bench/nine.py``. Writes ``bench/results/nine.json``.

Digits CNN, one seed, six sparsities, every method's own schedule and every probe. Three ways, each in a new store: as the
dashboard asks (a queue, a supervisor that is there already, its workers), by ``python -m pruneviz compare``, its start
included, and once in one process that writes down where the time goes. A point is a test accuracy of a pruned network.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from statistics import median
from subprocess import DEVNULL, Popen
from typing import Any

from measure import ROOT, record

from pruneviz.jobs import devices, recording
from pruneviz.jobs.local import LocalBackend, ensure_supervisor
from pruneviz.plan.comparison import NINE, nine
from pruneviz.plan.config import RunConfig
from pruneviz.run import dense, probes
from pruneviz.run import loop as pipeline
from pruneviz.store import ENDED, Store
from pruneviz.store.outcome import report

REPEATS = 3
SPARSITIES = nine().configs[0].sparsities
CHOOSING = 3.0  # seconds from the server's start to the click
OTHER = "other"
# what is timed: where it is looked up, its name, under which heading
PARTS = (
    (dense, "fit", "training the dense network"),
    (pipeline, "fit", "training after pruning"),
    (pipeline, "evaluate", "evaluation"),
    (pipeline._Run, "gather", "scoring"),
    (pipeline._Run, "scores", "scoring"),
    (pipeline._Run, "prune", "choosing and repairing"),
    (pipeline._Run, "probe", "Kronecker spectra"),
    (probes, "jacobians", "Jacobians"),
    (probes, "change", "single removals"),
    (probes, "sensitivity", "sensitivity of layers"),
    (probes, "saliency", "histograms"),
    (pipeline, "latencies", "latency"),
    (pipeline, "smaller", "compaction"),
    (pipeline, "cost", "counting"),
    (pipeline, "broken_at", "counting"),
    (Store, "record", "writing to the store"),
)  # fmt: skip


def configs() -> tuple[RunConfig, ...]:
    """The nine runs."""
    return nine().configs


def watch(store: Store, ids: list[str], asked: float) -> dict[str, float]:
    """Seconds from ``asked`` (time.time()) to the first point, the first after training, and the last."""
    found: dict[str, float] = {}
    query = "select stage from metrics where sparsity > 0 and split = 'test' and metric = 'accuracy'"
    while len(found) < 2:
        stages = {row["stage"] for row in store._db.execute(query)}
        for name, seen in (("first_point_s", stages), ("first_trained_point_s", stages & {"tuned"})):
            if seen:
                found.setdefault(name, time.time() - asked)
        time.sleep(0.05)
    while any(store.status(id_)["state"] not in ENDED for id_ in ids):
        time.sleep(0.5)
    rows = [store.status(id_) for id_ in ids]
    assert all(row["state"] == "succeeded" for row in rows), rows
    return found | {"last_point_s": max(row["finished"] for row in rows) - asked}


def by_the_dashboard(folder: Path) -> dict[str, float]:
    """What the Run page does, once the server's supervisor is there."""
    store = Store(folder, samples=None)
    supervisor = ensure_supervisor(store.path, device="cpu")
    try:
        while not store.workers():
            time.sleep(0.05)
        time.sleep(CHOOSING)
        asked = time.time()
        ids = store.queue(configs())
        LocalBackend(store).submit(ids)
        return watch(store, ids, asked)
    finally:
        supervisor.stop()
        store.close()


def by_the_command(folder: Path) -> dict[str, float]:
    """The command, from its start."""
    store = Store(folder, samples=None)
    command = [
        sys.executable,
        "-m",
        "pruneviz",
        "compare",
        "--data",
        "digits",
        "--model",
        "digits-cnn",
        "--store",
        str(folder),
    ]
    command += ["--methods", ",".join(NINE), "--sparsity", ",".join(map(str, SPARSITIES)), "--device", "cpu"]
    asked = time.time()
    process = Popen(command, cwd=ROOT, stdout=DEVNULL, stderr=DEVNULL)
    try:
        ids = [config.id for config in configs()]
        while store._db.execute("select count(*) from runs").fetchone()[0] < len(ids):
            time.sleep(0.05)
        found = watch(store, ids, asked)
        assert process.wait() == 0
        return found | {"command_s": time.time() - asked}
    finally:
        process.kill()
        store.close()


class Profile:
    """Processor seconds of this thread by run and heading; what is timed inside something else counts for itself alone."""

    def __init__(self):
        self.seconds: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
        self.run = ""
        self._stack, self._since = [OTHER], time.thread_time()

    def tick(self) -> None:
        now = time.thread_time()
        self.seconds[self.run][self._stack[-1]] += now - self._since
        self._since = now

    @contextmanager
    def under(self, heading: str) -> Iterator[None]:
        self.tick()
        self._stack.append(heading)
        try:
            yield
        finally:
            self.tick()
            self._stack.pop()

    def timed(self, function: Callable[..., Any], heading: str) -> Callable[..., Any]:
        """The function, timed; a generator for as long as it works, not while it waits."""

        @wraps(function)
        def call(*arguments: Any, **settings: Any) -> Any:
            with self.under(heading):
                found = function(*arguments, **settings)
            return steps(found) if isinstance(found, Generator) else found

        def steps(generator: Generator) -> Generator:
            while True:
                with self.under(heading):
                    try:
                        step = next(generator)
                    except StopIteration as end:
                        return end.value
                yield step

        return call


def profile(folder: Path) -> dict[str, dict[str, float]]:
    """Method -> heading -> processor seconds, all runs one after another in this process; and what was skipped."""
    store, made = Store(folder, samples=None), Profile()
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in PARTS]
    for owner, name, heading in PARTS:
        setattr(owner, name, made.timed(getattr(owner, name), heading))
    methods = {config.id: config.method for config in configs()}

    def on_event(event: Any) -> None:
        made.tick()
        made.run = methods[event.run]

    try:
        recording.record(store, store.queue(configs()), device="cpu", on_event=on_event)
    finally:
        for owner, name, value in before:
            setattr(owner, name, value)
    skipped.extend(report(store, list(methods))["skipped"])
    store.close()
    made.seconds.pop("", None)
    return {method: dict(parts) for method, parts in made.seconds.items()}


skipped: list[dict[str, Any]] = []


def main() -> None:
    """Three times each by the dashboard and by the command, in turns; one profile."""
    load = os.getloadavg()[0]
    times: dict[str, list[dict[str, float]]] = {"dashboard": [], "command": []}
    for _ in range(REPEATS):
        for name, way in (("dashboard", by_the_dashboard), ("command", by_the_command)):
            with tempfile.TemporaryDirectory() as folder:
                times[name].append({what: round(seconds, 2) for what, seconds in way(Path(folder)).items()})
            print(name, times[name][-1], flush=True)
    with tempfile.TemporaryDirectory() as folder:
        seconds = profile(Path(folder))
    headings = [*dict.fromkeys(heading for _, _, heading in PARTS), OTHER]
    total = {heading: sum(parts.get(heading, 0.0) for parts in seconds.values()) for heading in headings}
    headings.sort(key=lambda heading: -total[heading])
    rows = {
        method: {
            "all": round(sum(parts.values()), 2),
            **{h: round(parts[h], 2) for h in headings if parts.get(h, 0) >= 0.005},
        }
        for method, parts in {**seconds, "all": total}.items()
    }
    print(f"{'processor seconds':28}", *(f"{method[:9]:>9}" for method in rows))
    for heading in ("all", *headings):
        print(f"{heading:28}", *(f"{row.get(heading, 0):9.2f}" for row in rows.values()))
    import torch

    record(
        "nine", torch.device("cpu"), ("numpy", "safetensors"), repeats=REPEATS,
        workers=devices.cpu()["workers"], load_average_before=round(load, 2), sparsities=SPARSITIES,
        medians={name: {what: round(median(t[what] for t in found), 2) for what in found[0]} for name, found in times.items()},
        times=times, skipped=[{"method": row["method"], "sparsity": row["sparsity"]} for row in skipped],
        processor_seconds=rows,
    )  # fmt: skip


if __name__ == "__main__":
    main()

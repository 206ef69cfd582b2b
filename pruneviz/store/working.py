"""What a worker does with the store: claim runs, write down what they say, show that it is alive, settle what the dead left."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from pruneviz.basics.errors import InvalidSetting, NoSuchRun, StaleAttempt, StoreError
from pruneviz.basics.events import Arrays, Done, Event, Failed, Metric, Progress, Weights
from pruneviz.basics.processes import ended
from pruneviz.plan.arguments import command
from pruneviz.plan.config import RunConfig
from pruneviz.plan.own import code_of, made_elsewhere
from pruneviz.store.archive import checked, manifest, read_arrays, sha256_of, write_whole
from pruneviz.store.shelf import Shelf

STARTING = "starting"  # what a run says from when it is claimed to its first event
LEASE = 12.0  # seconds without a sign of life after which a running run is lost


class Working(Shelf):
    """The store as supervisors and workers see it."""

    def waiting(self, device: str, *, take_any: bool) -> list[str]:
        """The queued runs that a worker on this device should take next: the oldest, and those on the same network."""
        rows = self._db.execute(
            "select id, family from runs where state = 'queued' and (wanted_device = ? or (wanted_device is null and ?)) "
            "order by queued",
            (device, take_any),
        ).fetchall()
        return [row["id"] for row in rows if row["family"] == rows[0]["family"]]

    def claim(self, id_: str, *, device: str, worker: int, code: str, worker_id: str | None = None) -> int | None:
        """Take a queued run: the attempt's number, which every later report carries; None where it is not queued.

        ``worker_id``: of the process (:func:`pruneviz.basics.processes.name_of_this`), so that its end is seen at once.
        """
        now = time.time()
        with self._write() as db:
            taken = db.execute(
                "update runs set state = 'running', attempt = attempt + 1, device = ?, worker = ?, worker_id = ?, started = ?, "
                "heartbeat = ?, code = ?, message = ?, warnings = '[]' where id = ? and state = 'queued'",
                (device, worker, worker_id, now, now, code, STARTING, checked(id_)),
            ).rowcount
            return db.execute("select attempt from runs where id = ?", (id_,)).fetchone()[0] if taken else None

    def record(self, event: Event, attempt: int) -> None:
        """Write one event. Raises StaleAttempt where the run is no longer this attempt's."""
        if isinstance(event, Arrays):
            self._keep(event.run, attempt, event.name, event.arrays, event.meta)
        elif isinstance(event, Weights):
            self._keep(event.run, attempt, f"weights-{event.stage}", event.arrays, {"transient": str(event.transient)})
        elif isinstance(event, Done):
            self._finish_manifest(event.run, attempt)
        with self._write() as db:
            match event:
                case Progress():
                    sets, values = "fraction = ?, stage = ?, message = ?", [event.fraction, event.stage, event.message]
                    if event.warning:
                        sets, values = (
                            "warnings = json_insert(warnings, '$[#]', ?)",
                            [f"{event.stage}: {event.message}"],
                        )
                    rows = [(event.run, event.stage, event.epoch, k, v) for k, v in event.values.items()]
                    if event.epoch is not None:
                        db.executemany("insert or replace into history values (?, ?, ?, ?, ?)", rows)
                case Metric():
                    sets, values = "attempt = attempt", []
                    db.execute(
                        "insert or replace into metrics values (?, ?, ?, ?, ?, ?)",
                        (event.run, event.sparsity, event.stage, event.split, event.metric, event.value),
                    )
                case Failed():
                    sets, values = (
                        "state = 'failed', error = ?, traceback = ?, message = 'failed', finished = ?",
                        [event.message, event.traceback, time.time()],
                    )
                case Done():
                    sets, values = "state = 'succeeded', fraction = 1, message = 'done', finished = ?", [time.time()]
                case _:
                    sets, values = "attempt = attempt", []
            self._own(db, event.run, attempt, sets, values)

    def refuse_strange_code(self, config: RunConfig, *, objects: bool = False) -> None:
        """Raises InvalidSetting where a run stands on code that nobody who may run Python here has named, or on objects of
        another process than this (``objects``: they are this one's)."""
        if not objects and made_elsewhere(config):
            raise InvalidSetting(
                f"This run stands on {config.model}, an object of the Python process that made it. Ask for it again through pv.explore."
            )
        for digest, text in code_of(config).items():
            if self._db.execute("select 1 from allowed where digest = ?", (digest,)).fetchone() is None:
                raise InvalidSetting(
                    f"This run stands on {text}, and such code runs only where the command line of this machine named it. Ask "
                    f"for it there: {command(config)}"
                )

    def beat(self, id_: str, worker: int) -> bool:
        """A sign of life from whoever watches the worker; False where the run is not its own any more."""
        with self._write() as db:
            return bool(
                db.execute(
                    "update runs set heartbeat = ? where id = ? and state = 'running' and worker = ?",
                    (time.time(), id_, worker),
                ).rowcount
            )

    def claimed(self, worker: int) -> dict[str, str]:
        """Run -> state, of those that a process was the last to claim."""
        return {r["id"]: r["state"] for r in self._db.execute("select id, state from runs where worker = ?", (worker,))}

    def running(self, worker: int) -> list[str]:
        """The runs that a process has claimed and not ended."""
        return [id_ for id_, state in self.claimed(worker).items() if state == "running"]

    def release(self, worker: int) -> list[str]:
        """Queue again, in their old places, what a process was running: whoever takes them goes on where it stopped."""
        ids = self.running(worker)
        message = "stopped; goes on from its last finished stage"
        query = "update runs set state = 'queued', message = ? where id = ? and state = 'running' and worker = ?"
        with self._write() as db:
            return [id_ for id_ in ids if db.execute(query, (message, id_, worker)).rowcount]

    def reconcile(self, *, dead: int | None = None) -> list[str]:
        """Settle runs whose worker is gone: succeeded where the manifest is complete, else lost. Returns their ids.

        A worker is gone when it is named ``dead``, when it and whoever watched over it ended on this machine, or when its lease
        ran out.
        """
        late, settled = time.time() - LEASE, []
        for row in self._db.execute(
            "select id, attempt, heartbeat, worker, worker_id from runs where state = 'running'"
        ).fetchall():
            gone = row["worker"] == dead or ended(row["worker_id"])
            if not gone and row["heartbeat"] >= late:
                continue
            done = manifest(self.folder(row["id"]))["complete"]
            state = "succeeded" if done else "lost"
            said = "done" if done else "the worker died; resume goes on from the last finished stage"
            with self._write() as db:
                moved = db.execute(
                    "update runs set state = ?, message = ?, finished = ? where id = ? and state = 'running' and attempt = ? "
                    "and (heartbeat < ? or ?)",
                    (state, said, time.time(), row["id"], row["attempt"], late, gone),
                ).rowcount
            settled += [row["id"]] if moved else []
        return settled

    def finished_stages(self, id_: str) -> dict[str, dict[str, Any]]:
        """Stage name -> manifest entry of the weights that an earlier attempt left."""
        files = manifest(self.folder(id_))["files"]
        return {n.removeprefix("weights-"): entry for n, entry in files.items() if n.startswith("weights-")}

    def weights(self, id_: str, stage: str) -> dict[str, np.ndarray]:
        """The network at the end of a stage, as the pipeline packed it. Raises NoSuchRun, and StoreError if damaged."""
        entry = self.finished_stages(id_).get(stage)
        if entry is None:
            raise NoSuchRun(
                f"Run {id_} holds no weights of stage {stage!r}; it has {', '.join(self.finished_stages(id_)) or 'none'}."
            )
        path = self.folder(id_) / f"weights-{stage}.safetensors"
        if not path.is_file() or sha256_of(path) != entry["sha256"]:
            raise StoreError(f"The weights of stage {stage} of run {id_} are damaged. Delete the run and run it again.")
        return read_arrays(path)[0]

    def register(self, device: str, pid: int, info: Mapping[str, Any], *, worker_id: str | None = None) -> None:
        """A supervisor's sign of life, with what it knows of its device."""
        with self._write() as db:
            db.execute(
                "insert or replace into workers (device, pid, heartbeat, info, worker_id) values (?, ?, ?, ?, ?)",
                (device, pid, time.time(), json.dumps(dict(info)), worker_id),
            )

    def unregister(self, device: str, pid: int) -> None:
        """A supervisor's goodbye."""
        with self._write() as db:
            db.execute("delete from workers where device = ? and pid = ?", (device, pid))

    def workers(self) -> list[dict[str, Any]]:
        """Supervisors seen within the lease that have not ended: device, pid, and what they know of the device."""
        rows = self._db.execute("select * from workers where heartbeat > ? order by device", (time.time() - LEASE,))
        return [
            {"device": row["device"], "pid": row["pid"], **json.loads(row["info"])}
            for row in rows
            if not ended(row["worker_id"])
        ]

    def _own(
        self,
        db: sqlite3.Connection,
        id_: str,
        attempt: int,
        sets: str = "attempt = attempt",
        values: Sequence[Any] = (),
    ) -> None:
        query = f"update runs set heartbeat = ?, {sets} where id = ? and state = 'running' and attempt = ?"
        if not db.execute(query, (time.time(), *values, checked(id_), attempt)).rowcount:
            raise StaleAttempt(f"Run {id_} is no longer attempt {attempt}'s: it was cancelled, lost or started again.")

    def _keep(
        self, id_: str, attempt: int, name: str, arrays: Mapping[str, np.ndarray], meta: Mapping[str, str]
    ) -> None:
        """A safetensors file, then its line in the manifest; a finished stage's transient weights replace the last ones."""
        with self._write() as db:
            self._own(db, id_, attempt)
            folder = self.folder(id_)
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"{name}.safetensors"
            temporary = folder / f".{name}.tmp"
            save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, temporary, dict(meta))
            entry = {"sha256": sha256_of(temporary), "bytes": temporary.stat().st_size, **meta}
            os.replace(temporary, path)
            files = manifest(folder)["files"]
            stale = [
                n
                for n, e in files.items()
                if name.startswith("weights-") and e.get("transient") == "True" and n != name
            ]
            files = {n: e for n, e in files.items() if n not in stale} | {name: entry}
            write_whole(folder / "manifest.json", json.dumps({"files": files, "complete": False}).encode())
            for old in stale:
                (folder / f"{old}.safetensors").unlink(missing_ok=True)

    def _finish_manifest(self, id_: str, attempt: int) -> None:
        """Only the attempt that owns the run may call its files complete."""
        with self._write() as db:
            self._own(db, id_, attempt)
            folder = self.folder(id_)
            folder.mkdir(parents=True, exist_ok=True)
            content = {"files": manifest(folder)["files"], "complete": True}
            write_whole(folder / "manifest.json", json.dumps(content).encode())

"""The store: runs, states, metrics and arrays. The only module that knows file names and SQL.

SQLite (WAL) holds runs, states and numbers; ``runs/<id>/`` holds arrays and weights as safetensors, each written to a
temporary name and renamed, with a manifest of sha256 written last: what is not in the manifest does not exist.
A run's state changes only by compare-and-set: queued, running, succeeded, failed, cancelled, lost.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from platformdirs import user_data_dir
from safetensors.numpy import save_file

from pruneviz.config import RunConfig
from pruneviz.errors import InvalidSetting, NoSuchRun, StaleAttempt, StoreError
from pruneviz.events import Arrays, Done, Event, Failed, Metric, Progress, Weights
from pruneviz.store.archive import (
    EMPTY_ROW,
    HISTORY,
    METRICS,
    Run,
    Samples,
    checked,
    copy_files,
    manifest,
    read_arrays,
    read_exports,
    sha256_of,
    summary,
    write_export,
    write_whole,
)
from pruneviz.store.database import Database

if TYPE_CHECKING:
    import pandas as pd

SAMPLES = Path(__file__).resolve().parent.parent.parent / "samples"
LEASE = 12.0  # seconds without a sign of life after which a running run is lost
STATES = ("queued", "running", "succeeded", "failed", "cancelled", "lost")
TAG = re.compile(r"[A-Za-z0-9 ._-]{0,64}")
ENDED = ("succeeded", "failed", "cancelled", "lost")


def default_path() -> Path:
    """``$PRUNEVIZ_STORE``, or the user's data folder."""
    return Path(os.environ.get("PRUNEVIZ_STORE") or user_data_dir("pruneviz"))


class Store:
    """Runs under one folder, and the read-only samples beside it.

    Raises StoreError where the folder cannot be made or written, or was made by a newer version.
    """

    def __init__(self, path: Path | str | None = None, *, samples: Path | str | None = SAMPLES, readonly: bool = False):
        self.path = Path(path) if path is not None else default_path()
        self._samples = Samples(Path(samples)) if samples is not None else None
        self._database = Database(self.path, readonly=readonly)
        self.readonly = readonly
        self.close, self.health, self._write = self._database.close, self._database.health, self._database.write

    # reading

    def runs(self) -> pd.DataFrame:
        """Every run, samples included: id, source, state, method, model, dataset, seed, start, fraction, …, newest first."""
        import pandas as pd

        rows = [
            summary(dict(row), "store") for row in self._db.execute("select * from runs order by queued desc, seq desc")
        ]
        known = {row["id"] for row in rows}
        rows += [row for row in (self._samples.rows() if self._samples else []) if row["id"] not in known]
        waiting = sorted((row["queued"], row["id"]) for row in rows if row["state"] == "queued")
        places = {id_: i for i, (_, id_) in enumerate(waiting, 1)}
        columns = list(summary(EMPTY_ROW, "store"))
        return pd.DataFrame(
            [{**row, "position": places.get(row["id"], 0)} for row in rows], columns=[*columns, "position"]
        )

    def metrics(self, ids: Iterable[str] | None = None) -> pd.DataFrame:
        """Every number: run, method, seed, sparsity, stage, split, metric, value."""
        return self._long("metrics", ids, METRICS)

    def history(self, ids: Iterable[str] | None = None) -> pd.DataFrame:
        """Losses and validation accuracy epoch by epoch: run, stage, epoch, metric, value."""
        return self._long("history", ids, HISTORY)

    def _long(self, table: str, ids: Iterable[str] | None, columns: list[str]) -> pd.DataFrame:
        import pandas as pd

        rows = self._db.execute("select id, json_extract(config, '$.method'), json_extract(config, '$.seed') from runs")
        about = {id_: (method, seed) for id_, method, seed in rows}
        wanted = None if ids is None else list(ids)
        picked = list(about) if wanted is None else [id_ for id_ in wanted if id_ in about]
        found = []
        for i in range(0, len(picked), 500):
            part = picked[i : i + 500]
            marks = ",".join("?" * len(part))
            found += [dict(row) for row in self._db.execute(f"select * from {table} where run in ({marks})", part)]
        for row in found:
            row["method"], row["seed"] = about[row["run"]]
        if self._samples:
            found += self._samples.long(table, None if wanted is None else set(wanted), known=set(about))
        return pd.DataFrame(found, columns=columns)

    def run(self, id_: str) -> Run:
        """One run with its numbers and arrays. Raises NoSuchRun."""
        try:
            row = self.status(id_)
        except NoSuchRun:
            if self._samples and id_ in self._samples:
                return self._samples.run(id_)
            raise
        config = RunConfig(**json.loads(row["config"]))
        return Run(id_, config, row["state"], row, self.folder(id_), lambda table: getattr(self, table)([id_]))

    def status(self, id_: str) -> dict[str, Any]:
        """One row of the database, without numbers and arrays: cheap enough to poll. Raises NoSuchRun."""
        row = self._db.execute("select * from runs where id = ?", (checked(id_),)).fetchone()
        if row is None:
            raise NoSuchRun(f"The store {self.path} holds no run {id_!r}. The Runs page lists what there is.")
        return dict(row)

    def __contains__(self, id_: object) -> bool:
        try:
            self.run(str(id_))
        except NoSuchRun:
            return False
        return True

    def folder(self, id_: str) -> Path:
        """Where a run's files are."""
        return self.path / "runs" / checked(id_)

    @property
    def dense_folder(self) -> Path:
        """Where trained dense networks are shared."""
        return self.path / "dense"

    # what a person asks for

    def queue(self, configs: Iterable[RunConfig], *, device: str | None = None, again: bool = False) -> list[str]:
        """Ask for runs; returns their ids. One that is finished, queued or running is left as it is (``again``: finished
        ones start over). Runs on the same network, asked for together, go to one worker one after another."""
        now, ids = time.time(), []
        for i, config in enumerate(configs):
            id_ = config.id
            ids.append(id_)
            with self._write() as db:
                row = db.execute("select state from runs where id = ?", (id_,)).fetchone()
                if row is None:
                    db.execute(
                        "insert into runs (id, config, family, state, wanted_device, created, queued, tag) "
                        "values (?, ?, ?, 'queued', ?, ?, ?, ?)",
                        (id_, config.model_dump_json(), config.dense_key, device, now, now + i * 1e-4, config.note),
                    )
                elif row["state"] in ENDED and (again or row["state"] != "succeeded"):
                    if again:
                        self._wipe(db, id_)
                    db.execute(
                        "update runs set state = 'queued', queued = ?, wanted_device = ?, error = '', traceback = '', "
                        "finished = null, message = '', fraction = 0 where id = ? and state = ?",
                        (now + i * 1e-4, device, id_, row["state"]),
                    )
        return ids

    def cancel(self, id_: str) -> bool:
        """Stop a queued or running run; False where it had ended already."""
        return self._move(
            id_, ("queued", "running"), "cancelled", "message = 'cancelled', finished = ?", (time.time(),)
        )

    def resume(self, id_: str) -> bool:
        """Queue a run that failed, was cancelled or lost: it goes on from its last finished stage."""
        return self._move(
            id_,
            ("failed", "cancelled", "lost"),
            "queued",
            "queued = ?, error = '', traceback = '', finished = null",
            (time.time(),),
        )

    def tag(self, id_: str, text: str) -> bool:
        """Name a run, or with "" take its name away; False where it is none of this store's, as samples are.

        Raises InvalidSetting where the text is longer than 64 or has more than letters, digits, spaces, dots, - and _.
        """
        if not TAG.fullmatch(text):
            raise InvalidSetting(
                f"A tag has at most 64 letters, digits, spaces, dots, hyphens and underscores; found {text[:80]!r}."
            )
        with self._write() as db:
            return bool(db.execute("update runs set tag = ? where id = ?", (text.strip(), checked(id_))).rowcount)

    def delete(self, id_: str) -> bool:
        """Remove an ended run and its files; False where it is queued or running."""
        with self._write() as db:
            row = db.execute("select state from runs where id = ?", (checked(id_),)).fetchone()
            if row is None or row["state"] not in ENDED:
                return False
            self._wipe(db, id_)
            db.execute("delete from runs where id = ?", (id_,))
        return True

    def _wipe(self, db: sqlite3.Connection, id_: str) -> None:
        db.execute("delete from metrics where run = ?", (id_,))
        db.execute("delete from history where run = ?", (id_,))
        shutil.rmtree(self.folder(id_), ignore_errors=True)

    # what a worker does

    def waiting(self, device: str, *, take_any: bool) -> list[str]:
        """The queued runs that a worker on this device should take next: the oldest, and those on the same network."""
        rows = self._db.execute(
            "select id, family from runs where state = 'queued' and (wanted_device = ? or (wanted_device is null and ?)) "
            "order by queued",
            (device, take_any),
        ).fetchall()
        return [row["id"] for row in rows if row["family"] == rows[0]["family"]]

    def claim(self, id_: str, *, device: str, worker: int, code: str) -> int | None:
        """Take a queued run: the attempt's number, which every later report carries; None where it is not queued."""
        now = time.time()
        with self._write() as db:
            taken = db.execute(
                "update runs set state = 'running', attempt = attempt + 1, device = ?, worker = ?, started = ?, "
                "heartbeat = ?, code = ?, message = 'starting', warnings = '[]' where id = ? and state = 'queued'",
                (device, worker, now, now, code, checked(id_)),
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

        A worker is gone when it is named ``dead``, or when its lease ran out.
        """
        late, settled = time.time() - LEASE, []
        query = "select id, attempt from runs where state = 'running' and (heartbeat < ? or worker = ?)"
        for row in self._db.execute(query, (late, dead)).fetchall():
            done = manifest(self.folder(row["id"]))["complete"]
            state = "succeeded" if done else "lost"
            said = "done" if done else "the worker died; resume goes on from the last finished stage"
            with self._write() as db:
                moved = db.execute(
                    "update runs set state = ?, message = ?, finished = ? where id = ? and state = 'running' and attempt = ? "
                    "and (heartbeat < ? or worker = ?)",
                    (state, said, time.time(), row["id"], row["attempt"], late, dead),
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

    def register(self, device: str, pid: int, info: Mapping[str, Any]) -> None:
        """A supervisor's sign of life, with what it knows of its device."""
        with self._write() as db:
            db.execute(
                "insert or replace into workers values (?, ?, ?, ?)", (device, pid, time.time(), json.dumps(dict(info)))
            )

    def unregister(self, device: str, pid: int) -> None:
        """A supervisor's goodbye."""
        with self._write() as db:
            db.execute("delete from workers where device = ? and pid = ?", (device, pid))

    def workers(self) -> list[dict[str, Any]]:
        """Supervisors seen within the lease: device, pid, and what they know of the device."""
        rows = self._db.execute("select * from workers where heartbeat > ? order by device", (time.time() - LEASE,))
        return [{"device": row["device"], "pid": row["pid"], **json.loads(row["info"])} for row in rows]

    # folders

    def export(self, ids: Iterable[str], to: Path | str, *, weights: bool = True) -> list[Path]:
        """Copy ended runs as plain checksummed folders; returns them."""
        return [write_export(self.run(id_), Path(to), weights=weights) for id_ in ids]

    def take_in(self, folder: Path | str) -> list[str]:
        """Import exported runs from a folder of them (or one of them); every file's checksum must hold."""
        ids = []
        for run in read_exports(Path(folder)):
            copy_files(run, self.folder(run.id), list(run.files))
            id_ = run.id
            now, row = time.time(), run.row
            with self._write() as db:
                db.execute(
                    "insert or replace into runs (id, config, family, state, device, created, queued, started, finished, "
                    "fraction, message, warnings, code, tag) values (?, ?, ?, 'succeeded', ?, ?, ?, ?, ?, 1, 'imported', ?, ?, ?)",
                    (
                        id_, run.config.model_dump_json(), run.config.dense_key, row["device"], now, now, row["started"],
                        row["finished"], row["warnings"], row["code"], row["tag"],
                    ),
                )  # fmt: skip
                db.executemany(
                    "insert or replace into metrics values (?, ?, ?, ?, ?, ?)",
                    run.metrics[["run", *METRICS[3:]]].itertuples(index=False, name=None),
                )
                db.executemany(
                    "insert or replace into history values (?, ?, ?, ?, ?)",
                    run.history[HISTORY].itertuples(index=False, name=None),
                )
            ids.append(id_)
        return ids

    # inside

    @property
    def _db(self) -> sqlite3.Connection:
        return self._database.connection

    def _move(self, id_: str, states: tuple[str, ...], to: str, sets: str, values: tuple[Any, ...]) -> bool:
        marks = ",".join("?" * len(states))
        with self._write() as db:
            query = f"update runs set state = ?, {sets} where id = ? and state in ({marks})"
            return bool(db.execute(query, (to, *values, checked(id_), *states)).rowcount)

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

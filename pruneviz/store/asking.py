"""What a person asks of the store: queue, cancel, resume, tag, delete, export and import."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pruneviz.basics.errors import InvalidSetting, PrunevizError, StoreError
from pruneviz.basics.processes import refuse_while_beginning
from pruneviz.plan.about import about
from pruneviz.plan.config import RunConfig
from pruneviz.plan.identity import identity
from pruneviz.plan.own import code_of
from pruneviz.store.archive import Run, checked
from pruneviz.store.exports import copy_files, read_exports, write_export
from pruneviz.store.rows import ENDED, HISTORY, METRICS, TAG
from pruneviz.store.working import Working


class Asking(Working):
    """The store as the pages and the command line see it."""

    def allow(self, configs: Iterable[RunConfig]) -> None:
        """Let runs run the code that these configurations name, as it is now. For whoever may run Python here: the command line,
        a notebook; never for what comes by the web, or with an import."""
        with self._write() as db:
            for digest, text in {key: text for config in configs for key, text in code_of(config).items()}.items():
                db.execute("insert or ignore into allowed values (?, ?, ?)", (digest, text, time.time()))

    def queue(
        self, configs: Iterable[RunConfig], *, device: str | None = None, again: bool = False, objects: bool = False
    ) -> list[str]:
        """Ask for runs; returns their ids. One that is finished, queued or running is left as it is (``again``: finished
        ones start over). Runs on the same network, asked for together, go to one worker one after another. What a worker
        that ended was running goes on, too. ``objects``: those that they stand on are this process's.

        Raises InvalidSetting where a run stands on code that was not allowed here.
        """
        refuse_while_beginning()
        configs = list(configs)
        for config in configs:
            self.refuse_strange_code(config, objects=objects)
        self.reconcile()
        now, ids = time.time(), []
        for i, config in enumerate(configs):
            id_ = self._known_as(config.id)
            ids.append(id_)
            with self._write() as db:
                row = db.execute("select state from runs where id = ?", (id_,)).fetchone()
                if row is None:
                    db.execute(
                        "insert into runs (id, config, about, identity, family, state, wanted_device, created, queued, tag) "
                        "values (?, ?, ?, ?, ?, 'queued', ?, ?, ?, ?)",
                        (id_, *_words(config), config.dense_key, device, now, now + i * 1e-4, config.note),
                    )
                elif row["state"] in ENDED and (again or row["state"] != "succeeded"):
                    if again:
                        _forget_numbers(db, id_)
                        shutil.rmtree(self.folder(id_), ignore_errors=True)
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
        """Queue a run that failed, was cancelled or lost: it goes on from its last finished stage.

        Raises InvalidSetting where it stands on somebody's code that was not allowed here, or on another process's objects.
        """
        self.refuse_strange_code(RunConfig.stored(json.loads(self.status(id_)["config"])))
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
            _forget(db, id_)
            shutil.rmtree(self.folder(id_), ignore_errors=True)
        return True

    def _move(self, id_: str, states: tuple[str, ...], to: str, sets: str, values: tuple[Any, ...]) -> bool:
        marks = ",".join("?" * len(states))
        with self._write() as db:
            query = f"update runs set state = ?, {sets} where id = ? and state in ({marks})"
            return bool(db.execute(query, (to, *values, checked(id_), *states)).rowcount)

    # folders

    def export(self, ids: Iterable[str], to: Path | str, *, weights: bool = True) -> list[Path]:
        """Copy finished runs as plain checksummed folders; returns them."""
        return [write_export(self.run(id_), Path(to), weights=weights) for id_ in ids]

    def take_in(self, folder: Path | str, *, replace: bool = False) -> tuple[list[str], list[str]]:
        """Import exported runs from a folder of them (or one of them): the ids of those taken, and of those kept as they were.

        Everything is verified before the first write. A run that the store has already, under this id or another, is kept,
        unless ``replace`` is set. Raises StoreError, where anything in the folder is not as `export` writes it, or a run to be
        replaced is still going.
        """
        runs = read_exports(Path(folder))
        with self._write() as db:
            kept = [run.id for run in runs if self._twins(db, run) and not replace]
            for run in runs:
                if run.id not in kept:
                    self._refuse_going(db, run)
        taken = [run.id for run in runs if run.id not in kept and self._take(run, replace=replace)]
        return taken, [run.id for run in runs if run.id not in taken]

    def _take(self, run: Run, *, replace: bool) -> bool:
        """Copy the files beside their place, then move them there and write the run down in one transaction."""
        beside = self.path / "runs" / f".{run.id}.{os.getpid()}"
        shutil.rmtree(beside, ignore_errors=True)
        try:
            copy_files(run, beside, list(run.files))
            with self._write() as db:
                twins = self._twins(db, run)
                if twins and not replace:
                    return False  # made meanwhile
                self._refuse_going(db, run)
                for twin in twins:
                    _forget(db, twin)
                self._write_down(db, run)
                for other in {*twins, *_names(run)} - {run.id}:
                    db.execute("insert or replace into aliases values (?, ?)", (other, run.id))
                for twin in {*twins, run.id}:
                    shutil.rmtree(self.folder(twin), ignore_errors=True)
                os.replace(beside, self.folder(run.id))
        finally:
            shutil.rmtree(beside, ignore_errors=True)
        return True

    def _twins(self, db: sqlite3.Connection, run: Run) -> list[str]:
        """The runs of this store that an exported one is, under this id or another."""
        known = dict.fromkeys(map(self._known_as, _names(run)))
        return [id_ for id_ in known if db.execute("select 1 from runs where id = ?", (id_,)).fetchone()]

    def _refuse_going(self, db: sqlite3.Connection, run: Run) -> None:
        for id_ in self._twins(db, run):
            (state,) = db.execute("select state from runs where id = ?", (id_,)).fetchone()
            if state not in ENDED:
                raise StoreError(f"Run {id_} is {state}, so it is not replaced. Cancel it first, or wait for it.")

    @staticmethod
    def _write_down(db: sqlite3.Connection, run: Run) -> None:
        now, row = time.time(), run.row
        db.execute(
            "insert into runs (id, config, about, identity, family, state, device, created, queued, started, finished, "
            "fraction, message, warnings, code, tag) "
            "values (?, ?, ?, ?, ?, 'succeeded', ?, ?, ?, ?, ?, 1, 'imported', ?, ?, ?)",
            (
                run.id, row["config"], row["about"], row["identity"], run.id, row["device"], now, now,
                row["started"], row["finished"], row["warnings"], row["code"], row["tag"],
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


def _forget(db: sqlite3.Connection, id_: str) -> None:
    """Remove a run, and what leads to it."""
    _forget_numbers(db, id_)
    db.execute("delete from runs where id = ?", (id_,))
    db.execute("delete from aliases where run = ? or alias = ?", (id_, id_))


def _forget_numbers(db: sqlite3.Connection, id_: str) -> None:
    db.execute("delete from metrics where run = ?", (id_,))
    db.execute("delete from history where run = ?", (id_,))


def _names(run: Run) -> list[str]:
    """The ids of a run: the one it has, and the one that its configuration has today."""
    try:
        return list(dict.fromkeys((run.id, RunConfig(**json.loads(run.row["config"])).id)))
    except (PrunevizError, TypeError):
        return [run.id]


def _words(config: RunConfig) -> tuple[str, str, str]:
    """What a run carries from the beginning: its configuration, its cards' words, and what its id follows from."""
    return config.model_dump_json(), about(config).model_dump_json(), json.dumps(identity(config))

"""What there is to look at: runs of the store, and the samples beside them."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from platformdirs import user_data_dir

from pruneviz.basics.errors import NoSuchRun, PrunevizError, StoreError
from pruneviz.basics.places import SAMPLES
from pruneviz.store.archive import Run, carried, checked, damage, read_config
from pruneviz.store.database import Database
from pruneviz.store.rows import EMPTY_ROW, HISTORY, METRICS, UNREADABLE, summary
from pruneviz.store.samples import Samples

if TYPE_CHECKING:
    import pandas as pd


def default_path() -> Path:
    """``$PRUNEVIZ_STORE``, or the user's data folder."""
    return Path(os.environ.get("PRUNEVIZ_STORE") or user_data_dir("pruneviz"))


class Shelf:
    """Runs under one folder, and the read-only samples beside it.

    A sample gives way to a run of the same id only once that is finished. Raises StoreError where the folder cannot be made or
    written, or was made by a newer version.
    """

    def __init__(self, path: Path | str | None = None, *, samples: Path | str | None = SAMPLES, readonly: bool = False):
        self.path = Path(path) if path is not None else default_path()
        self._samples = Samples(Path(samples) if samples is not None else None)
        self._database = Database(self.path, readonly=readonly)
        self.readonly = readonly
        self.close, self.health, self._write = self._database.close, self._database.health, self._database.write

    def runs(self) -> pd.DataFrame:
        """Every run, samples included, newest first: id, source, state, title, network, data, method, model, seed, fraction, …

        A run that cannot be read has the state "unreadable", and ``problem`` says why; it can be deleted. Where a run of the
        store is not finished and a sample has its id, both are listed.
        """
        import pandas as pd

        rows = [
            self._summary(dict(row)) for row in self._db.execute("select * from runs order by queued desc, seq desc")
        ]
        finished = {row["id"] for row in rows if row["state"] == "succeeded"}
        rows += [row for row in self._samples.rows() if row["id"] not in finished]
        waiting = sorted((row["queued"], row["id"]) for row in rows if row["state"] == "queued")
        places = {id_: i for i, (_, id_) in enumerate(waiting, 1)}
        columns = [*summary(EMPTY_ROW, {}, "store"), "position"]
        return pd.DataFrame([{**row, "position": places.get(row["id"], 0)} for row in rows], columns=columns)

    def metrics(self, ids: Iterable[str] | None = None) -> pd.DataFrame:
        """Every number: run, method, seed, sparsity, stage, split, metric, value."""
        return self._long("metrics", ids, METRICS)

    def history(self, ids: Iterable[str] | None = None) -> pd.DataFrame:
        """Losses and validation accuracy epoch by epoch: run, stage, epoch, metric, value."""
        return self._long("history", ids, HISTORY)

    def run(self, id_: str) -> Run:
        """One run to look at, with its numbers and arrays: a finished one where there is one. Raises NoSuchRun; StoreError
        where it cannot be read."""
        try:
            row = self.status(id_)
        except NoSuchRun:
            row = None
        if (row is None or row["state"] != "succeeded") and id_ in self._samples:
            return self._samples[id_]
        if row is None and id_ in self._samples.broken:
            raise StoreError(self._samples.broken[id_])
        return self.asked(id_)

    def asked(self, id_: str) -> Run:
        """A run of this store in whatever state it is, to be watched. Raises NoSuchRun, StoreError."""
        row = self.status(id_)
        id_ = row["id"]
        if problem := self._problem(row):
            raise StoreError(problem)
        config = read_config(id_, row["config"])
        words = carried(_words(row), config)
        return Run(id_, config, words, row["state"], row, self.folder(id_), lambda table: self._numbers(table, [id_]))

    def status(self, id_: str) -> dict[str, Any]:
        """One row of the database, without numbers and arrays: cheap enough to poll. Raises NoSuchRun."""
        row = self._db.execute("select * from runs where id = ?", (self._known_as(checked(id_)),)).fetchone()
        if row is None:
            raise NoSuchRun(f"The store {self.path} holds no run {id_!r}. The Runs page lists what there is.")
        return dict(row)

    def __contains__(self, id_: object) -> bool:
        try:
            self.status(str(id_))
        except NoSuchRun:
            return id_ in self._samples
        return True

    def folder(self, id_: str) -> Path:
        """Where a run's files are."""
        return self.path / "runs" / checked(id_)

    @property
    def dense_folder(self) -> Path:
        """Where trained dense networks are shared."""
        return self.path / "dense"

    # inside

    @property
    def _db(self) -> sqlite3.Connection:
        return self._database.connection

    def _known_as(self, id_: str) -> str:
        """The id under which a run is kept, where it was made under another."""
        row = self._db.execute("select run from aliases where alias = ?", (id_,)).fetchone()
        return row["run"] if row is not None else id_

    def _summary(self, row: dict[str, Any]) -> dict[str, Any]:
        problem = self._problem(row)
        return summary(row | ({"state": UNREADABLE} if problem else {}), _words(row), "store", problem)

    def _problem(self, row: dict[str, Any]) -> str:
        """Why a run cannot be read, or nothing."""
        try:
            read_config(row["id"], row["config"])
        except PrunevizError as error:
            return str(error)
        return damage(self.folder(row["id"])) if row["state"] == "succeeded" else ""

    def _long(self, table: str, ids: Iterable[str] | None, columns: list[str]) -> pd.DataFrame:
        import pandas as pd

        states = {row["id"]: row["state"] for row in self._db.execute("select id, state from runs")}
        wanted = [*states, *(id_ for id_ in self._samples if id_ not in states)] if ids is None else list(ids)
        wanted = [self._known_as(id_) for id_ in wanted]
        ours = [id_ for id_ in wanted if id_ in states and (states[id_] == "succeeded" or id_ not in self._samples)]
        rest = [self._samples[id_] for id_ in wanted if id_ not in set(ours) and id_ in self._samples]
        found = [self._numbers(table, ours), *(getattr(run, table) for run in rest)]
        whole = pd.concat([one for one in found if len(one)] or found[:1], ignore_index=True)
        return whole.reindex(columns=columns)

    def _numbers(self, table: str, ids: list[str]) -> pd.DataFrame:
        import pandas as pd

        about = {}
        for row in self._db.execute("select id, config from runs"):
            try:
                config = json.loads(row["config"])
                about[row["id"]] = (config.get("method"), config.get("seed"))
            except (ValueError, AttributeError):
                about[row["id"]] = (None, None)
        found = []
        for i in range(0, len(ids), 500):
            part = ids[i : i + 500]
            marks = ",".join("?" * len(part))
            found += [dict(row) for row in self._db.execute(f"select * from {table} where run in ({marks})", part)]
        for row in found:
            row["method"], row["seed"] = about[row["run"]]
        return pd.DataFrame(found, columns=METRICS if table == "metrics" else HISTORY)


def _words(row: dict[str, Any]) -> Any:
    try:
        return json.loads(row["about"])
    except ValueError:
        return {}

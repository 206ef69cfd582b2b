"""The store's database: connections, format, transactions."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from pruneviz.basics.errors import PrunevizError, StoreError
from pruneviz.plan.about import about
from pruneviz.plan.config import RunConfig

FORMAT = 2
_TABLES = """
create table if not exists runs (
  seq integer primary key autoincrement, id text unique not null, config text not null, family text not null,
  state text not null, attempt integer not null default 0, device text, wanted_device text, worker integer,
  created real not null, queued real not null, started real, finished real, heartbeat real,
  fraction real not null default 0, stage text not null default '', message text not null default '',
  warnings text not null default '[]', error text not null default '', traceback text not null default '',
  code text not null default '', tag text not null default ''
);
create index if not exists runs_by_state on runs (state, queued);
create table if not exists metrics (
  run text not null, sparsity real not null, stage text not null, split text not null, metric text not null, value real,
  primary key (run, sparsity, stage, split, metric)
) without rowid;
create table if not exists history (
  run text not null, stage text not null, epoch integer not null, metric text not null, value real,
  primary key (run, stage, epoch, metric)
) without rowid;
create table if not exists workers (device text primary key, pid integer not null, heartbeat real not null, info text not null);
"""
# What format 2 adds: the words that a run carries and what its id follows from; the files that it refers to, with their
# digests; who asked for it; other ids under which it is known; and a worker's own name beside its process id
_SECOND = """
alter table runs add column about text not null default '{}';
alter table runs add column identity text not null default 'null';
alter table runs add column refs text not null default '{}';
alter table runs add column worker_id text;
create table aliases (alias text primary key, run text not null) without rowid;
create table owners (run text not null, owner text not null, primary key (run, owner)) without rowid;
alter table workers add column worker_id text;
"""

# Digests of the code that the command line or a Python process of this machine named: what a run may run
_ALLOWED = (
    "create table if not exists allowed (digest text primary key, reference text not null, created real not null)"
)


class Database:
    """SQLite in WAL mode under a folder, one connection for each thread; ``readonly`` opens what is there, or nothing.

    Raises StoreError where the folder cannot be made or written, or was made by a newer version.
    """

    def __init__(self, folder: Path, *, readonly: bool = False):
        self.folder, self.readonly = folder, readonly
        self._local = threading.local()
        try:
            if not readonly:
                (folder / "runs").mkdir(parents=True, exist_ok=True)
                probe = folder / f".write-{os.getpid()}-{threading.get_ident()}"
                probe.touch()
                probe.unlink()
                # two that open a new store at once: the change to WAL fails at once where another holds the database
                with FileLock(folder / "opening.lock", timeout=10), self.write() as db:
                    _prepare(db, folder)
        except (OSError, sqlite3.Error) as error:
            raise StoreError(
                f"The store {folder} cannot be written ({error}). "
                "Set PRUNEVIZ_STORE to a folder that you may write, or pass --store DIR."
            ) from None

    @property
    def connection(self) -> sqlite3.Connection:
        """This thread's connection (of this process: a fork opens its own)."""
        if getattr(self._local, "pid", None) != os.getpid():
            self._local.db, self._local.pid = self._connect(), os.getpid()
        return self._local.db

    def _connect(self) -> sqlite3.Connection:
        path = self.folder / "store.sqlite"
        if not self.readonly:
            db = sqlite3.connect(path, timeout=10, isolation_level=None)
            db.execute("pragma journal_mode = wal")
            db.execute("pragma synchronous = normal")
        else:
            try:
                there = sqlite3.connect(f"{path.absolute().as_uri()}?immutable=1", uri=True, isolation_level=None)
                there.execute("select id from runs limit 1")
                db = _in_memory(there, self.folder) if _version(there) != FORMAT else there
            except sqlite3.Error:
                db = sqlite3.connect(":memory:", isolation_level=None)
                _prepare(db, self.folder)
        db.row_factory = sqlite3.Row
        return db

    def close(self) -> None:
        """Close this thread's connection."""
        if getattr(self._local, "pid", None) == os.getpid():
            self._local.db.close()
            self._local.pid = None

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """One write transaction, begun immediately."""
        if self.readonly:
            raise StoreError(
                f"The store {self.folder} is open for reading only. Set PRUNEVIZ_STORE to a folder that you may write."
            )
        db = self.connection
        db.execute("begin immediate")
        try:
            yield db
        except BaseException:
            db.execute("rollback")
            raise
        db.execute("commit")

    def health(self) -> str:
        """ "ok", or what SQLite's own check found."""
        return str(self.connection.execute("pragma quick_check").fetchone()[0])


def _prepare(db: sqlite3.Connection, folder: Path) -> None:
    """Bring the database forward to today's format: in one transaction, so that it is wholly the old or the new."""
    version = _version(db)
    if version > FORMAT:
        raise StoreError(
            f"The store {folder} was made by a newer PruneViz (format {version}, this one knows {FORMAT}). "
            "Update PruneViz, or set PRUNEVIZ_STORE to another folder."
        )
    if version < 1:
        _each(db, _TABLES)
    if version < 2:
        _each(db, _SECOND)
        _carry_words(db)
    db.execute(_ALLOWED)  # whoever does not know the table leaves it alone: the format stays
    db.execute(f"pragma user_version = {FORMAT}")


def _version(db: sqlite3.Connection) -> int:
    return db.execute("pragma user_version").fetchone()[0]


def _in_memory(there: sqlite3.Connection, folder: Path) -> sqlite3.Connection:
    """A copy of a database that may not be written, brought forward."""
    db = sqlite3.connect(":memory:", isolation_level=None)
    there.backup(db)
    _prepare(db, folder)
    return db


def _each(db: sqlite3.Connection, statements: str) -> None:
    for statement in statements.split(";"):
        db.execute(statement)


def _carry_words(db: sqlite3.Connection) -> None:
    """Give the runs of format 1 the words of their cards, and let today's id of the same configuration lead to them."""
    for id_, text in db.execute("select id, config from runs").fetchall():
        try:
            config = RunConfig(**json.loads(text))
            words, alias = about(config).model_dump_json(), config.id
        except (PrunevizError, ValueError, TypeError):
            continue  # of a method, network or data that is not known here: its keys are its words
        db.execute("update runs set about = ? where id = ?", (words, id_))
        db.execute("insert or ignore into aliases values (?, ?)", (alias, id_))

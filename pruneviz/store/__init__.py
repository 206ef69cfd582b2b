"""The store: runs, states, metrics and arrays. The only place that knows file names and SQL.

SQLite (WAL) holds runs, states and numbers; ``runs/<id>/`` holds arrays and weights as safetensors, each written to a
temporary name and renamed, with a manifest of sha256 written last: what is not in the manifest does not exist.
A run's state changes only by compare-and-set: queued, running, succeeded, failed, cancelled, lost.
"""

from __future__ import annotations

from pruneviz.basics.places import SAMPLES
from pruneviz.store.archive import Run
from pruneviz.store.asking import Asking
from pruneviz.store.rows import ENDED, STATES, UNREADABLE
from pruneviz.store.shelf import default_path
from pruneviz.store.working import LEASE, STARTING

__all__ = ["ENDED", "LEASE", "SAMPLES", "STARTING", "STATES", "UNREADABLE", "Run", "Store", "default_path"]


class Store(Asking):
    """Runs under one folder, and the read-only samples beside it: ``Store()`` is the user's own.

    Raises StoreError where the folder cannot be made or written, or was made by a newer version.
    """

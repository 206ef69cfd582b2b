"""Who carries runs out: a supervisor for each device and its worker processes, several on a CPU where each run uses one thread.

No torch here: the web process imports it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pruneviz.jobs.base import Backend
    from pruneviz.store import Store


def backend(store: Store) -> Backend:
    """Whoever carries out the runs of this store: workers on this machine."""
    from pruneviz.jobs.local import LocalBackend

    return LocalBackend(store)

"""What the pages may ask of whoever carries runs out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol


class Backend(Protocol):
    """Runs are queued, read and cancelled in the store; a backend sees to it that somebody works on them."""

    def submit(self, run_ids: Iterable[str]) -> None:
        """See to it that these queued runs are taken up."""
        ...

    def cancel(self, run_id: str) -> bool:
        """Stop a queued or running run; False where it had ended already."""
        ...

    def devices(self) -> list[dict[str, Any]]:
        """The devices that are worked on now: device, pid, name, memory in bytes."""
        ...

    def reconcile(self) -> list[str]:
        """Settle the runs whose worker is gone; returns their ids."""
        ...

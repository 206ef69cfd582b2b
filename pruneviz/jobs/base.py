"""What the server and the command line ask of whoever carries runs out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from pruneviz.basics.events import Event


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

    def lifespan(self) -> AbstractAsyncContextManager[Any]:
        """For as long as a server lives, somebody works on what is queued."""
        ...

    def carry_out(self, run_ids: Sequence[str], *, device: str | None, on_event: Callable[[Event], None]) -> None:
        """Carry these runs out now, wait for their end and hear what they say: what a command does."""
        ...

    def work(self, device: str | None = None) -> int:
        """Work on what is queued until told to stop: a worker without a browser. Returns the exit status."""
        ...

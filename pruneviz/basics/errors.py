"""The exception tree. Every message says what was asked, what was found and what to do.

PrunevizError
├── UnknownName          a method, model, data set … that is not registered; names the nearest one
├── InvalidSetting       a value outside its range; names the range
│   └── Unreachable      a sparsity beyond what a structured method can remove; names the most
├── Unsuitable           a method and a network (or a start) that do not fit together
│   └── UnsupportedLayer a layer for which a quantity would be silently wrong
├── DataUnavailable      files that are missing, incomplete or not the published ones
├── StoreError           the store cannot be read or written
│   ├── NoSuchRun        an id that the store does not hold
│   └── StaleAttempt     a worker that no longer owns the run it reports on
└── WorkerError          a worker that could not be started or died
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class PruningWarning(UserWarning):
    """Something about a pruned network that its user should know; the work goes on."""


class PrunevizError(Exception):
    """Anything that the user can mend; its text is shown as it is."""


class UnknownName(PrunevizError, KeyError):
    """A key that is not registered. ``what`` is the field's noun: method, model, data set."""

    def __init__(self, what: str, asked: str, known: Iterable[str]):
        known = sorted(known)
        key = str(asked).lower().replace("_", "-").replace(" ", "-")
        begun = [name for name in known if key and name.startswith(key)]
        near = begun or get_close_matches(key, known, n=1, cutoff=0.4)
        mend = f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(known) or 'none'}."
        self.message = f"No {what} called {asked!r}. {mend}"
        super().__init__(self.message)

    def __str__(self) -> str:  # KeyError would print the repr
        return self.message

    def __reduce__(self):
        return PrunevizError, (self.message,)


class InvalidSetting(PrunevizError, ValueError):
    """A value that is out of its range or of the wrong kind."""


class Unreachable(InvalidSetting):
    """A sparsity beyond ``most``, the fraction of weights that removing whole units can reach."""

    def __init__(self, asked: float, most: float):
        self.asked, self.most = asked, most
        super().__init__(
            f"Asked for sparsity {asked:g}, and removing whole units reaches at most {100 * most:.1f}% here: no layer is cut "
            f"through, and channels that are added up stay. Ask for {most:.10g} or less."
        )

    def __reduce__(self):
        return type(self), (self.asked, self.most)


class Unsuitable(PrunevizError):
    """A method that cannot be used on this network, or without something that it reads."""


class UnsupportedLayer(Unsuitable):
    """A layer for which the quantity asked for would be wrong."""


class DataUnavailable(PrunevizError):
    """Data files that are missing, cut short or not the published ones."""


class StoreError(PrunevizError):
    """The store cannot be opened, read or written."""


class NoSuchRun(StoreError):
    """An id that the store does not hold."""


class StaleAttempt(StoreError):
    """A report from a worker whose run was cancelled, declared lost or given to another."""


class WorkerError(PrunevizError):
    """A worker that could not be started."""

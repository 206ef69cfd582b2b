"""What a reproduction is: a question to a paper, the runs that answer it, and claims with the paper's figures beside ours.

A file of this package exports ``PAPER`` and imports torch only inside functions, so that the page and the command line's
help list reproductions without loading torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, Literal

from pruneviz.basics.citation import Paper

Number = int | float
Verdict = Literal["holds", "does not hold", "open"]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Claim:
    """One sentence of a paper, and what came out here.

    ``paper`` is the paper's figure, None where it gives no number; ``ours`` the median or the one number that was measured,
    ``low`` and ``high`` its range or interval over ``seeds``. ``verdict``: "holds", "does not hold", or "open" where the
    runs do not decide (a gap within the interval, fewer than five seeds, a quick budget). ``command`` measures it again.
    """

    key: str
    text: str
    ours: Number | None
    paper: Number | None = None
    low: Number | None = None
    high: Number | None = None
    seeds: int = 1
    verdict: Verdict = "holds"
    command: str = ""

    @classmethod
    def over(cls, key: str, text: str, values: Sequence[float], *, holds: bool, command: str) -> Claim:
        """A claim about one value for each seed: their median and range."""
        low, high = round(min(values), 5), round(max(values), 5)
        verdict: Verdict = "holds" if holds else "does not hold"
        return cls(key, text, round(median(values), 5), None, low, high, len(values), verdict, command)


@dataclass(frozen=True)
class Table:
    """Numbers behind the claims: ``rows`` have one cell (text, number or None) for each column."""

    key: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    note: str = ""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"Table {self.key!r} has {len(self.columns)} columns, and a row has {len(row)} cells")


@dataclass(frozen=True)
class Result:
    """What one reproduction found. ``device`` is where it ran."""

    claims: tuple[Claim, ...]
    tables: tuple[Table, ...] = ()
    device: str = "cpu"

    def plain(self) -> dict[str, Any]:
        """As JSON takes it: {"claims": [{"key", "paper", "ours", "low", "high", "seeds", "verdict", …}], "tables": [{"key", …}]}."""
        return {"claims": [asdict(c) for c in self.claims], "tables": [asdict(t) for t in self.tables]}


@dataclass(frozen=True)
class Reproduction:
    """``run(full, say)`` carries it out: ``full`` chooses the budget, ``say`` takes a line of progress.

    ``data`` are the data sets it reads, ``minutes`` what the quick and the full budget take on two CPU cores.
    """

    key: str
    title: str
    question: str
    paper: Paper | None
    data: tuple[str, ...]
    minutes: tuple[float, float]
    run: Callable[[bool, Say], Result]

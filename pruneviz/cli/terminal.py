"""What the command line prints: tables, what came out of runs and reproductions, and progress bars."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pruneviz.basics.events import Event
    from pruneviz.plan.config import RunConfig


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]], title: str | None = None) -> None:
    """Rows under columns on standard output."""
    from rich.console import Console
    from rich.table import Table

    drawn = Table(*columns, title=title, title_justify="left", box=None, header_style="bold", pad_edge=False)
    for row in rows:
        drawn.add_row(*(f"{v:.4g}" if isinstance(v, float) else str(v) for v in row))
    Console(width=None if sys.stdout.isatty() else 160).print(drawn)


def runs(found: dict[str, list[dict]]) -> None:
    """What :func:`pruneviz.plan.comparison.report` found."""
    for row in found["skipped"]:
        at = f" at {row['sparsity']:g}" if "sparsity" in row else ""
        print(f"skipped {row['method']}{at}: {row['reason']}")
    if not found["summary"]:
        return
    dense = sorted(row["test_accuracy"] for row in found["dense"])
    print(f"dense network: test accuracy {_percent(dense[len(dense) // 2])} (median of {len(dense)})")
    rows = [
        (
            r["method"],
            r["start"],
            f"{r['sparsity']:g}",
            *(_percent(r[k]) for k in ("median", "low", "high")),
            r["seeds"],
            f"no path left in {r['without_path']}" if r["without_path"] else "",
        )
        for r in found["summary"]
    ]
    title = "test accuracy after training again"
    table(("method", "start", "sparsity", "median", "low", "high", "seeds", ""), rows, title=title)


def _percent(value: float) -> str:
    return f"{100 * value:.2f}%"


class Bars:
    """Progress bars on standard error, one a run; silent where that is no terminal, but for warnings."""

    def __init__(self, configs: Sequence[RunConfig]):
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        console = Console(stderr=True)
        columns = (
            TextColumn("{task.fields[name]:<32}"),
            BarColumn(),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
        )
        self._progress = Progress(*columns, console=console, disable=not console.is_terminal)
        self._names = {c.id: f"{c.method} · {c.start} · seed {c.seed}" for c in configs}
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> Callable[[Event], None]:
        self._progress.start()
        return self._on_event

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def _on_event(self, event: Event) -> None:
        from pruneviz.basics.events import Done, Progress

        if event.run not in self._tasks:
            self._tasks[event.run] = self._progress.add_task("", total=1.0, name=self._names.get(event.run, event.run))
        if isinstance(event, Progress):
            self._progress.update(self._tasks[event.run], completed=event.fraction, description=event.message)
            if event.warning:
                print(f"warning: {self._names.get(event.run)}, {event.stage}: {event.message}", file=sys.stderr)
        elif isinstance(event, Done):
            self._progress.update(self._tasks[event.run], completed=1.0, description="done")


def papers(found: dict[str, list[dict]]) -> None:
    """Claims and tables of reproductions, with what they were measured on."""

    def cell(value: Any) -> Any:
        return "–" if value is None else value

    for about in found["budgets"]:
        versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
        key = about["reproduction"]
        print(
            f"\n{key}: {about['budget']} budget, {about['date']}, {about['device']}, {about['seconds']:g} s, {versions}"
        )
        claims = [c for c in found["claims"] if c["reproduction"] == key]
        columns = ("claim", "paper", "ours", "low", "high", "seeds", "verdict", "text")
        table(columns, [[cell(c["key" if n == "claim" else n]) for n in columns] for c in claims])
        for each in (t for t in found["tables"] if t["reproduction"] == key):
            print()
            table(each["columns"], [[cell(v) for v in row] for row in each["rows"]], title=each["title"])
            if each["note"]:
                print(textwrap.fill(each["note"], 120))
    if not found["budgets"]:
        print(
            "Nothing is recorded yet. Name a reproduction, or add --quick or --full to run them all.", file=sys.stderr
        )

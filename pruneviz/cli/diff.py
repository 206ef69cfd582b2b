"""``pruneviz diff``: two files of weights beside each other."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable

from pruneviz.cli import terminal


def _diff(arguments: argparse.Namespace) -> int:
    """Compare, then print, or write a page."""
    from pruneviz.difference import diff
    from pruneviz.difference.page import COLUMNS, row

    found = diff(arguments.before, arguments.after, progress=_told if sys.stderr.isatty() else None)
    if arguments.to:
        found.save(arguments.to)
    if arguments.json:
        print(json.dumps(found.to_dict(), indent=1, allow_nan=False))
        return 0
    print("\n".join(found.said()))
    rows = [row(tensor) for tensor in found.tensors]
    shown = [name for name in COLUMNS if any(each[name] for each in rows)]
    terminal.table(shown, [[each[name] for name in shown] for each in rows])
    for each in rows:
        if each["Note"]:
            print(f"{each['Tensor']}: {each['Note']}.")
    if arguments.to:
        print(arguments.to)
    return 0


def _told(share: float, what: str) -> None:
    print(f"\r\x1b[K{100 * share:3.0f}% {what[:60]}" if what else "\r\x1b[K", end="", file=sys.stderr, flush=True)


def declare(command: Callable[..., argparse.ArgumentParser]) -> None:
    """The command ``diff``."""
    sub = command(
        "diff", _diff, "two files of weights beside each other: what is zero, gone, moved; no network code, no data"
    )
    sub.add_argument(
        "before", metavar="A", help="the dense network: .safetensors, or .pt (a state dict; no code is run)"
    )
    sub.add_argument("after", metavar="B", help="the pruned one")
    sub.add_argument("--to", metavar="FILE", help="write a page that opens anywhere, e.g. diff.html")
    sub.add_argument("--json", action="store_true", help="print JSON")

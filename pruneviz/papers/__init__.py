"""Reproductions of papers, one file each, and what they found when they were last recorded; importing them needs no torch."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pruneviz.basics.registry import Registry, files_of
from pruneviz.basics.version import __version__
from pruneviz.papers.base import Reproduction, Result

RECORDED = Path(__file__).parent / "recorded"

PAPERS: Registry[Reproduction] = Registry(
    "reproduction", {m.PAPER.key: m.PAPER for m in files_of(__name__, list(__path__))}
)


def recorded(key: str) -> dict[str, Any] | None:
    """What :func:`record` wrote last for this reproduction, or None; raises UnknownName."""
    path = RECORDED / f"{PAPERS[key].key}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def document(key: str, result: Result, *, full: bool, seconds: float) -> dict[str, Any]:
    """A result as it is printed and recorded: budget, date, device, time and versions, then claims and tables."""
    about = {
        "reproduction": PAPERS[key].key,
        "budget": "full" if full else "quick",
        "date": datetime.now(UTC).date().isoformat(),
        "device": result.device,
        "seconds": round(seconds, 1),
        "versions": {"pruneviz": __version__, "torch": version("torch")},
    }
    return about | result.plain()


def record(key: str, result: Result, *, full: bool, seconds: float) -> Path:
    """Keep a result's :func:`document` in ``recorded/``, where the page and the command line read it; returns the file."""
    path = RECORDED / f"{key}.json"
    text = json.dumps(document(key, result, full=full, seconds=seconds), indent=1, allow_nan=False, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")
    return path

"""What a run is in a table: columns, and a row for each."""

from __future__ import annotations

import json
import re
from math import isfinite
from typing import Any

from pruneviz.models.base import in_words
from pruneviz.records.about import About

METRICS = ["run", "method", "seed", "sparsity", "stage", "split", "metric", "value"]
HISTORY = ["run", "stage", "epoch", "metric", "value"]
STATES = ("queued", "running", "succeeded", "failed", "cancelled", "lost")
ENDED = ("succeeded", "failed", "cancelled", "lost")
TAG = re.compile(r"[A-Za-z0-9 ._-]{0,64}")
UNREADABLE = "unreadable"  # no state of a run: what is listed where it cannot be read
_CONFIGURED = ("method", "model", "dataset", "seed", "start", "survivors", "rounds")
EMPTY_ROW: dict[str, Any] = {
    "id": "", "config": "{}", "about": "{}", "identity": "null", "state": "succeeded", "device": None, "wanted_device": None,
    "created": 0.0, "queued": 0.0, "started": None, "finished": None, "fraction": 1.0, "stage": "", "message": "",
    "warnings": "[]", "error": "", "code": "", "tag": "", "attempt": 0,
}  # fmt: skip
_HIDDEN = ("config", "about", "identity", "id")


def summary(row: dict[str, Any], words: Any, source: str, problem: str = "") -> dict[str, Any]:
    """A row of ``store.runs()``: ``title``, ``network`` and ``data`` are in words, those that the run carries."""
    try:
        config = json.loads(row["config"])
        config = config if isinstance(config, dict) else {}
    except ValueError:
        config = {}
    found = {key: _one(config.get(key)) for key in _CONFIGURED}
    keys = {key: str(config.get(key) or "") for key in ("method", "model", "dataset")}
    carried = About.read(words, **keys)
    width = next((float(value) for value in _numbers([config.get("width")]) if isfinite(value)), 1.0)
    said = carried.network if width == 1 else f"{carried.network}, width {in_words(width)}"
    title = {
        "title": carried.method,
        "network": said,
        "data": carried.data,
        "usual": carried.usual,
        "place": carried.place,
    }
    shown = {key: row[key] for key in EMPTY_ROW if key not in _HIDDEN}
    sparsities = _numbers(config.get("sparsities"))
    about = {"width": width, **title, "problem": problem, "sparsities": sparsities}
    return {"id": row["id"], "source": source, **found, **about, **shown}


def _one(value: Any) -> str | int | float | None:
    """A word or a number of a configuration that may say anything."""
    return value if isinstance(value, str | int | float) else None


def _numbers(values: Any) -> tuple[float, ...]:
    found = values if isinstance(values, list) else ()
    return tuple(float(value) for value in found if isinstance(value, int | float) and not isinstance(value, bool))

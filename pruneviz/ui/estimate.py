"""How long it will take, from what this machine measured."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

from pruneviz.plan.config import RunConfig
from pruneviz.store import Store
from pruneviz.ui.stores import readable


def epochs(config: RunConfig) -> int:
    """Epochs of training that a run takes, its dense network included."""
    return config.epochs


def estimate(store: Store, configs: Sequence[RunConfig], devices: Sequence[dict[str, Any]]) -> str:
    """Where the runs will go and for how long, by the median time an epoch took in earlier runs on the same network
    and how many of them went on beside each other."""
    where = (
        ", ".join(f"{d['device']} ({d['name']})" if d.get("name") else d["device"] for d in devices)
        or "a worker that is starting"
    )
    total = sum(epochs(c) for c in configs)
    first = configs[0]
    table = store.runs()
    same = table.loc[
        (table["model"] == first.model)
        & (table["width"] == first.width)
        & (table["dataset"] == first.dataset)
        & (table["state"] == "succeeded")
    ]
    here = same.loc[same["source"] == "store"]
    rows = [r for r in (here if len(here) else same).head(20).to_dict("records") if r["started"] and r["finished"]]
    took = {r["id"]: r["finished"] - r["started"] for r in rows}
    measured = [took[run.id] / max(1, epochs(run.config)) for run in readable(store, took)]
    said = f"{len(configs)} runs, {total:,} epochs in all, on {where}."
    if not measured:
        return f"{said} No run on this network and data was measured yet, so its time is not known."
    known = "measured here" if len(here) else "measured where the samples were made"
    at_once = min(_at_once([(r["started"], r["finished"]) for r in rows]), len(configs))
    return f"{said} About {_words(median(measured) * total / at_once)} ({known})."


def _at_once(spans: Sequence[tuple[float, float]]) -> float:
    """How many runs went on beside each other, on average over the time when any did."""
    covered, end = 0.0, 0.0
    for start, stop in sorted(spans):
        covered += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return sum(stop - start for start, stop in spans) / covered if covered else 1.0


def _words(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"

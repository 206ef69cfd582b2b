"""What came out of runs: rows, a summary over seeds, and what was skipped or failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import mean, median
from typing import Any

from pruneviz.basics.errors import Unreachable
from pruneviz.plan.comparison import Row
from pruneviz.records import metrics as metrics_
from pruneviz.records.stages import BEFORE_TRAINING, Stage
from pruneviz.store.shelf import Shelf


def report(store: Shelf, ids: Sequence[str], skipped: Iterable[Row] = ()) -> dict[str, list[Row]]:
    """What came out: ``runs`` (a row for each run and sparsity), ``summary`` over seeds, ``dense``, ``skipped``, ``failed``.

    Accuracies are fractions of the test set; mean, median, low and high are of test accuracy after training again;
    ``without_path``: in how many of the seeds no path was left from input to output.
    ``skipped``: methods that do not fit, and once for each method the sparsities that removing whole units cannot reach.
    """
    runs = [store.run(id_) for id_ in dict.fromkeys(ids)]
    rows, dense, beyond = [], {}, {}
    for run in runs:
        for s in run.config.sparsities:
            found = _numbers(run.metrics, s)
            if "test_accuracy" in found:
                about = {
                    "id": run.id,
                    "method": run.config.method,
                    "start": str(run.config.start),
                    "seed": run.config.seed,
                }
                rows.append({**about, "sparsity": s, **found})
            elif "most" in found:
                beyond.setdefault((run.config.method, s), []).append(found["most"])
        at_zero = _numbers(run.metrics[run.metrics["stage"] == Stage.DENSE], 0.0)
        if at_zero:
            dense[run.config.seed, run.config.dense_key] = {"seed": run.config.seed, **at_zero}
    by_group: dict[tuple[str, str, float], list[float]] = {}
    broken: Counter[tuple[str, str, float]] = Counter()
    for row in rows:
        group = (row["method"], row["start"], row["sparsity"])
        by_group.setdefault(group, []).append(row["test_accuracy"])
        broken[group] += row.get(metrics_.CONNECTED) == 0
    summary = [
        {
            "method": method, "start": start, "sparsity": s, "mean": mean(values), "median": median(values),
            "low": min(values), "high": max(values), "seeds": len(values),
            "without_path": broken[method, start, s],
        }
        for (method, start, s), values in by_group.items()
    ]  # fmt: skip
    unreached = [
        {"method": method, "sparsity": s, "reason": str(Unreachable(s, max(most)))}
        for (method, s), most in beyond.items()
    ]
    failed = [{"id": r.id, "state": r.state, "reason": r.row["error"]} for r in runs if r.state != "succeeded"]
    return {
        "runs": rows, "summary": summary, "dense": list(dense.values()), "skipped": [*skipped, *unreached], "failed": failed,
    }  # fmt: skip


def _numbers(metrics: Any, sparsity: float) -> Row:
    """The numbers at one sparsity as a flat row: those after training again by their own names, the others prefixed."""
    found: Row = {}
    at = metrics[metrics["sparsity"] == sparsity]
    for stage, split, metric, value in at[["stage", "split", "metric", "value"]].itertuples(index=False):
        name = f"{split}_{metric}" if split else metric
        if stage in BEFORE_TRAINING:
            name = f"{stage}_{name}" if split or metric in metrics_.AGAIN else name
        elif stage == Stage.DENSE and sparsity == 0 and (at["stage"] == Stage.TUNED).any():
            continue
        found[name] = None if value != value else value
    return found

"""Runs in words: what was compared, how each was made, what came out, and what it takes to make it again."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pruneviz.basics.errors import PrunevizError
from pruneviz.figures import base
from pruneviz.methods.base import Start, Survivors
from pruneviz.plan.arguments import command
from pruneviz.plan.recipe import Training
from pruneviz.records.metrics import ACCURACY, TEST
from pruneviz.records.stages import Stage

if TYPE_CHECKING:
    from pruneviz.plan.config import RunConfig
    from pruneviz.store import Run

_ADDRESS = re.compile(r"https?://[\w./?=&%~:#+,;()-]+")
_STATES = {
    "queued": "waiting, not begun",
    "running": "still running: what it has so far",
    "failed": "failed",
    "cancelled": "cancelled before its end",
    "lost": "lost: its worker died",
}
_SURVIVORS = {
    Survivors.RETAIN: "keep their values and train on",
    Survivors.REWIND: "go back to their early values and train again",
    Survivors.REINIT: "are drawn anew and train again",
    Survivors.REINIT_SIGN: "are drawn anew with their early signs and train again",
}


def title(runs: Sequence[Run]) -> str:
    """ "SNIP and Magnitude on Digits"; of many methods the first ones and a count."""
    methods = list(dict.fromkeys(run.about.method for run in runs))
    if len(methods) > 4:
        methods = [*methods[:3], f"{len(methods) - 3} more"]
    said = methods[0] if len(methods) == 1 else f"{', '.join(methods[:-1])} and {methods[-1]}"
    return f"{said} on {' and '.join(dict.fromkeys(run.about.data for run in runs))}"


def subject(runs: Sequence[Run]) -> str:
    """ "6 runs of LeNet-300-100 on Digits, made on 24 November 2026"."""
    networks = dict.fromkeys(f"{base.network(run)} on {run.about.data}" for run in runs)
    days = sorted(int(run.row["finished"]) // 86_400 for run in runs if run.row["finished"])
    first, last = (
        (f"{datetime.fromtimestamp(86_400 * day, UTC):%d %B %Y}" for day in (days[0], days[-1])) if days else ("", "")
    )
    when = "" if not days else f", made on {first}" if first == last else f", made from {first} to {last}"
    return f"{len(runs)} run{'s' if len(runs) != 1 else ''} of {'; '.join(networks)}{when}"


def about(run: Run, label: str) -> dict[str, Any]:
    """One run for its part of the report."""
    words, code, same = run.about, *_again(run)
    return {
        "id": run.id,
        "label": label,
        "colour": words.colour,
        "idea": words.idea,
        "problem": _STATES.get(run.state, ""),
        "reason": str(run.row["error"] or ""),
        "warnings": json.loads(run.row["warnings"] or "[]"),
        "configuration": configuration(run),
        "departures": base.changes(words),
        "paper": words.paper,
        "linked": bool(words.paper) and _ADDRESS.fullmatch(words.paper.url) is not None,
        "command": code,
        "same": same,
        "device": run.row["device"] or "",
        "code": run.row["code"] or "",
    }


def _again(run: Run) -> tuple[str, bool]:
    """The command that asks for this run, empty where this version does not know what it asks for; whether its id is this one."""
    try:
        return command(run.config), run.config.id == run.id
    except PrunevizError:
        return "", False


def configuration(run: Run) -> dict[str, str]:
    """What was set -> how, in words."""
    config, words = run.config, run.about
    sizes = ", ".join(f"{size:,}" for size in words.sizes)
    trained = config.start is Start.TRAINED
    found = {
        "Data": words.data + (f": {sizes} samples for training, validation and test" if sizes else "")
        + (", pixels normalised" if config.normalise else ""),
        "Network": base.network(run) + (f": {words.layers}" if words.layers else ""),
        "Method": f"{words.method}; removes {words.removes}",
        "Start": f"from the {'trained' if trained else 'initial'} network",
        "Schedule": "one shot: each sparsity starts from the same network"
        if config.one_shot
        else f"{config.rounds} rounds of pruning and training, up to the last sparsity"
        if config.between == "train"
        else f"{config.rounds} rounds of pruning without training between, up to the last sparsity; each sparsity trains by itself",
        "Compared across": {"global": "all layers", "layer": "each layer by itself", "stage": "each stage by itself"}[
            config.scope
        ],
        "Survivors": _SURVIVORS[config.survivors]
        + (f", to step {config.rewind_step}" if config.rewind_step else "")
        + (f"; layers are {'made isometric' if config.repair == 'isometry' else 'rescaled'}" if config.repair != "none" else ""),
        "Training": _budget(config.train),
        "After pruning": _budget(config.after_pruning),
        "Sparsities": ", ".join(base.percent(s) for s in config.sparsities),
        "Seed": str(config.seed),
    }  # fmt: skip
    if config.control != "none":
        found["Control"] = "mask shuffled within layers" if config.control == "shuffle" else "order inverted"
    if config.skip:
        found["Left alone"] = ", ".join(config.skip)
    if config.recalibrate:
        found["Recalibrated"] = "statistics of batch normalisation, after each pruning"
    if switches := _switches(config):
        found["Switches"] = switches
    if finished := _date(run.row["finished"]):
        found["Finished"] = finished
    if tag := str(run.row["tag"] or ""):
        found["Tag"] = tag
    return found


def _budget(budget: Training) -> str:
    if not budget.epochs:
        return "none"
    epochs = f"{budget.epochs} epoch{'s' if budget.epochs != 1 else ''}"
    name = "Adam" if budget.optimizer == "adam" else f"SGD with momentum {budget.momentum:g}"
    decay = f", weight decay {budget.weight_decay:g}" if budget.weight_decay else ""
    best = ", the best on validation data kept" if budget.keep == "best" else ""
    return f"{epochs} of {name}, learning rate {budget.lr:g}, {budget.batch_size} samples a step{decay}{best}"


def _switches(config: RunConfig) -> str:
    """The method's own switches, all of them: what differs from the paper is named beside."""

    def said(value: Any) -> str:
        if isinstance(value, bool):
            return "yes" if value else "no"
        if isinstance(value, dict):
            return " ".join(f"{name}={part}" for name, part in value.items()) or "none"
        return ", ".join(map(str, value)) or "none" if isinstance(value, list | tuple) else str(value)

    return "; ".join(f"{name.replace('_', ' ')}: {said(value)}" for name, value in config.params.items())


def accuracy(runs: Sequence[Run]) -> dict[str, Any]:
    """Test accuracy after training again: sparsities as columns, runs as rows, the dense network first; "no path" where none is
    left from input to output."""
    names = base.labels(runs)
    asked = sorted({s for run in runs for s in run.config.sparsities})
    rows = []
    for run in runs:
        at = run.metrics[(run.metrics["split"] == TEST) & (run.metrics["metric"] == ACCURACY)]
        dense = at.loc[at["stage"] == Stage.DENSE, "value"]
        tuned = dict(at.loc[at["stage"] == Stage.TUNED, ["sparsity", "value"]].itertuples(index=False, name=None))
        most, cut = base.beyond(run), base.without_path(run)
        cells = [
            base.percent(tuned[s]) + (", no path" if s in cut else "")
            if s in tuned
            else f"at most {base.percent(most[s])}"
            if s in most
            else "–"
            for s in asked
        ]
        rows.append(
            {"label": names[run.id], "whole": base.percent(dense.iloc[0]) if len(dense) else "–", "cells": cells}
        )
    unreached = any(cell.startswith("at most") for row in rows for cell in row["cells"])
    cut = any(cell.endswith("no path") for row in rows for cell in row["cells"])
    return {"sparsities": [base.percent(s) for s in asked], "rows": rows, "unreached": unreached, "cut": cut}


def versions(runs: Sequence[Run]) -> list[str]:
    """What the runs were made with, each once."""
    made = dict.fromkeys(f"{run.row['code']} on {run.row['device']}" for run in runs if run.row["code"])
    return list(made)


def _date(seconds: float | None) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%d %B %Y, %H:%M} UTC" if seconds else ""

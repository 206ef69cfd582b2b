"""Predicted and measured change of the loss: is a score right?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from pruneviz.basics.errors import Unsuitable
from pruneviz.curvature.task import Anew, Task
from pruneviz.door.untouched import untouched
from pruneviz.records.arrays import Change
from pruneviz.run.step import write_
from pruneviz.units.cost import cost
from pruneviz.units.masks import Mask

if TYPE_CHECKING:
    from pruneviz.methods.base import Method

CHANGE_SAMPLES = (250, 1000)  # fewest and most samples on which single removals are scored and measured
CHANGE_FLOPS = 2e10  # what measuring them may cost
CHANGES = (64, 512)  # fewest and most weights removed, one at a time; samples are spared first, down to 128 weights


def change(
    method: Method,
    model: nn.Module,
    task: Task,
    mask: Mask,
    generator: torch.Generator,
    samples: int | None = None,
) -> Change:
    """Predicted and measured change of the loss, for units really removed one at a time (weights, filters or directions):
    all of them in a small network, else a random sample.

    In float64, in evaluation mode, on the same samples for score and loss: the method's first ``samples`` (as many of 1,000
    as its cost allows, at least 250).
    """
    import pandas as pd

    model = deepcopy(model).to("cpu" if "mps" in str(task.device) else task.device).double()
    drawn: list[Any] = list(task.batches())  # a run's are tensors
    each = max(1, cost(model, _exact(drawn[0][0][:1].to(task.device)), None).operations)
    if samples is None:
        samples = min(max(CHANGE_SAMPLES[0], int(CHANGE_FLOPS / (2 * CHANGES[0] * each))), CHANGE_SAMPLES[1])
    x, y = _first(drawn, samples)
    home = next(model.parameters()).device
    x, y = _exact(x.to(home)), y.to(home)
    task = replace(task, batches=lambda: [(x, y)], device=home, generator=generator, statistics=Anew())
    scores = method.score(model, task, mask)
    groups = list(scores.values)
    alive = [(i, p) for i, g in enumerate(groups) for p in mask.may_leave(g).nonzero().flatten().tolist()]
    affordable = int(CHANGE_FLOPS / (len(x) * each))
    most = min(max(CHANGES[0], affordable), CHANGES[1])
    chosen = torch.randperm(len(alive), generator=generator)[:most].tolist()
    with untouched(model), torch.no_grad():
        params = dict(model.named_parameters())
        ahead = _Ahead(model, x)
        base = task.loss(model(x), y)

        def rise(new: Mapping[str, Tensor]) -> float:
            new = {name: value for name, value in new.items() if not torch.equal(value, params[name])}
            old = {name: params[name].detach().clone() for name in new}
            behind, reached = ahead.of(new)  # before the values change
            write_(model, new)
            found = float(task.loss(behind(reached), y) - base)
            write_(model, old)
            return found

        rows = []
        for i, place in (alive[c] for c in sorted(chosen)):
            group = groups[i]
            keep = mask.units[group].clone()
            keep[place] = False
            gone = {n: k for n, k in mask.keeping({**mask.units, group: keep}).everything.items() if not bool(k.all())}
            zero = {n: params[n].detach() * k.to(home) for n, k in gone.items()}
            zeroed = rise(zero)
            alone = method.without(model, scores, group.name, place)
            if alone is not None:
                alone = zero | {n: v * gone[n].to(home) if n in gone else v for n, v in alone.items()}
            rows.append((float(scores.values[group][place]), zeroed if alone is None else rise(alone), zeroed, i))
    if not rows:
        raise Unsuitable("Nothing can be removed alone.")
    predicted, measured, zeroed, layer = (np.array(column) for column in zip(*rows, strict=True))
    rank = (
        pd.Series(predicted).rank().corr(pd.Series(measured).rank()) if np.ptp(predicted) and np.ptp(measured) else 0.0
    )
    return Change(
        layers=tuple(group.name for group in groups),
        predicted=predicted,
        measured=measured,
        zeroed=zeroed,
        layer=layer,
        correlation=rank,
        all=int(len(chosen) == len(alive)),
        samples=len(x),
    )


class _Ahead:
    """What a network's samples ``x`` are by the time they reach the first layer that is about to change.

    A chain of layers runs once up to there, and only the rest again for each change; any other network runs whole.
    Keeps the last place asked for, so ask in the order of the layers.
    """

    def __init__(self, model: nn.Module, x: Tensor):
        self._model, self._start = model, x
        self._at, self._reached = 0, x

    def of(self, names: Iterable[str]) -> tuple[nn.Module, Tensor]:
        """The rest of the network from the first layer with one of these parameters, and its input."""
        if type(self._model) is not nn.Sequential:
            return self._model, self._start
        order = [name for name, _ in self._model.named_children()]
        place = min((order.index(name.partition(".")[0]) for name in names), default=0)
        if place != self._at:
            self._at, self._reached = place, self._model[:place](self._start)
        return self._model[place:], self._reached


def _first(batches: Iterable[tuple[Tensor, Tensor]], most: int) -> tuple[Tensor, Tensor]:
    """The first samples of the batches, at most so many."""
    found: list[tuple[Tensor, Tensor]] = []
    for x, y in batches:
        found.append((x, y))
        if sum(len(x) for x, _ in found) >= most:
            break
    return torch.cat([x for x, _ in found])[:most], torch.cat([y for _, y in found])[:most]


def _exact(x: Tensor) -> Tensor:
    """Samples in float64; token ids stay whole numbers."""
    return x.double() if x.is_floating_point() else x

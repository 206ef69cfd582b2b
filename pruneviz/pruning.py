"""One pruning step: score, choose, repair. What a run does at each stage, and ``pv.score`` and ``pv.prune`` on any network."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from pruneviz.cost import Cost, cost
from pruneviz.masks import Mask, Scores, broken_at
from pruneviz.methods import method_class
from pruneviz.methods.base import Method
from pruneviz.removal import smaller
from pruneviz.rotation import rotated
from pruneviz.task import Task, generator_for


@dataclass(frozen=True)
class Pruned:
    """A pruned copy of a network. ``scores`` is shaped as :func:`score` returns it; ``report``: asked, reached,
    threshold, parameters, flops, per_layer (sparsity of each), empty_layers, connected, broken_at (the layer at which the
    last path from the input ends, None where one reaches the output). ``sample`` [1, ...]: the shape of its inputs.
    EigenDamage's copy holds a :class:`~pruneviz.rotation.Rotated` in the place of each layer but the last."""

    model: nn.Module
    mask: Mask
    scores: dict[str, Any]
    report: dict[str, Any]
    sample: Tensor = field(repr=False)


def score(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    method: str,
    initial: Mapping[str, Tensor] | None = None,
    seed: int = 0,
    **params: Any,
) -> dict[str, Any]:
    """A method's score of every unit on exactly these samples, higher = keep.

    Weights: parameter name -> tensor like it. Filters: layer -> {0: [out]}. Directions: layer -> {0: [out], 1: [in]}, by
    falling eigenvalue. ``params`` are the method's switches. The model is left as it was.
    Raises UnknownName, InvalidSetting, Unsuitable.
    """
    chosen, task = _setting(model, x, y, method, initial, seed, params)
    return _by_name(chosen.score(model, task, chosen.full(model, task)), model)


def prune(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    method: str,
    sparsity: float,
    initial: Mapping[str, Tensor] | None = None,
    seed: int = 0,
    **params: Any,
) -> Pruned:
    """One-shot pruning of a copy, without training: exactly the asked fraction of prunable weights is zero afterwards.

    Whole units: the largest fraction not above it, counted on the compacted network. Raises Unreachable beyond the maximum.
    """
    chosen, task = _setting(model, x, y, method, initial, seed, params)
    model = chosen.frame(deepcopy(model), task)
    before = chosen.full(model, task)
    scores = chosen.score(model, task, before)
    mask = remove(chosen, model, task, scores, before, sparsity)
    spent, end = spending(model, x[:1], mask), broken_at(model, mask, x[:1])
    report = {
        "asked": sparsity,
        "reached": mask.sparsity,
        "threshold": threshold(scores, before, mask),
        "parameters": spent.parameters,
        "flops": spent.flops,
        "per_layer": mask.per_layer(),
        "empty_layers": mask.empty_layers,
        "connected": end is None,
        "broken_at": end,
    }
    return Pruned(model, mask, _by_name(scores, model), report, x[:1].detach().clone())


def spending(model: nn.Module, sample: Tensor, mask: Mask) -> Cost:
    """What is left to pay: of rotated layers their smaller pieces, of everything else what the mask keeps."""
    if not rotated(model):
        return cost(model, sample, mask)
    return cost(smaller(model, sample)[0], sample)


def remove(method: Method, model: nn.Module, task: Task, scores: Scores, mask: Mask, target: float) -> Mask:
    """Choose by these scores, move the survivors where the method repairs, zero the rest; in place."""
    chosen = method.choose(model, task, scores, mask, target)
    write_(model, method.repaired(model, task, scores, chosen))
    chosen.apply_(model)
    return chosen


@torch.no_grad()
def write_(model: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Set parameters by name, in place."""
    params = dict(model.named_parameters())
    for name, value in values.items():
        params[name].copy_(value)


def controlled(scores: Scores, mask: Mask, control: str, generator: torch.Generator) -> Scores:
    """Scores under a sanity control: inverted, or shuffled among the survivors of each layer."""
    if control == "invert":
        return replace(scores, values={group: -value for group, value in scores.values.items()})
    if control == "shuffle":
        values = {}
        for group, value in scores.values.items():
            alive = mask.units[group].nonzero().flatten()
            order = torch.randperm(len(alive), generator=generator).to(alive.device)
            values[group] = value.index_copy(0, alive, value[alive[order]])
        return replace(scores, values=values)
    return scores


def threshold(scores: Scores, before: Mask, after: Mask) -> float:
    """The highest score among the units that just left: for magnitude the c of |w| < c std. NaN where none left."""
    left = [v[before.units[g] & ~after.units[g]] for g, v in scores.values.items()]
    found = torch.cat(left)
    return float(found.max()) if found.numel() else float("nan")


def _setting(
    model: nn.Module, x: Tensor, y: Tensor, method: str, initial: Mapping[str, Tensor] | None, seed: int, params: dict
) -> tuple[Method, Task]:
    cls = method_class(method)
    chosen = cls.from_params(params)
    task = Task(
        lambda: [(x, y)],
        generator_for(seed, "score"),
        initial=initial,
        device=next(model.parameters()).device,
        scope=cls.card.scope,
    )
    return chosen, task


def _by_name(scores: Scores, model: nn.Module) -> dict[str, Any]:
    """Single weights: parameter name -> tensor like it. Units on an axis: module name -> {axis: [units]}."""
    params = dict(model.named_parameters())
    found: dict[str, Any] = {}
    for group, value in scores.values.items():
        if group.members[0].axes:
            found.setdefault(group.layer, {})[group.members[0].axes[0]] = value
        else:
            found[group.name] = value.view_as(params[group.name]).to(params[group.name].dtype)
    return found

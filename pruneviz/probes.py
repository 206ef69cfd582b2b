"""What is recorded beside accuracy: arrays small enough to send to a browser, binned here and never there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from pruneviz.cost import cost
from pruneviz.curvature.end_to_end import end_to_end_singular_values
from pruneviz.curvature.gradients import untouched
from pruneviz.curvature.jacobian import jacobian_singular_values
from pruneviz.curvature.kronecker import KroneckerFactors
from pruneviz.curvature.sweep import Statistics
from pruneviz.masks import Mask, Scores
from pruneviz.pruning import write_
from pruneviz.task import Task

if TYPE_CHECKING:
    from pruneviz.methods.base import Method

BINS = 60
SPECTRUM_SAMPLES = 512  # samples for the Kronecker factors; one forward and one backward pass over them
JACOBIAN_SAMPLES = 16  # samples for the Jacobians; an eigendecomposition of each layer's smaller side for each
END_TO_END = 100  # outputs up to which the whole network's Jacobian is taken: a backward pass for each
CHANGE_SAMPLES = (250, 1000)  # fewest and most samples on which single removals are scored and measured
CHANGE_FLOPS = 2e10  # what measuring them may cost
CHANGES = (64, 512)  # fewest and most weights removed, one at a time; samples are spared first, down to 128 weights
QUANTILES = np.linspace(0, 1, 65)

Probe = dict[str, np.ndarray]


def saliency(scores: Scores, before: Mask, after: Mask) -> tuple[Probe, list[str]]:
    """Histograms of the score per layer, kept and removed, in one set of bins for all layers.

    ``kept``, ``removed`` [layers, bins] count units that were alive; ``zeros`` [layers, 2] those with a score of exactly
    0 (kept, removed), which are in no bin. ``edges`` [bins + 1] are log10 of the score where all scores are >= 0 (``log`` = 1),
    asinh(score / ``linthresh``) / ln 10 where some are negative (``log`` = 2): linear up to ``linthresh``, the median size,
    logarithmic beyond, with an edge at 0. ``sizes`` [layers], ``alive`` [layers] after pruning; ``threshold`` [1].
    """
    groups = list(scores.values)
    flat = {g: scores.values[g].detach().double().cpu() for g in groups}
    was = {g: before.units[g].cpu() for g in groups}
    now = {g: after.units[g].cpu() for g in groups}
    alive = torch.cat([flat[g][was[g]] for g in groups])
    log = bool((alive >= 0).all())
    linear = float(alive[alive != 0].abs().median()) if not log else 1.0

    def coordinate(values: Tensor) -> Tensor:
        return values[values > 0].log10() if log else (values[values != 0] / linear).asinh() / np.log(10)

    shown = coordinate(alive)
    low, high = (float(shown.min()), float(shown.max())) if shown.numel() else (0.0, 1.0)
    if log and shown.numel() > 100:  # a few denormal scores must not squeeze the rest into one bin
        low = max(low, float(torch.quantile(shown[:: max(1, len(shown) // 100_000)], 0.001)) - 0.5)
    edges = np.linspace(low, high if high > low else low + 1, BINS + 1)
    if low < 0 < high and not log:
        below = min(max(round(BINS * low / (low - high)), 1), BINS - 1)
        edges = np.arange(-below, BINS - below + 1) * max(-low / below, high / (BINS - below))

    def counts(values: Tensor) -> np.ndarray:
        return np.histogram(np.clip(coordinate(values).numpy(), edges[0], edges[-1]), edges)[0]

    found = {
        "edges": edges,
        "kept": np.stack([counts(flat[g][was[g] & now[g]]) for g in groups]),
        "removed": np.stack([counts(flat[g][was[g] & ~now[g]]) for g in groups]),
        "zeros": np.stack([[int((flat[g][was[g] & keep] == 0).sum()) for keep in (now[g], ~now[g])] for g in groups]),
        "sizes": np.array([g.size for g in groups]),
        "alive": np.array([int(now[g].sum()) for g in groups]),
        "log": np.array([1 if log else 2]),
        "linthresh": np.array([linear]),
    }
    return found, [g.name for g in groups]


def spectra(factors: dict[str, KroneckerFactors]) -> tuple[Probe, list[str]]:
    """Eigenvalues of A and S per layer, descending: arrays ``A0, S0, A1, S1, …`` in the layers' order (float32)."""
    found = {}
    for i, pair in enumerate(factors.values()):
        for name, matrix in (("A", pair.A), ("S", pair.S)):
            values = torch.linalg.eigvalsh(matrix.double().cpu()).clamp(min=0).flip(0)
            found[f"{name}{i}"] = values.float().numpy()
    return found, list(factors)


def jacobians(model: nn.Module, x: Tensor) -> tuple[Probe, list[str]]:
    """Singular values per layer, pooled over samples: ``quantiles`` [layers, 65] (ascending), and ``mean``, ``spread``
    (mean abs(value - 1)) [layers]. Up to 100 outputs also those of the whole network, from input to outputs: ``end`` [65],
    ``end_mean`` [1], ``end_spread`` [1]."""
    x = x[:JACOBIAN_SAMPLES]
    values = jacobian_singular_values(model, x)
    found = _pooled([v.double().cpu().flatten().numpy() for v in values.values()])
    with untouched(model), torch.no_grad():
        outputs = model(x[:1]).numel()
    if outputs <= END_TO_END:
        end = _pooled([end_to_end_singular_values(model, x).double().cpu().flatten().numpy()])
        found |= {"end": end["quantiles"][0], "end_mean": end["mean"], "end_spread": end["spread"]}
    return found, list(values)


def _pooled(values: list[np.ndarray]) -> Probe:
    return {
        "quantiles": np.stack([np.quantile(v, QUANTILES) for v in values]).astype(np.float32),
        "mean": np.array([v.mean() for v in values], np.float32),
        "spread": np.array([np.abs(v - 1).mean() for v in values], np.float32),
    }


def change(
    method: Method,
    model: nn.Module,
    task: Task,
    mask: Mask,
    generator: torch.Generator,
    samples: int | None = None,
) -> tuple[Probe, list[str]]:
    """Predicted and measured change of the loss, for weights really removed one at a time: all of them in a small network,
    else a random sample.

    In float64, in evaluation mode, on the same samples for score and loss (the method's first
    ``samples``: as many of 1,000 as its cost allows, at least 250). ``predicted`` [m] the
    score; ``measured`` [m] the change of the mean loss (nats) after the removal, the others moved as the method moves them;
    ``zeroed`` [m] with the others left alone; ``layer`` [m]; ``correlation`` [1] Spearman's, predicted with measured;
    ``all`` [1] whether these are all weights; ``samples`` [1].
    """
    import pandas as pd

    model = deepcopy(model).to("cpu" if "mps" in str(task.device) else task.device).double()
    first = next(iter(task.batches()))[0][:1].to(task.device)
    each = cost(model, first.double(), None).flops
    if samples is None:
        samples = min(max(CHANGE_SAMPLES[0], int(CHANGE_FLOPS / (2 * CHANGES[0] * each))), CHANGE_SAMPLES[1])
    x, y = _first(task.batches(), samples)
    home = next(model.parameters()).device
    x, y = x.to(home).double(), y.to(home)
    task = replace(task, batches=lambda: [(x, y)], device=home, generator=generator, statistics=Statistics())
    scores = method.score(model, task, mask)
    value = {group.members[0].param: v.double() for group, v in scores.values.items()}
    alive = [(i, p) for i, name in enumerate(mask) for p in mask[name].flatten().nonzero().flatten().tolist()]
    affordable = int(CHANGE_FLOPS / (len(x) * each))
    most = min(max(CHANGES[0], affordable), CHANGES[1])
    chosen = torch.randperm(len(alive), generator=generator)[:most].tolist()
    with untouched(model), torch.no_grad():
        params = dict(model.named_parameters())
        base = task.loss(model(x), y)

        def rise(new: Mapping[str, Tensor]) -> float:
            old = {name: params[name].detach().clone() for name in new}
            write_(model, new)
            found = float(task.loss(model(x), y) - base)
            write_(model, old)
            return found

        rows = []
        for i, place in (alive[c] for c in sorted(chosen)):
            name = list(mask)[i]
            zero = params[name].detach().clone()
            zero.view(-1)[place] = 0.0
            alone = method.without(model, scores, name, place)
            zeroed = rise({name: zero})
            rows.append((float(value[name][place]), rise(alone) if alone is not None else zeroed, zeroed, i))
    predicted, measured, zeroed, layer = (np.array(column) for column in zip(*rows, strict=True))
    rank = (
        pd.Series(predicted).rank().corr(pd.Series(measured).rank()) if np.ptp(predicted) and np.ptp(measured) else 0.0
    )
    return {
        "predicted": predicted,
        "measured": measured,
        "zeroed": zeroed,
        "layer": layer.astype(np.int16),
        "correlation": np.array([rank]),
        "all": np.array([int(len(chosen) == len(alive))]),
        "samples": np.array([len(x)]),
    }, list(mask)


def _first(batches: Iterable[tuple[Tensor, Tensor]], most: int) -> tuple[Tensor, Tensor]:
    """The first samples of the batches, at most so many."""
    found: list[tuple[Tensor, Tensor]] = []
    for x, y in batches:
        found.append((x, y))
        if sum(len(x) for x, _ in found) >= most:
            break
    return torch.cat([x for x, _ in found])[:most], torch.cat([y for _, y in found])[:most]

"""What is recorded beside accuracy: arrays small enough to send to a browser, binned here and never there."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pruneviz.curvature.jacobian import end_to_end_singular_values, jacobian_singular_values
from pruneviz.curvature.kronecker import KroneckerFactors
from pruneviz.door.untouched import untouched
from pruneviz.records.arrays import Directions, Jacobians, Saliency, Sensitivity, Spectra
from pruneviz.run.probes.masked import blocked, masked, ranked
from pruneviz.run.probes.removals import change
from pruneviz.run.step import write_
from pruneviz.run.training import evaluate
from pruneviz.units.choice import remove_lowest
from pruneviz.units.cost import cost
from pruneviz.units.masks import Group, Mask, Scores

BINS = 60
DECADES = 12  # of scores that are told apart; what is smaller is in the lowest bin
SPECTRUM_SAMPLES = 512  # samples for the Kronecker factors; one forward and one backward pass over them
JACOBIAN_SAMPLES = 16  # samples for the Jacobians; an eigendecomposition of each layer's smaller side for each
END_TO_END = 100  # outputs up to which the whole network's Jacobian is taken: a backward pass for each
RATIOS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)  # of a layer's filters, in the sensitivity of layers
SENSITIVITY_FLOPS = 4e11  # what measuring it may cost
QUANTILES = np.linspace(0, 1, 65)
__all__ = ["change", "directions", "jacobians", "masked", "ranked", "saliency", "sensitivity", "spectra"]


def saliency(scores: Scores, before: Mask, after: Mask, threshold: float) -> Saliency:
    """Histograms of the score per layer, kept and removed, in one set of bins for all layers."""
    layers: dict[str, list[Group]] = {}  # the directions of both sides of a layer are one histogram
    for group in scores.values:
        layers.setdefault(group.layer, []).append(group)
    groups = list(layers)
    flat = {n: torch.cat([scores.values[g].detach().double().cpu() for g in own]) for n, own in layers.items()}
    was = {n: torch.cat([before.units[g].cpu() for g in own]) for n, own in layers.items()}
    now = {n: torch.cat([after.units[g].cpu() for g in own]) for n, own in layers.items()}
    alive = torch.cat([flat[g][was[g]] for g in groups])
    log = bool((alive >= 0).all())
    linear = float(alive[alive != 0].abs().median()) if not log else 1.0

    def coordinate(values: Tensor) -> Tensor:
        return values[values > 0].log10() if log else (values[values != 0] / linear).asinh() / np.log(10)

    shown = coordinate(alive)
    low, high = (float(shown.min()), float(shown.max())) if shown.numel() else (0.0, 1.0)
    if log and shown.numel() > 100:  # a few denormal scores must not squeeze the rest into one bin
        low = max(low, float(torch.quantile(shown[:: max(1, len(shown) // 100_000)], 0.001)) - 0.5)
    if log:
        low = max(low, high - DECADES)
    edges = np.linspace(low, high if high > low else low + 1, BINS + 1)
    if low < 0 < high and not log:
        below = min(max(round(BINS * low / (low - high)), 1), BINS - 1)
        edges = np.arange(-below, BINS - below + 1) * max(-low / below, high / (BINS - below))

    def counts(values: Tensor) -> np.ndarray:
        return np.histogram(np.clip(coordinate(values).numpy(), edges[0], edges[-1]), edges)[0]

    return Saliency(
        layers=tuple(groups),
        edges=edges,
        kept=np.stack([counts(flat[g][was[g] & now[g]]) for g in groups]),
        removed=np.stack([counts(flat[g][was[g] & ~now[g]]) for g in groups]),
        zeros=np.stack([[int((flat[g][was[g] & keep] == 0).sum()) for keep in (now[g], ~now[g])] for g in groups]),
        sizes=np.array([len(flat[g]) for g in groups]),
        alive=np.array([int(now[g].sum()) for g in groups]),
        log=1 if log else 2,
        linthresh=linear,
        threshold=threshold,
    )


def spectra(factors: dict[str, KroneckerFactors]) -> Spectra:
    """Eigenvalues of A and S per layer, of all groups, descending."""

    def falling(values: Tensor) -> np.ndarray:
        return values.flatten().sort(descending=True).values.float().cpu().numpy()

    A, S = zip(*(map(falling, pair.eigenvalues()) for pair in factors.values()), strict=True)
    return Spectra(layers=tuple(factors), A=A, S=S)


def directions(model: nn.Module, factors: dict[str, KroneckerFactors], sample: Tensor) -> Directions:
    r"""The importance :math:`\tfrac12 W'^2 \odot \lambda_S \lambda_A^\top` of each direction pair in the Kronecker eigenbasis, and
    what the leading input directions look like. Convolutions with groups: of the first group."""
    theta_of, shape_of, vectors_of = [], [], []
    factors = {n: pair for n, pair in factors.items() if isinstance(model.get_submodule(n), nn.Linear | nn.Conv2d)}
    first = next(iter(factors), "")
    for name, pair in factors.items():
        layer = model.get_submodule(name)
        assert isinstance(layer, nn.Linear | nn.Conv2d)
        one = pair if pair.S.dim() == 2 else KroneckerFactors(pair.A[0], pair.S[0])
        (a, Q_A), (s, Q_S) = ((v.flip(0), q.flip(1)) for v, q in one.eigh(complete=False))
        W = layer.weight.detach()[: len(s)].flatten(1)  # [out, in]
        theta = (Q_S.T @ W @ Q_A).square() * s[:, None] * a / 2
        theta = F.pad(theta, (0, W.shape[1] - len(a)))  # other directions never come in: importance 0
        theta_of.append(blocked(blocked(theta.double().cpu(), 0, torch.sum), 1, torch.sum).float().numpy())
        shape_of.append(np.array(theta.shape))
        shape = tuple(layer.weight.shape[1:]) if isinstance(layer, nn.Conv2d) else tuple(sample.shape[1:])
        images = name == first and len(shape) == 3 and int(np.prod(shape)) == W.shape[1]
        vectors_of.append(Q_A[:, :6].T.reshape(-1, *shape).half().cpu().numpy() if images else None)
    return Directions(layers=tuple(factors), theta=tuple(theta_of), shape=tuple(shape_of), vectors=tuple(vectors_of))


@torch.no_grad()
def sensitivity(model: nn.Module, scores: Scores, mask: Mask, x: Tensor, y: Tensor) -> Sensitivity:
    """Accuracy against the share of filters removed, one layer at a time, without training (Li et al. 2017, section 3.2).

    On at most 1,000 validation samples (fewer for costly networks).
    """
    each = max(1, cost(model, x[:1]).operations) * len(scores.values) * len(RATIOS)
    x, y = (t[: max(100, min(1000, int(SENSITIVITY_FLOPS / each)))] for t in (x, y))
    rows, layers = [], []
    pruned, params = deepcopy(model), dict(model.named_parameters())
    for group, value in scores.values.items():
        if not bool(mask.may_leave(group).all()):
            continue
        row: dict[int, float] = {}  # filters removed -> accuracy: in a thin layer several ratios are the same number
        counts = [min(int(ratio * group.size), group.size - 1) for ratio in RATIOS]
        for count in sorted(set(counts)):
            keep = remove_lowest(value, mask.units[group], count)
            gone = {n: k for n, k in mask.keeping({**mask.units, group: keep}).everything.items() if not bool(k.all())}
            write_(pruned, {n: params[n] * k for n, k in gone.items()})
            row[count] = evaluate(pruned, x, y)["accuracy"]
            write_(pruned, {n: params[n] for n in gone})
        rows.append([row[count] for count in counts])
        layers.append(group.layer)
    return Sensitivity(
        layers=tuple(layers),
        ratios=np.array(RATIOS),
        accuracy=np.array(rows, np.float32).reshape(-1, len(RATIOS)),
        samples=len(x),
    )


def jacobians(model: nn.Module, x: Tensor) -> Jacobians:
    """Singular values per layer, pooled over samples; up to 100 outputs also those of the whole network."""
    x = x[:JACOBIAN_SAMPLES]
    values = jacobian_singular_values(model, x)
    found = _pooled([v.double().cpu().flatten().numpy() for v in values.values()])
    with untouched(model), torch.no_grad():
        outputs = model(x[:1]).numel()
    if outputs <= END_TO_END and x.is_floating_point():  # of token ids there is no slope
        end = _pooled([end_to_end_singular_values(model, x).double().cpu().flatten().numpy()])
        found |= {"end": end["quantiles"][0], "end_mean": end["mean"], "end_spread": end["spread"]}
    return Jacobians(layers=tuple(values), **found)


def _pooled(values: list[np.ndarray]) -> dict[str, np.ndarray]:
    return {
        "quantiles": np.stack([np.quantile(v, QUANTILES) for v in values]).astype(np.float32),
        "mean": np.array([v.mean() for v in values], np.float32),
        "spread": np.array([np.abs(v - 1).mean() for v in values], np.float32),
    }

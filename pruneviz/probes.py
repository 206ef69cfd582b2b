"""What is recorded beside accuracy: arrays small enough to send to a browser, binned here and never there."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from pruneviz.curvature.jacobian import jacobian_singular_values
from pruneviz.curvature.kronecker import KroneckerFactors
from pruneviz.masks import Mask, Scores

BINS = 60
SPECTRUM_SAMPLES = 512  # samples for the Kronecker factors; one forward and one backward pass over them
JACOBIAN_SAMPLES = 16  # samples for the Jacobians; an eigendecomposition of each layer's smaller side for each
QUANTILES = np.linspace(0, 1, 65)

Probe = dict[str, np.ndarray]


def saliency(scores: Scores, before: Mask, after: Mask) -> tuple[Probe, list[str]]:
    """Histograms of the score per layer, kept and removed, in one set of bins for all layers.

    ``kept``, ``removed`` [layers, bins] count units that were alive; ``zeros`` [layers, 2] those with a score of exactly
    0 (kept, removed), which a logarithmic axis cannot show. ``edges`` [bins + 1] are log10 where all scores are >= 0
    (``log`` = 1), plain otherwise. ``sizes`` [layers], ``alive`` [layers] after pruning; ``threshold`` [1].
    """
    groups = list(scores.values)
    flat = {g: scores.values[g].detach().double().cpu() for g in groups}
    was = {g: before.units[g].cpu() for g in groups}
    now = {g: after.units[g].cpu() for g in groups}
    alive = torch.cat([flat[g][was[g]] for g in groups])
    log = bool((alive >= 0).all())

    def coordinate(values: Tensor) -> Tensor:
        return values[values > 0].log10() if log else values

    shown = coordinate(alive)
    low, high = (float(shown.min()), float(shown.max())) if shown.numel() else (0.0, 1.0)
    if log and shown.numel() > 100:  # a few denormal scores must not squeeze the rest into one bin
        low = max(low, float(torch.quantile(shown[:: max(1, len(shown) // 100_000)], 0.001)) - 0.5)
    edges = np.linspace(low, high if high > low else low + 1, BINS + 1)

    def counts(values: Tensor) -> np.ndarray:
        return np.histogram(np.clip(coordinate(values).numpy(), edges[0], edges[-1]), edges)[0]

    found = {
        "edges": edges,
        "kept": np.stack([counts(flat[g][was[g] & now[g]]) for g in groups]),
        "removed": np.stack([counts(flat[g][was[g] & ~now[g]]) for g in groups]),
        "zeros": np.stack(
            [[int((flat[g][was[g] & keep] == 0).sum()) if log else 0 for keep in (now[g], ~now[g])] for g in groups]
        ),
        "sizes": np.array([g.size for g in groups]),
        "alive": np.array([int(now[g].sum()) for g in groups]),
        "log": np.array([int(log)]),
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
    (mean abs(value - 1)) [layers]."""
    values = jacobian_singular_values(model, x[:JACOBIAN_SAMPLES])
    pooled = [v.double().cpu().flatten().numpy() for v in values.values()]
    found = {
        "quantiles": np.stack([np.quantile(v, QUANTILES) for v in pooled]).astype(np.float32),
        "mean": np.array([v.mean() for v in pooled], np.float32),
        "spread": np.array([np.abs(v - 1).mean() for v in pooled], np.float32),
    }
    return found, list(values)

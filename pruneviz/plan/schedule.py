"""The sparsities that an iterative run passes through."""

from __future__ import annotations

from itertools import pairwise
from math import floor, log


def round_targets(sparsities: tuple[float, ...], rounds: int) -> list[tuple[float, bool]]:
    """``rounds`` rising targets, geometric in the kept share, that pass through every sparsity asked for.

    Rounds are shared out between neighbouring sparsities by the logarithm of what is kept (largest remainder, at least
    one each); the flag marks the sparsities asked for. ``round_targets((0.75,), 2) == [(0.5, False), (0.75, True)]``.
    """
    kept = [1.0, *(1 - s for s in sparsities)]
    lengths = [log(a / b) for a, b in pairwise(kept)]
    scale = rounds / sum(lengths) if sum(lengths) else 0.0
    counts = [max(1, floor(length * scale + 1e-9)) for length in lengths]
    while sum(counts) != rounds:
        step = 1 if sum(counts) < rounds else -1
        open_ = [i for i, n in enumerate(counts) if step > 0 or n > 1]
        counts[max(open_, key=lambda i: (step * (lengths[i] * scale - counts[i]), -i))] += step
    targets = []
    for before, after, sparsity, n in zip(kept, kept[1:], sparsities, counts, strict=False):
        targets += [(1 - before * (after / before) ** (j / n), False) for j in range(1, n)]
        targets.append((sparsity, True))
    return targets

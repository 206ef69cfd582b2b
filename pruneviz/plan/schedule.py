"""The sparsities that a run is asked for, and those that an iterative one passes through."""

from __future__ import annotations

from itertools import pairwise
from math import ceil, floor, log
from typing import Any

from pruneviz.basics.errors import InvalidSetting


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


def sparsities_given(given: Any) -> tuple[float, ...]:
    try:
        values = [float(s) for s in ([given] if isinstance(given, int | float | str) else given)]
    except (TypeError, ValueError):
        raise InvalidSetting(f"Sparsities are numbers such as 0.5,0.9; found {given!r}.") from None
    if not values:
        raise InvalidSetting("A run needs at least one sparsity, e.g. 0.5,0.9.")
    for s in values:
        if not 0 <= s < 1:
            hint = f" Did you mean {s / 100:g}?" if 1 < s < 100 else ""
            raise InvalidSetting(f"A sparsity is the fraction removed, at least 0 and below 1; found {s:g}.{hint}")
    return tuple(sorted(set(values)))


def layers_given(given: Any) -> tuple[str, ...]:
    """Patterns of layers, each once, in the order of their names: the same run in whatever order they are said."""
    several = [given] if isinstance(given, str) else given
    if not isinstance(several, list | tuple | set) or not all(isinstance(part, str) and part for part in several):
        raise InvalidSetting(f"skip is a list of layers, by name, e.g. head,*.norm1; found {given!r}.")
    return tuple(sorted(set(several)))


def rounds_given(given: Any, sparsities: tuple[float, ...]) -> int:
    """None: one shot. A whole number: rounds up to the last sparsity, at least one for each. A share: that much a round."""
    if given is None or given == 1:
        return 1
    if isinstance(given, float) and 0 < given < 1:
        given = ceil(log(1 - sparsities[-1]) / log(1 - given) - 1e-9)
    elif isinstance(given, bool) or not isinstance(given, int | str) or not str(given).isdecimal():
        raise InvalidSetting(f"rounds is a whole number from 1 to 500; found {given!r}.")
    given = int(given)
    return max(given, len(sparsities)) if given > 0 else given

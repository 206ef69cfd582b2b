"""Which units leave: exact counts by rank, and which prefix of a ranking reaches a sparsity."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from math import ceil, floor

import torch
from torch import Tensor

from pruneviz.basics.errors import InvalidSetting, Unreachable
from pruneviz.basics.seeds import number_for
from pruneviz.units.masks import Group, Mask, Scores


def count(target: float, size: int) -> int:
    """How many of ``size`` units a sparsity of ``target`` removes: the nearest whole number, halves up, in exact arithmetic."""
    if not 0 <= target < 1:
        raise InvalidSetting(f"A sparsity is the fraction removed, at least 0 and below 1; found {target}.")
    return floor(Fraction(repr(float(target))) * size + Fraction(1, 2))


def apportion(total: int, shares: list[float], lows: list[int], highs: list[int]) -> list[int]:
    """Whole numbers that add up to ``total``, each within its bounds and as near its share as they allow (largest remainder)."""
    parts = [min(max(floor(share), low), high) for share, low, high in zip(shares, lows, highs, strict=True)]
    if abs(total - sum(parts)) > len(parts):
        parts = _levelled(total, parts, shares, lows, highs)
    while (missing := total - sum(parts)) != 0:
        step = 1 if missing > 0 else -1
        free = [i for i, n in enumerate(parts) if (n < highs[i] if step > 0 else n > lows[i])]
        nearest = max(free, key=lambda i: (step * (shares[i] - parts[i]), -i))
        parts[nearest] += step
    return parts


def _levelled(total: int, parts: list[int], shares: list[float], lows: list[int], highs: list[int]) -> list[int]:
    """The parts moved towards ``total``, all equally far beyond their shares, where moving them one by one would come by."""
    up = total > sum(parts)

    def moved(steps: int) -> list[int]:
        if not steps:
            return parts
        each = zip(parts, shares, lows, highs, strict=True)
        if up:
            return [min(high, max(part, ceil(share + steps - 1))) for part, share, _, high in each]
        return [max(low, min(part, floor(share - steps + 1))) for part, share, low, _ in each]

    def holds(steps: int) -> bool:
        return sum(moved(steps)) <= total if up else sum(moved(steps)) >= total

    return moved(_last(max(highs), holds))


def must_shrink(target: float, gone: int, size: int) -> None:
    """Raises InvalidSetting, where more of ``size`` is gone already than a sparsity of ``target`` removes."""
    if gone > count(target, size):
        raise InvalidSetting(
            f"Asked for sparsity {target:g}, but {gone / size:.4g} is pruned already and a mask only shrinks. "
            "List sparsities in rising order."
        )


def tie_ranks(value: Tensor, name: str, seed: int) -> Tensor:
    """A rank in (0, 1) for each unit of a group, by which units of equal value leave, lowest first: [n] -> [n] float64, on the CPU.

    Drawn once from the seed and the group's name: units of equal value stand in random order and evenly spaced, so that of
    several groups of equal worth each loses the same share, whatever their sizes. The ranks know nothing of a sparsity
    and of what has left: masks nest.
    """
    generator = torch.Generator().manual_seed(number_for(seed, f"ties {name}"))
    order = torch.randperm(len(value), generator=generator)
    offset = torch.rand((), generator=generator, dtype=torch.float64)
    value = value.cpu()
    order = order[torch.argsort(value[order], stable=True)]
    _, sizes = torch.unique_consecutive(value[order], return_counts=True)
    starts = (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
    ranks = torch.empty(len(value), dtype=torch.float64)
    ranks[order] = (torch.arange(len(value)) - starts + offset) / sizes.repeat_interleave(sizes)
    return ranks


def remove_lowest(value: Tensor, kept: Tensor, k: int, *, name: str = "", seed: int = 0) -> Tensor:
    """``kept`` without its ``k`` lowest values; ties by :func:`tie_ranks`. Shapes: [n], [n] bool -> [n] bool."""
    return _lowest([value], [kept], k, [name], seed)[0]


def _lowest(values: list[Tensor], kept: list[Tensor], k: int, names: list[str], seed: int) -> list[Tensor]:
    """``kept`` without the ``k`` lowest values of all groups together."""
    sizes, flat, home = [len(value) for value in values], torch.cat(values), kept[0].device
    alive = torch.cat(kept).to(flat.device)  # ranks in float64 may lie on the CPU
    there = flat[alive]
    if k <= 0 or not len(there):
        return [keep.clone() for keep in kept]
    cut = there.sort().values[min(k, len(there)) - 1]
    result = alive & ~(flat < cut)
    tied = (result & (flat == cut)).nonzero().flatten()
    leaving = k - int((alive & (flat < cut)).sum())
    if leaving < len(tied):  # the same for all ranks where every one of equal value leaves
        ranks = torch.cat(
            [tie_ranks(part == cut, name, seed) for part, name in zip(flat.split(sizes), names, strict=True)]
        )
        first = torch.argsort(ranks[tied.cpu()], stable=True)[:leaving]
        tied = tied[first.to(tied.device)]
    result[tied] = False
    return list(result.to(home).split(sizes))


def select(scores: Scores, mask: Mask, target: float, *, scope: str = "global", seed: int = 0) -> Mask:
    """The mask at sparsity ``target``: units of lowest score leave, exactly as many as asked, never one that left before.

    ``scope`` "global" ranks all layers together; "layer" removes the same fraction of each layer (the counts add up to
    the global count by largest remainder). Units of equal score leave by :func:`tie_ranks`, which ``seed`` decides.

    Raises: InvalidSetting, where more is gone already than the target removes.
    """
    groups = list(scores.values)
    kept = [mask.units[group] for group in groups]
    sizes = [group.size for group in groups]
    total = count(target, sum(sizes))
    gone = [int((~k).sum()) for k in kept]
    must_shrink(target, sum(gone), sum(sizes))
    if scope == "layer":
        counts = apportion(total, [float(target) * size for size in sizes], gone, sizes)
        chosen = [
            remove_lowest(scores.values[group], k, n - g, name=group.name, seed=seed)
            for group, k, n, g in zip(groups, kept, counts, gone, strict=True)
        ]
    elif scope == "global":
        values = [scores.values[group] for group in groups]
        chosen = _lowest(values, kept, total - sum(gone), [group.name for group in groups], seed)
    else:
        raise InvalidSetting(f"Scope {scope!r} is not known here; use 'global' or 'layer'.")
    return mask.keeping(dict(zip(groups, chosen, strict=True)))


def select_units(
    values: Mapping[Group, Tensor],
    mask: Mask,
    target: float,
    *,
    most: Mapping[Group, int] | None = None,
    seed: int | None = 0,
) -> Mask:
    """The mask at the largest reachable sparsity not above ``target``: units leave in rising order of their values.

    A unit that must stay (a shared channel), or whose layer has lost the most it may (the layout's, or ``most``), is passed
    over. Units of equal value leave as :func:`order` has them. Where several prefixes of the order reach the same
    sparsity, the shortest: nothing leaves that saves nothing.

    Raises: InvalidSetting where more is gone already; Unreachable, naming the maximum, where the target lies beyond it.
    """
    if not 0 <= target < 1:
        raise InvalidSetting(f"A sparsity is the fraction removed, at least 0 and below 1; found {target}.")
    layout = mask.layout
    assert layout is not None
    sequence = order(values, mask, most, seed=seed)
    groups = list(values)

    def units(count: int) -> dict[Group, Tensor]:
        found = {group: keep.clone() for group, keep in mask.units.items()}
        for i, group in enumerate(groups):
            found[group][sequence[:count][sequence[:count, 0] == i][:, 1].to(found[group].device)] = False
        return found

    allowed = target * mask.size + 1e-9 * mask.size
    known: dict[int, int] = {}

    def removed(count: int) -> int:
        if count not in known:
            known[count] = mask.size - layout.left(units(count))
        return known[count]

    if removed(0) > allowed:
        raise InvalidSetting(
            f"Asked for sparsity {target:g}, but {removed(0) / mask.size:.4g} is pruned already and a mask only shrinks. "
            "List sparsities in rising order."
        )
    total = len(sequence)
    if removed(total) < target * mask.size - 1e-9 * mask.size:
        raise Unreachable(target, removed(total) / mask.size)
    best = _last(total, lambda n: removed(n) <= allowed)
    reached = removed(best)
    shortest = _last(best, lambda n: removed(n) < reached) + 1 if reached > removed(0) else 0
    return layout.mask(units(shortest))


def order(
    values: Mapping[Group, Tensor], mask: Mask, most: Mapping[Group, int] | None = None, *, seed: int | None = 0
) -> Tensor:
    """All units that may still leave, first to leave first: [n, 2] of (number of the group, unit).

    Units of equal value leave by :func:`tie_ranks`. ``seed`` None: in the groups' order, for values that are places in a
    group already, no two of them equal: each group loses the same share then, one after another.
    """
    layout = mask.layout
    assert layout is not None
    rows, keys, ranks = [], [], []
    for i, (group, value) in enumerate(values.items()):
        value, kept = value.cpu(), mask.units[group].cpu()
        places = torch.arange(len(value), dtype=torch.float64)
        rank = places if seed is None else tie_ranks(value, group.name, seed)
        alive = (kept & layout.may_leave(group).cpu()).nonzero().flatten()
        alive = alive[torch.argsort(rank[alive], stable=True)]
        ranked = alive[torch.argsort(value[alive], stable=True)]
        limit = layout.most(group) if most is None else most[group]
        ranked = ranked[: max(0, limit - int((~kept).sum()))]
        rows.append(torch.stack([torch.full_like(ranked, i), ranked], 1))
        keys.append(value[ranked].double())
        ranks.append(rank[ranked])
    row, key = torch.cat(rows), torch.cat(keys)
    if seed is not None:
        first = torch.argsort(torch.cat(ranks), stable=True)
        row, key = row[first], key[first]
    return row[torch.argsort(key, stable=True)]


def at_the_cut(scores: Scores, before: Mask, after: Mask) -> float:
    """The share of the units there before whose score equals the highest score removed, where some of these left and some stay.

    0 where no tie straddles the cut. Where the units that left are not the lowest of all layers together (a choice layer by
    layer, or not by the plain score), each layer has its own cut, and the ties at all of them are added up. Units that must
    stay are not counted.
    """
    found = [
        (value[there], after.units[group].to(value.device)[there])
        for group, value in scores.values.items()
        for there in [before.may_leave(group).to(value.device)]
    ]
    total = sum(len(value) for value, _ in found)
    if not total:
        return 0.0
    together = torch.cat([value for value, _ in found]), torch.cat([keep for _, keep in found])
    value, keep = together
    ranked = bool(keep.all()) or not bool((value[keep] < value[~keep].max()).any())
    return sum(_tied(*each) for each in ([together] if ranked else found)) / total


def _tied(value: Tensor, keep: Tensor) -> int:
    """How many values equal the highest that is not kept; 0 where none of these is kept."""
    if bool(keep.all()):
        return 0
    equal = value == value[~keep].max()
    return int(equal.sum()) if bool((equal & keep).any()) else 0


def _last(most: int, holds) -> int:
    """The largest n in 0 … most for which ``holds``, which is true up to some n (0 included) and false beyond."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if holds(middle) else (low, middle - 1)
    return low

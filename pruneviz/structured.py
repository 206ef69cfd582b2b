"""Units larger than a weight: how filters lie in a network, and which prefix of a ranking reaches a sparsity."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pruneviz.channels import trace
from pruneviz.errors import InvalidSetting, Unreachable, Unsuitable
from pruneviz.masks import Group, Mask, Slot

SIDE = 0.95  # of a layer's units at most (Wang et al. 2019, the authors' code)


class Filters:
    """Outputs of every Linear and Conv2d but the last layer as units, with all that leaves beside them.

    A filter takes along its bias, its entries in the normalisation that follows, and the weights that read it. Channels
    that several layers add up (residual sums) stay. ``share``: of a layer's filters at most; None: all but one.
    """

    def __init__(self, model: nn.Module, sample: Tensor, *, share: float | None = SIDE):
        self.channels = trace(model, sample)
        self._params = dict(model.named_parameters())
        self._share, self._device = share, sample.device
        layers = list(self.channels.writes)[:-1]
        if not layers:
            raise Unsuitable(
                "The network has a single layer, whose outputs are the answer: there is no filter to remove."
            )
        self.groups = tuple(
            Group(n, (Slot(f"{n}.weight", (0,)),), len(self.channels.writes[n])) for n in layers
        )  # fmt: skip
        self.size = sum(self._weight(name).numel() for name in self.channels.writes)

    def may_leave(self, group: Group) -> Tensor:
        return self.channels.removable(group.layer).to(self._device)

    def most(self, group: Group) -> int:
        return group.size - 1 if self._share is None else int(self._share * group.size + 1e-9)

    def full(self) -> Mask:
        """Everything kept."""
        return self.mask({group: torch.ones(group.size, dtype=torch.bool) for group in self.groups})

    def left(self, units: Mapping[Group, Tensor]) -> int:
        """Prunable weights of the compacted network."""
        gone = self._gone(units)
        total = 0
        for name, writes in self.channels.writes.items():
            rows, columns = ~gone[writes], ~gone[self.channels.reads[name]]
            weight = self._weight(name)
            total += int(rows.sum()) * int(columns.sum()) * (weight[0].numel() // len(columns))
        return total

    def mask(self, units: Mapping[Group, Tensor]) -> Mask:
        gone = self._gone(units)
        params, coupled = {}, {}
        for name, writes in self.channels.writes.items():
            rows, columns = ~gone[writes], ~gone[self.channels.reads[name]]
            weight = self._weight(name)
            keep = rows[:, None] & columns[None].repeat(1, weight.shape[1] // len(columns))
            params[f"{name}.weight"] = self._spread(keep, weight)
            if f"{name}.bias" in self._params and not bool(rows.all()):
                coupled[f"{name}.bias"] = rows.to(self._device)
        for name, scaled in self.channels.scales.items():
            if bool(gone[scaled].any()):
                own = [p for p in (f"{name}.weight", f"{name}.bias") if p in self._params]
                coupled |= {p: (~gone[scaled]).to(self._device) for p in own}
        on_device = {group: keep.to(self._device) for group, keep in units.items()}
        return Mask(params, on_device, coupled=coupled, size=self.size, left=self.left(units), layout=self)

    def _gone(self, units: Mapping[Group, Tensor]) -> Tensor:
        gone = torch.zeros(len(self.channels.free), dtype=torch.bool)
        for group, keep in units.items():
            gone[self.channels.writes[group.layer][~keep.cpu()]] = True
        return gone & self.channels.free

    def _spread(self, keep: Tensor, weight: Tensor) -> Tensor:
        """[out, in] -> the weight's own shape."""
        return keep.view(*keep.shape, *[1] * (weight.dim() - 2)).expand(weight.shape).contiguous().to(self._device)

    def _weight(self, layer: str) -> Tensor:
        return self._params[f"{layer}.weight"]


def select_units(
    values: Mapping[Group, Tensor], mask: Mask, target: float, *, most: Mapping[Group, int] | None = None
) -> Mask:
    """The mask at the largest reachable sparsity not above ``target``: units leave in rising order of their values.

    A unit that must stay (a shared channel), or whose layer has lost the most it may (the layout's, or ``most``), is passed
    over. Where several prefixes of the order reach the same sparsity, the shortest: nothing leaves that saves nothing.

    Raises: InvalidSetting where more is gone already; Unreachable, naming the maximum, where the target lies beyond it.
    """
    if not 0 <= target < 1:
        raise InvalidSetting(f"A sparsity is the fraction removed, at least 0 and below 1; found {target}.")
    layout = mask.layout
    assert layout is not None
    sequence = order(values, mask, most)
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


def order(values: Mapping[Group, Tensor], mask: Mask, most: Mapping[Group, int] | None = None) -> Tensor:
    """All units that may still leave, first to leave first: [n, 2] of (number of the group, unit); ties by position."""
    layout = mask.layout
    assert layout is not None
    rows, keys = [], []
    for i, (group, value) in enumerate(values.items()):
        kept = mask.units[group].to(value.device)
        alive = (kept & layout.may_leave(group).to(value.device)).nonzero().flatten()
        ranked = alive[torch.argsort(value[alive], stable=True)]
        limit = layout.most(group) if most is None else most[group]
        ranked = ranked[: max(0, limit - int((~kept).sum()))].cpu()
        rows.append(torch.stack([torch.full_like(ranked, i), ranked], 1))
        keys.append(value[ranked.to(value.device)].double().cpu())
    return torch.cat(rows)[torch.argsort(torch.cat(keys), stable=True)]


def _last(most: int, holds) -> int:
    """The largest n in 0 … most for which ``holds``, which is true up to some n (0 included) and false beyond."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if holds(middle) else (low, middle - 1)
    return low

"""Units larger than a weight: how filters lie in a network, and which prefix of a ranking reaches a sparsity."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from pruneviz.basics.errors import Unsuitable
from pruneviz.door.parameters import named
from pruneviz.door.samples import Samples, tensors
from pruneviz.records.units import Unit
from pruneviz.units.channels import trace
from pruneviz.units.masks import Group, Layout, Mask, Slot

SIDE = 0.95  # of a layer's units at most (Wang et al. 2019, the authors' code)


class Filters(Layout):
    """Outputs of every Linear, Conv1d and Conv2d but the last layer as units, with all that leaves beside them.

    A filter takes along its bias, its entries in the normalisation that follows, and the weights that read it. Channels
    that several layers add up (residual sums) stay. ``share``: of a layer's filters at most; None: all but one. ``alive``:
    which entries of a weight are there at the start, by parameter name; the others are gone in every mask and every count.
    ``stays``: layers whose filters are not units, and why; ``skip``: those of them whose weights are not counted either
    (what reads filters that leave is zero there all the same).
    """

    unit = Unit.FILTER
    layer_by_layer = True

    def __init__(
        self,
        model: nn.Module,
        sample: Samples,
        *,
        share: float | None = SIDE,
        alive: Mapping[str, Tensor] | None = None,
        stays: Mapping[str, str] | None = None,
        skip: Collection[str] = (),
    ):
        self.channels = trace(model, sample)
        self._params = named(model)
        self._share, self._device = share, tensors(sample)[0].device
        inner, last = list(self.channels.writes)[:-1], next(reversed(self.channels.writes), None)
        self.stays = {name: why for name, why in (stays or {}).items() if name in inner}
        self.skip = set(skip)
        layers = [name for name in inner if name not in self.stays]
        if not layers:
            said = "; ".join(f"{name or 'its own'!r}: {why}" for name, why in (stays or {}).items() if name != last)
            raise Unsuitable(
                f"No layer is left whose filters can leave. {said}."
                if said
                else "The network has a single layer, whose outputs are the answer: there is no filter to remove."
            )
        self.groups = tuple(
            Group(n, (Slot(f"{n}.weight", (0,)),), len(self.channels.writes[n])) for n in layers
        )  # fmt: skip
        self.size = sum(self._weight(name).numel() for name in self.channels.writes if name not in self.skip)
        self._alive, self._counts = {}, {}
        for name in self.channels.writes:
            there = (alive or {}).get(f"{name}.weight")
            if there is not None and not bool(there.all()):
                self._alive[name] = there.to(self._device)
                each = there.flatten(2).sum(2) if there.dim() > 2 else there.long()
                self._counts[name] = each.view(len(each), -1, len(self.channels.reads[name])).sum(1).cpu()

    def there(self, layer: str) -> Tensor | None:
        """Which entries of a layer's weight are there at the start; None where all are."""
        return self._alive.get(layer)

    def may_leave(self, group: Group) -> Tensor:
        return self.channels.removable(group.layer).to(self._device)

    def most(self, group: Group) -> int:
        return group.size - 1 if self._share is None else int(self._share * group.size + 1e-9)

    def left(self, units: Mapping[Group, Tensor]) -> int:
        """Prunable weights of the compacted network."""
        gone = self._gone(units)
        total = 0
        for name, writes in self.channels.writes.items():
            if name in self.skip:
                continue
            rows, columns = ~gone[writes], ~gone[self.channels.reads[name]]
            if name in self._counts:
                total += int(self._counts[name][rows][:, columns].sum())
                continue
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
            if name in self.skip:
                coupled[f"{name}.weight"] = self._spread(keep, weight)
                continue
            params[f"{name}.weight"] = self._spread(keep, weight)
            if name in self._alive:
                params[f"{name}.weight"] &= self._alive[name]
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

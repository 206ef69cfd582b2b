"""Which channel of which layer is read where: what leaves together when a filter leaves, in any network that runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pruneviz.door.activations import Does, does
from pruneviz.door.exact import flat, results
from pruneviz.door.parameters import Layer
from pruneviz.door.samples import Samples, changed
from pruneviz.door.untouched import untouched


@dataclass(frozen=True)
class Channels:
    """Channels by number; 0 is "none" (an input's, or a constant). Layers are Linear, Conv1d and Conv2d, in forward order.

    ``writes`` [out]: the channel that each output of a layer is. ``reads`` [in]: the channel that each input of a layer is
    (after a flatten a channel is read at several). ``scales`` [C]: those that a normalisation scales. ``free`` [channels]:
    whether a channel can be removed: one layer alone writes it, and everything that reads it can do without it. ``shared``:
    layers whose weight or bias has other readers than that layer, called once.
    """

    writes: dict[str, Tensor]
    reads: dict[str, Tensor]
    scales: dict[str, Tensor]
    free: Tensor
    shared: frozenset[str] = frozenset()

    def removable(self, layer: str) -> Tensor:
        """Which outputs of a layer can be removed: bool [out]."""
        return self.free[self.writes[layer]]


def trace(model: nn.Module, sample: Samples) -> Channels:
    """Follow every channel from the layer that writes it to the layers that read it, by running ``sample`` [1, ...] once.

    A tensor of channel numbers travels beside each activation. What only moves numbers (flatten, transpose, slice, concatenate,
    pad, shuffle) is applied to the channel numbers themselves, so that parameter-free shortcuts and any flattening come out
    right. Activations, batch normalisation and pooling keep channels apart; a sum makes the channels it adds up one, which
    then has several writers, or none that can be removed where the network's input or a parameter is added. Whatever else the
    network does with a channel (normalisation over channels, attention, grouped convolutions, the output itself), and with a
    layer's weight or bias beside calling the layer once, keeps it from being removed: less is pruned then, never wrongly.
    """
    sample = changed(sample, Tensor.clone)  # an operation in place would mark the caller's own
    followed = _Follow(model)
    try:
        with untouched(model), torch.no_grad(), followed.calls(), followed:
            followed.lock(*flat(results(model, sample)))
    finally:
        for tensor in [*model.parameters(), *model.buffers()]:
            vars(tensor).pop("_channels", None)
    return followed.found()


_SAME = (Does.ACTIVATES, Does.COMPUTES, Does.PASSES)


class _Follow(TorchFunctionMode):
    """Carries channel numbers along as an attribute of the tensors."""

    def __init__(self, model: nn.Module):
        super().__init__()
        named = list(model.named_modules())
        self.modules = {n: m for n, m in named if isinstance(m, Layer)}
        self.layers: dict[int, str] = {}  # by their weight: the first of those that share one
        self.owners: dict[int, list[str]] = {}  # by their weight, and by their bias
        for name, module in named:
            for kind, parameter in module._parameters.items():
                if parameter is not None:
                    self.owners.setdefault(id(parameter), []).append(name)
                    if kind == "weight" and name in self.modules:
                        self.layers.setdefault(id(parameter), name)
        self.norms = {
            id(tensor): (n, len(tensor))
            for n, m in named
            if isinstance(m, nn.modules.batchnorm._NormBase)
            for tensor in (m._buffers.get("running_mean"), m._parameters.get("weight"))
            if tensor is not None
        }
        self.shared = {name for names in self.owners.values() if len(names) > 1 for name in names}
        self.running: list[str] = []  # layers that are being called
        self.parent = [0]  # union-find over channel numbers; 0 is none
        self.locked: set[int] = {0}
        self.writes: dict[str, Tensor] = {}
        self.reads: dict[str, Tensor] = {}
        self.scales: dict[str, Tensor] = {}

    @contextmanager
    def calls(self) -> Iterator[None]:
        """Know which layer is being called, as long as this lasts."""
        hooks = []
        for name, module in self.modules.items():
            hooks.append(module.register_forward_pre_hook(lambda *_, name=name: self.running.append(name)))
            hooks.append(module.register_forward_hook(self._called))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _called(self, *_: Any) -> None:
        self.running.pop()

    # channel numbers

    def root(self, channel: int) -> int:
        while self.parent[channel] != channel:
            self.parent[channel] = self.parent[self.parent[channel]]
            channel = self.parent[channel]
        return channel

    def lock(self, *tensors: Tensor) -> None:
        """What these carry cannot be removed."""
        for tensor in tensors:
            if (numbers := getattr(tensor, "_channels", None)) is not None:
                self.locked.update(numbers.unique().tolist())

    def found(self) -> Channels:
        roots = torch.tensor([self.root(c) for c in range(len(self.parent))])
        writers = torch.zeros(len(roots), dtype=torch.long)
        for numbers in self.writes.values():
            writers += torch.bincount(roots[numbers.cpu()], minlength=len(roots))
        for layer in self.shared & set(self.writes):
            self.locked.update(self.writes[layer].tolist(), self.reads[layer].tolist())
        free = writers == 1
        free[roots[torch.tensor(sorted(self.locked))]] = False

        def settled(numbers: dict[str, Tensor]) -> dict[str, Tensor]:
            return {name: roots[value.cpu()] for name, value in numbers.items()}

        return Channels(settled(self.writes), settled(self.reads), settled(self.scales), free, frozenset(self.shared))

    # what functions do to them

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        name, kind = getattr(func, "__name__", ""), does(func)
        if kind is Does.ASKS and not isinstance(result, Tensor):
            return result
        given = list(flat((args, kwargs)))
        carried = [t for t in given if hasattr(t, "_channels")]
        self._read(given)
        if kind is Does.ASKS:  # x.mT: a property that is a tensor, or x.type(dtype)
            if carried:
                numbers = self._numbers(carried[0])
                numbers = func(numbers) if name == "__get__" else numbers
                self._mark(result, numbers if numbers.shape == result.shape else None, carried)
        elif name in ("linear", "conv1d", "conv2d"):
            self._layer(name, args, kwargs, result)
        elif name == "__setitem__" and (carried or hasattr(args[0], "_channels")):
            target = args[0]._channels = self._numbers(args[0]).clone()  # pyright: ignore[reportAttributeAccessIssue]
            target[args[1]] = self._numbers(args[2]) if isinstance(args[2], Tensor) else 0
            if args[0]._is_view():  # what it is a view of does not know
                self.lock(*carried, args[0])
        elif carried:
            numbers = self._after(kind, func, args, kwargs, carried, result)
            outputs = list(flat(result))
            fits = numbers is not None and [n.shape for n in numbers] == [o.shape for o in outputs]
            for i, output in enumerate(outputs):
                self._mark(output, numbers[i] if numbers is not None and fits else None, carried)
            if not fits:  # nobody knows what this function does with channels
                self.lock(*carried)
        return result

    def _mark(self, tensor: Tensor, numbers: Tensor | None, carried: list[Tensor]) -> None:
        """Give a tensor its channel numbers; where none are known, those it came from stay."""
        if numbers is not None:
            tensor._channels = numbers  # pyright: ignore[reportAttributeAccessIssue]
            return
        self.lock(*carried)
        vars(tensor).pop("_channels", None)

    def _read(self, given: list[Tensor]) -> None:
        """A layer's weight or bias that is read while that layer is not being called has other readers than its own."""
        for tensor in given:
            names = self.owners.get(id(tensor), ())
            if names and (not self.running or self.running[-1] not in names):
                self.shared.update(names)

    def _layer(self, kind: str, args: tuple, kwargs: dict, result: Tensor) -> None:
        x = args[0] if args else kwargs["input"]
        weight = args[1] if len(args) > 1 else kwargs["weight"]
        layer = self.layers.get(id(weight))
        axis = -1 if kind == "linear" else 1
        numbers = self._one(self._numbers(x), axis)
        grouped = kind != "linear" and weight.shape[1] != x.shape[1]
        if layer is None or numbers is None or grouped or layer in self.writes:
            self.lock(x)
            if layer is None:
                return
            numbers = torch.zeros(weight.shape[1], dtype=torch.long, device=x.device)
        if layer not in self.writes:
            first = len(self.parent)
            self.parent += range(first, first + len(weight))
            self.writes[layer] = torch.arange(first, first + len(weight), device=x.device)
            self.reads[layer] = numbers
            stays = grouped
        else:
            stays = True  # used twice
            self.shared.add(layer)
            self.locked.update(self.reads[layer].tolist())
        if stays:
            self.locked.update(self.writes[layer].tolist())
        shape = [1] * result.dim()
        shape[axis] = -1
        result._channels = self.writes[layer].view(shape).expand(result.shape)  # pyright: ignore[reportAttributeAccessIssue]

    def _after(
        self, kind: Does | None, func: Callable, args: tuple, kwargs: dict, carried: list[Tensor], result: Any
    ) -> list[Tensor] | None:
        """Channel numbers of each tensor that came out; None where nothing is known of this function."""
        first = carried[0]
        numbers: Tensor = first._channels  # pyright: ignore[reportAttributeAccessIssue]
        if kind in _SAME:
            beside = [t for t in flat((args, kwargs)) if t is not first and t.numel() > 1]  # a slope for each channel
            return [numbers] if not beside or (kind is Does.PASSES and len(carried) == 1) else None
        if kind is Does.MOVES:
            if func.__name__ in ("pad", "constant_pad_nd"):  # what is put beside is no channel
                args, kwargs = (
                    args[: 3 if func.__name__ == "pad" else 2],
                    {k: v for k, v in kwargs.items() if k != "value"},
                )
            try:
                moved = list(flat(func(*_replaced(args, self._numbers), **_replaced(kwargs, self._numbers))))
            except RuntimeError:
                return None
            before = {c for t in carried for c in t._channels.unique().tolist()} - {0}  # pyright: ignore[reportAttributeAccessIssue]
            whole = all(set(t.unique().tolist()) - {0} == before and sum(_varies(t)) <= 1 for t in moved)
            if not whole:  # channels are picked by number, or counted: with fewer the code would do something else
                self.lock(*carried)
            return moved
        if kind is Does.MERGES:
            operands = [self._numbers(t) for t in flat((args, kwargs))]
            return [self._merged(operands)] if isinstance(result, Tensor) else None
        if kind is Does.NORMALISES:
            ids = [id(t) for t in flat((args[1:], kwargs))]
            known = next((self.norms[i] for i in ids if i in self.norms), None)
            channels = self._one(numbers, 1)
            if channels is None or (ids and known is None):
                return None
            if known is not None:
                if known[0] in self.scales:
                    return None
                self.scales[known[0]] = channels
            return [numbers]
        if kind is Does.POOLS and isinstance(result, Tensor):
            corner = self._one(numbers, 1, spread=True)
            return None if corner is None else [corner.expand(result.shape)]
        if kind is Does.REDUCES and isinstance(result, Tensor):
            dim, keep = kwargs.get("dim", args[1] if len(args) > 1 else None), kwargs.get("keepdim", False)
            if dim is None or isinstance(dim, Tensor):
                return None
            high, low = numbers.amax(dim, keepdim=keep), numbers.amin(dim, keepdim=keep)
            return [high] if torch.equal(high, low) else None
        return None

    @staticmethod
    def _numbers(tensor: Tensor) -> Tensor:
        found = getattr(tensor, "_channels", None)
        return torch.zeros(tensor.shape, dtype=torch.long, device=tensor.device) if found is None else found

    @staticmethod
    def _one(numbers: Tensor, axis: int, *, spread: bool = False) -> Tensor | None:
        """The channel at each place of an axis, where it is the same all over the others: [places], or kept spread out."""
        if spread:
            corner = numbers[(slice(None), slice(None), *[slice(0, 1)] * (numbers.dim() - 2))]
        else:
            axis %= numbers.dim()
            corner = numbers[tuple(slice(None) if d == axis else slice(0, 1) for d in range(numbers.dim()))]
        if not torch.equal(corner.expand(numbers.shape), numbers):
            return None
        return corner if spread else corner.flatten()

    def _merged(self, operands: list[Tensor]) -> Tensor:
        """A sum's or a product's channels: those that meet are one; a channel that meets none, and has to, stays."""
        found = operands[0]
        for other in operands[1:]:
            meet = not any(
                varies and n == 1
                for a, b in ((found, other), (other, found))
                for varies, n in zip(reversed(_varies(a)), reversed(b.shape), strict=False)
            )
            single = any(t.dim() == 0 and not bool(t.any()) for t in (found, other))
            found, other = torch.broadcast_tensors(found, other)
            meet = meet and not single
            pairs = torch.stack([found.flatten(), other.flatten()], 1)
            for a, b in pairs[pairs[:, 0] != pairs[:, 1]].unique(dim=0).tolist():
                if a and b:
                    self.parent[self.root(a)] = self.root(b)
                elif meet:
                    self.locked.update((a, b))
            found = torch.where(found == 0, other, found)
        return found


def _varies(numbers: Tensor) -> list[bool]:
    """Along which axes channel numbers differ."""
    return [bool((numbers != numbers.narrow(d, 0, 1)).any()) if n else False for d, n in enumerate(numbers.shape)]


def _replaced(value: Any, by: Callable[[Tensor], Tensor]) -> Any:
    """The same arguments with every floating-point tensor replaced."""
    if isinstance(value, Tensor):
        return by(value).contiguous() if value.is_floating_point() else value
    if isinstance(value, list | tuple):
        return type(value)(_replaced(item, by) for item in value)
    if isinstance(value, dict):
        return {key: _replaced(item, by) for key, item in value.items()}
    return value

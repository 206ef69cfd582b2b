"""Running a network in float64, whatever it casts to, on inputs that are not the sample's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pruneviz.door.samples import Inputs, Samples, changed, forward, tensors


class Exact(TorchFunctionMode):
    """Every floating-point tensor that a function gives is float64: casts to less, and tensors made in less, lose nothing."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        return widened(func(*args, **(kwargs or {})))


def widened(value: Any) -> Any:
    """A floating-point tensor in float64; anything else as it is."""
    narrow = isinstance(value, Tensor) and value.is_floating_point() and value.dtype is not torch.float64
    return value.double() if narrow else value


def place(model: nn.Module) -> torch.device:
    """Where a network is run in float64: on its own device, or on the CPU where that has none."""
    home = next(model.parameters()).device
    return torch.device("cpu") if home.type == "mps" else home


def exactly(x: Samples, device: torch.device) -> Samples:
    """The samples on a device, floating-point ones in float64; token ids and other whole numbers as they are."""
    return changed(x, lambda t: t.detach().to(device, torch.float64 if t.is_floating_point() else t.dtype).clone())


def results(model: nn.Module, x: Samples) -> Any:
    """Everything that the network gives, not only the tensor that is read."""
    found = []

    def keep(result: Any) -> Tensor:
        found.append(result)
        return torch.zeros(())

    forward(model, Inputs(x.values if isinstance(x, Inputs) else x, keep))
    return found[0]


def flat(value: Any, depth: int = 6) -> Iterator[Tensor]:
    """The tensors in arguments or results: in lists, mappings and the attributes of objects, down to a depth."""
    if isinstance(value, Tensor):
        yield value
    elif depth and isinstance(value, list | tuple | Mapping):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from flat(item, depth - 1)
    elif depth and hasattr(value, "__dict__") and not callable(value):
        yield from flat(vars(value), min(depth, 3) - 1)


def differ(a: Tensor, b: Tensor, share: float = 1e-10, least: float = 1e-12) -> Tensor:
    """Where two tensors differ by more than rounding: by ``share`` of the larger and ``least``. NaN equals NaN."""
    if a.shape != b.shape:
        return torch.ones_like(b, dtype=torch.bool)
    if not a.is_floating_point():
        return a != b
    same = (a == b) | (a.isnan() & b.isnan())
    gap, size = (a - b).abs(), torch.maximum(a.abs(), b.abs())
    return ~same & ~(gap <= share * size.nan_to_num(posinf=0.0) + least)


def telling(x: Samples, turn: int = 0) -> list[bool]:
    """Which tensors of a sample carry what is to be told apart, and may take other values: not masks, unless there is nothing else.

    Those that hold more than zeros and ones; else those that vary at all; else one, another with each ``turn``.
    """
    each = [t.detach() for t in tensors(x)]
    varied = [t.numel() > 0 and bool((t != t.flatten()[0]).any()) for t in each]
    rich = [v and bool(((t != 0) & (t != 1)).any()) for v, t in zip(varied, each, strict=True)]
    if any(rich):
        return rich
    return varied if any(varied) else [i == turn % len(each) for i in range(len(each))]


def drawn(x: Samples, generator: torch.Generator, n: int = 1, turn: int = 0) -> Samples:
    """``n`` random samples shaped like one [1, ...]: normal numbers; of whole numbers only values that the sample itself has."""
    chosen = iter(telling(x, turn))

    def draw(t: Tensor) -> Tensor:
        shape = (n, *t.shape[1:])
        if not next(chosen):
            return t.expand(shape).clone()
        if t.is_floating_point():
            return torch.randn(shape, generator=generator, dtype=torch.float64).to(t)
        known = t.unique()
        if len(known) == 1:
            return t.expand(shape).clone()
        return known[torch.randint(len(known), shape, generator=generator).to(known.device)]

    return changed(x, draw)


def pair(x: Samples, generator: torch.Generator, turn: int = 0) -> tuple[Samples, Samples]:
    """Two samples of this form whose telling values all differ: normal numbers; whole ones as they are, and moved on to others."""
    chosen = telling(x, turn)

    def one(change: Callable[[Tensor], Tensor]) -> Samples:
        each = iter(chosen)
        return changed(x, lambda t: change(t) if next(each) else t)

    def first(t: Tensor) -> Tensor:
        return torch.randn(t.shape, generator=generator, dtype=torch.float64).to(t) if t.is_floating_point() else t

    def second(t: Tensor) -> Tensor:
        if t.is_floating_point():
            return first(t)
        if t.dtype is torch.bool:
            return ~t
        known = t.unique()
        if len(known) == 1:  # the number before is valid wherever this one is
            return torch.where(t > 0, t - 1, t + 1)
        return known[(torch.searchsorted(known, t) + 1 + turn % (len(known) - 1)) % len(known)]

    return one(first), one(second)

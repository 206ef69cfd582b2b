"""Which channel of which layer is read where: what leaves together when a filter leaves, in any network that runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pruneviz.curvature.gradients import untouched


@dataclass(frozen=True)
class Channels:
    """Channels by number; 0 is "none" (an input's, or a constant). Layers are Linear and Conv2d, in forward order.

    ``writes`` [out]: the channel that each output of a layer is. ``reads`` [in]: the channel that each input of a layer is
    (after a flatten a channel is read at several). ``scales`` [C]: those that a normalisation scales. ``free`` [channels]:
    whether a channel can be removed: one layer alone writes it, and everything that reads it can do without it.
    """

    writes: dict[str, Tensor]
    reads: dict[str, Tensor]
    scales: dict[str, Tensor]
    free: Tensor

    def removable(self, layer: str) -> Tensor:
        """Which outputs of a layer can be removed: bool [out]."""
        return self.free[self.writes[layer]]


def trace(model: nn.Module, sample: Tensor) -> Channels:
    """Follow every channel from the layer that writes it to the layers that read it, by running ``sample`` [1, ...] once.

    A tensor of channel numbers travels beside each activation. What only moves numbers (flatten, transpose, slice, concatenate,
    pad, shuffle) is applied to the channel numbers themselves, so that parameter-free shortcuts and any flattening come out
    right. Activations, batch normalisation and pooling keep channels apart; a sum makes the channels it adds up one, which
    then has several writers. Whatever else the network does with a channel (normalisation over channels, attention, grouped
    convolutions, the output itself) keeps it from being removed: less is pruned then, never wrongly.
    """
    with untouched(model), torch.no_grad(), _Follow(model) as followed:
        output = model(sample)
        for tensor in _tensors(output):
            followed.lock(tensor)
    return followed.found()


_SAME = frozenset((
    "relu", "relu_", "relu6", "leaky_relu", "leaky_relu_", "elu", "elu_", "selu", "selu_", "celu", "gelu", "silu",
    "mish", "hardtanh", "hardtanh_", "hardswish", "hardsigmoid", "hardshrink", "tanh", "tanh_", "tanhshrink",
    "sigmoid", "sigmoid_", "logsigmoid", "softplus", "softsign", "softshrink", "threshold", "erf", "exp", "abs",
    "neg", "square", "sqrt", "rsqrt", "pow", "clamp", "clamp_", "clamp_min", "clip", "dropout", "dropout_",
    "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_dropout", "clone", "contiguous", "detach", "to",
    "float", "double", "half", "bfloat16", "type_as", "requires_grad_"
))  # fmt: skip
_MERGE = frozenset((
    "add", "add_", "sub", "sub_", "mul", "mul_", "div", "div_", "true_divide", "__add__", "__radd__", "__iadd__",
    "__sub__", "__rsub__", "__isub__", "__mul__", "__rmul__", "__imul__", "__truediv__", "__itruediv__", "rsub",
    "maximum", "minimum"
))  # fmt: skip
_MOVE = frozenset((
    "view", "reshape", "flatten", "unflatten", "permute", "transpose", "transpose_", "swapaxes", "swapdims",
    "movedim", "moveaxis", "squeeze", "squeeze_", "unsqueeze", "unsqueeze_", "expand", "expand_as", "repeat", "tile",
    "cat", "concat", "concatenate", "stack", "chunk", "split", "split_with_sizes", "tensor_split", "unbind",
    "narrow", "select", "__getitem__", "pad", "constant_pad_nd", "t"
))  # fmt: skip
_POOL = frozenset((
    "max_pool2d", "max_pool1d", "avg_pool2d", "avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool1d",
    "adaptive_max_pool2d", "adaptive_max_pool1d", "lp_pool2d", "interpolate", "upsample"
))  # fmt: skip
_REDUCE = frozenset(["mean", "sum", "amax", "amin", "max", "min"])
_NORM = frozenset(["batch_norm", "instance_norm"])
_QUIET = frozenset(
    [
        "__get__",
        "size",
        "dim",
        "numel",
        "item",
        "shape",
        "__len__",
        "is_floating_point",
        "stride",
        "storage_offset",
        "type",
    ]
)


class _Follow(TorchFunctionMode):
    """Carries channel numbers along as an attribute of the tensors."""

    def __init__(self, model: nn.Module):
        super().__init__()
        named = list(model.named_modules())
        self.layers = {id(m.weight): n for n, m in named if isinstance(m, nn.Linear | nn.Conv2d)}
        self.norms = {
            id(tensor): (n, len(tensor))
            for n, m in named
            if isinstance(m, nn.modules.batchnorm._NormBase)
            for tensor in (m.running_mean, m.weight)
            if tensor is not None
        }
        self.parent = [0]  # union-find over channel numbers; 0 is none
        self.locked: set[int] = {0}
        self.writes: dict[str, Tensor] = {}
        self.reads: dict[str, Tensor] = {}
        self.scales: dict[str, Tensor] = {}

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
        free = writers == 1
        free[roots[torch.tensor(sorted(self.locked))]] = False

        def settled(numbers: dict[str, Tensor]) -> dict[str, Tensor]:
            return {name: roots[value.cpu()] for name, value in numbers.items()}

        return Channels(settled(self.writes), settled(self.reads), settled(self.scales), free)

    # what functions do to them

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        if name in _QUIET:
            return result
        given = list(_tensors((args, kwargs)))
        carried = [t for t in given if hasattr(t, "_channels")]
        if name in ("linear", "conv2d"):
            self._layer(name, args, kwargs, result)
        elif name == "__setitem__" and (carried or hasattr(args[0], "_channels")):
            self._numbers(args[0])[args[1]] = self._numbers(args[2]) if isinstance(args[2], Tensor) else 0
        elif carried:
            numbers = self._after(name, func, args, kwargs, carried, result)
            outputs = list(_tensors(result))
            shapes = numbers is not None and [n.shape for n in numbers] == [o.shape for o in outputs]
            if not shapes:  # nobody knows what this function does with channels
                self.lock(*carried)
            for i, output in enumerate(outputs):
                if numbers is not None and shapes:
                    output._channels = numbers[i]  # pyright: ignore[reportAttributeAccessIssue]
                elif hasattr(output, "_channels"):
                    delattr(output, "_channels")
        return result

    def _layer(self, kind: str, args: tuple, kwargs: dict, result: Tensor) -> None:
        x = args[0] if args else kwargs["input"]
        weight = args[1] if len(args) > 1 else kwargs["weight"]
        layer = self.layers.get(id(weight))
        axis = -1 if kind == "linear" else 1
        numbers = self._one(self._numbers(x), axis)
        grouped = kind == "conv2d" and weight.shape[1] != x.shape[1]
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
        if stays:
            self.locked.update(self.writes[layer].tolist())
        shape = [1] * result.dim()
        shape[axis] = -1
        result._channels = self.writes[layer].view(shape).expand(result.shape)  # pyright: ignore[reportAttributeAccessIssue]

    def _after(
        self, name: str, func: Callable, args: tuple, kwargs: dict, carried: list[Tensor], result: Any
    ) -> list[Tensor] | None:
        """Channel numbers of each tensor that came out; None where nothing is known of this function."""
        first = carried[0]
        numbers: Tensor = first._channels  # pyright: ignore[reportAttributeAccessIssue]
        if name in _SAME:
            return [numbers] if len(carried) == 1 else None
        if name in _MOVE:
            try:
                moved = list(_tensors(func(*_replaced(args, self._numbers), **_replaced(kwargs, self._numbers))))
            except RuntimeError:
                return None
            before = {c for t in carried for c in t._channels.unique().tolist()} - {0}  # pyright: ignore[reportAttributeAccessIssue]
            whole = all(set(t.unique().tolist()) - {0} == before and sum(_varies(t)) <= 1 for t in moved)
            if not whole:  # channels are picked by number, or counted: with fewer the code would do something else
                self.lock(*carried)
            return moved
        if name in _MERGE:
            operands = [self._numbers(t) for t in _tensors((args, kwargs))]
            return [self._merged(operands)] if isinstance(result, Tensor) else None
        if name in _NORM:
            ids = [id(t) for t in _tensors((args[1:], kwargs))]
            known = next((self.norms[i] for i in ids if i in self.norms), None)
            channels = self._one(numbers, 1)
            if channels is None or (ids and known is None):
                return None
            if known is not None:
                if known[0] in self.scales:
                    return None
                self.scales[known[0]] = channels
            return [numbers]
        if name in _POOL and isinstance(result, Tensor):
            flat = self._one(numbers, 1, spread=True)
            return None if flat is None else [flat.expand(result.shape)]
        if name in _REDUCE and isinstance(result, Tensor):
            dim, keep = kwargs.get("dim", args[1] if len(args) > 1 else None), kwargs.get("keepdim", False)
            if dim is None or isinstance(dim, Tensor):
                return None
            high, low = numbers.amax(dim, keepdim=keep), numbers.amin(dim, keepdim=keep)
            return [high] if torch.equal(high, low) else None
        return None

    @staticmethod
    def _numbers(tensor: Tensor) -> Tensor:
        if not hasattr(tensor, "_channels"):
            tensor._channels = torch.zeros(tensor.shape, dtype=torch.long, device=tensor.device)  # pyright: ignore[reportAttributeAccessIssue]
        return tensor._channels  # pyright: ignore[reportAttributeAccessIssue]

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
            found, other = torch.broadcast_tensors(found, other)
            meet = meet and bool(found.any()) and other.dim() > 0
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


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))


def _replaced(value: Any, by: Callable[[Tensor], Tensor]) -> Any:
    """The same arguments with every floating-point tensor replaced."""
    if isinstance(value, Tensor):
        return by(value).contiguous() if value.is_floating_point() else value
    if isinstance(value, list | tuple):
        return type(value)(_replaced(item, by) for item in value)
    if isinstance(value, dict):
        return {key: _replaced(item, by) for key, item in value.items()}
    return value

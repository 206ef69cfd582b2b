"""One forward pass, watched: which parameters it reads, by which operations, and what they multiply.

Two watchers at once: one sees every operation of torch, inside its own functions too (attention, LSTM); the other sees the
calls of ``linear`` and ``conv`` as the network's code makes them, by a layer or by hand. A parameter is followed through
views, casts and copies (it stays itself) and through computation on parameters alone (weight normalisation: it is computed).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

CALLS = ("linear", "conv1d", "conv2d")  # what the fast forms of curvature know


def names(text: str) -> frozenset[str]:
    """Words as a set."""
    return frozenset(text.split())


_SAME = names("clone _to_copy detach alias _unsafe_view contiguous lift_fresh")
_LOOKUPS = names("embedding embedding_renorm_ embedding_bag _embedding_bag index_select index gather take")
_BY_NUMBER = names(
    "add add_ sub sub_ rsub mul mul_ div div_ addcmul addcmul_ addcdiv lerp where maximum minimum pow cat stack copy_ "
    "native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training cudnn_batch_norm native_layer_norm "
    "native_group_norm _fused_rms_norm _prelu_kernel prelu eq ne lt gt le ge masked_fill expand repeat index_put index_put_ "
    "slice_scatter select_scatter fill_ zero_ sigmoid tanh exp log softplus abs neg sqrt clamp bernoulli"
)


@dataclass
class Reads:
    """How one parameter is read in a forward pass: by which operations, of which calls, at how many floating-point operations."""

    operations: list[str] = field(default_factory=list)
    calls: list[int] = field(default_factory=list)  # number of the call that each matrix operation was in; -1: of none
    computed: list[Tensor] = field(
        default_factory=list
    )  # what is multiplied in its place, where it is computed from it
    flops: int = 0
    direct: bool = False  # multiplied itself
    by_number: bool = False  # added to or multiplied with activations, entry by entry

    @property
    def lookup(self) -> bool:
        return bool(self.operations) and all(name in _LOOKUPS for name in self.operations)

    @property
    def matrix(self) -> bool:
        return any(name not in _LOOKUPS for name in self.operations)


@dataclass
class Call:
    """One call of ``linear`` or a convolution by the network's code. ``weight``, ``bias``: ids of the parameters it was given."""

    function: str
    weight: int
    bias: int | None
    input: Tensor
    shape: torch.Size


class Calls(TorchFunctionMode):
    """Sees the calls of linear layers and convolutions. ``number``: of the one that is running, -1 between them."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[Call] = []
        self.number = -1

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name not in CALLS:
            return func(*args, **kwargs)
        x, weight, bias = arguments(args, kwargs)
        self.number = len(self.made)
        try:
            result = func(*args, **kwargs)
        finally:
            self.number = -1
        self.made.append(Call(name, id(weight), None if bias is None else id(bias), x.detach(), result.shape))
        return result


def arguments(args: tuple, kwargs: dict) -> tuple[Tensor, Tensor, Tensor | None]:
    """Input, weight and bias of a linear layer's or convolution's call, by place or by name."""
    x = args[0] if args else kwargs["input"]
    weight = args[1] if len(args) > 1 else kwargs["weight"]
    return x, weight, args[2] if len(args) > 2 else kwargs.get("bias")


class Operations(TorchDispatchMode):
    """Follows every parameter through the operations of a forward pass. ``uncounted``: operations on a weight without a known cost."""

    def __init__(self, model: nn.Module, samples: tuple[Tensor, ...], calls: Calls):
        super().__init__()
        self.params = {id(p): p for p in model.parameters()}
        self.reads = {key: Reads() for key in self.params}
        self.calls, self.flops = calls, 0
        self.uncounted: set[str] = set()
        self.order: dict[int, None] = {}  # parameters, as they are first read beside data
        self._is: dict[int, int] = {key: key for key in self.params}  # a tensor that is the parameter's numbers
        self._from: dict[int, frozenset[int]] = {}  # a tensor computed from parameters alone
        self._data = {id(t) for t in samples}
        self._kept: list[Any] = list(samples)  # so that no id is used twice

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = [t for t in tree_leaves((args, kwargs or {})) if isinstance(t, Tensor)]
        made = [t for t in tree_leaves(result) if isinstance(t, Tensor)]
        self._kept.append(made)
        name = func._schema.name.partition("::")[2]
        # a factory that is told the samples' size makes no data; nothing else comes from nowhere
        data = any(id(t) in self._data for t in given)
        direct = [t for t in given if id(t) in self._is]
        computed = [t for t in given if id(t) in self._from]
        if data:
            self._data |= {id(t) for t in made}
        flops = self._cost(func, name, args, kwargs or {}, result, direct if data else [])
        # a weight times a constant or a learnt token is an activation, as what comes out of a layer
        known = {id(t) for t in (*direct, *computed)}
        constant = func._overloadpacket in flop_registry and any(id(t) not in known for t in given)
        grown = name in ("expand", "repeat") and bool(made) and bool(given) and made[0].numel() > given[0].numel()
        if not data and not (constant or grown or (self.calls.number >= 0 and func._overloadpacket in flop_registry)):
            self._follow(func, name, direct, computed, made)
        else:
            self._data |= {id(t) for t in made}
            for tensor in direct:
                self._read(self._is[id(tensor)], name, flops)
                self.reads[self._is[id(tensor)]].direct |= name not in _BY_NUMBER | _LOOKUPS
            for tensor in computed:
                for key in self._from[id(tensor)]:
                    self._read(key, name, flops if tensor.dim() > 1 else 0)
                    self.reads[key].computed.append(tensor)
        return result

    def _cost(self, func: Any, name: str, args: tuple, kwargs: dict, result: Any, weights: list[Tensor]) -> int:
        if (known := flop_registry.get(func._overloadpacket)) is not None:
            flops = int(known(*args, **kwargs, out_val=result))
            self.flops += flops
            return flops
        if any(t.dim() > 1 for t in weights) and name not in _BY_NUMBER | _LOOKUPS | _SAME and not func.is_view:
            self.uncounted.add(name)
        return 0

    def _follow(self, func: Any, name: str, direct: list, computed: list, made: list[Tensor]) -> None:
        sources = frozenset(self._is[id(t)] for t in direct).union(*(self._from[id(t)] for t in computed))
        if not sources:
            return
        for tensor in made:
            if (func.is_view or name in _SAME) and len(direct) == 1 and not computed:
                self._is[id(tensor)] = self._is[id(direct[0])]
            elif id(tensor) not in self._is:
                self._from[id(tensor)] = sources

    def _read(self, key: int, name: str, flops: int) -> None:
        reads = self.reads[key]
        if name not in _LOOKUPS and not reads.matrix:
            self.order.pop(key, None)  # a table that is a matrix too has its place there
        self.order.setdefault(key)
        if name in _BY_NUMBER:
            reads.by_number = True
        elif self.params[key].dim() > 1 and name not in ("expand", "repeat"):
            reads.operations.append(name)
            reads.calls.append(self.calls.number)
            reads.flops += flops


def watched(model: nn.Module, run: Callable[[], Tensor], samples: tuple[Tensor, ...]) -> tuple[Tensor, Operations]:
    """The network's outputs of one forward pass, and what was seen in it."""
    calls = Calls()
    with _taken_apart(), calls, Operations(model, samples, calls) as seen:
        output = run()
    return output, seen


@contextmanager
def _taken_apart() -> Iterator[None]:
    """An LSTM and attention are made of matrix products, and are not one operation each."""
    enabled = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch._C._set_mkldnn_enabled(enabled)


def owners(model: nn.Module) -> Iterator[tuple[str, nn.Module, str, nn.Parameter]]:
    """Every parameter under every name: name, the module it is of, the module's name, the parameter."""
    for prefix, module in model.named_modules(remove_duplicate=False):
        for kind, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            yield f"{prefix}.{kind}" if prefix else kind, module, prefix, parameter

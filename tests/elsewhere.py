"""Devices that are not there, made of the CPU: they mix with nothing, and Apple's has neither float64 nor eigenvalues."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

MIXES = {"copy_", "_local_scalar_dense", "is_same_size", "set_"}  # operations that take tensors of two devices
NUMBERED = {"index", "index_put_", "index_put", "_index_put_impl_"}  # a tensor elsewhere, by numbers on the CPU
WANTING = {
    "_linalg_eigh",
    "linalg_eigh",
    "geqrf",
    "linalg_householder_product",
    "ormqr",
    "cholesky_inverse",
}  # at Apple's


class Away(Tensor):
    """A tensor of a device of this ``kind``; ``held`` holds its numbers."""

    held: Tensor
    kind: str

    @staticmethod
    def __new__(cls, held: Tensor, kind: str) -> Away:
        found = torch.Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device="meta",
        )
        found.held, found.kind = held, kind
        return found

    @property
    def device(self) -> torch.device:
        return torch.device(self.kind, 0)

    def __repr__(self, **_: Any) -> str:
        return f"Away({self.held}, {self.kind})"

    def tolist(self) -> Any:
        return self.held.tolist()

    def numpy(self, **_: Any) -> Any:
        raise TypeError(f"can't convert {self.kind}:0 device type tensor to numpy. Use Tensor.cpu() first.")

    __array__ = numpy

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return carried(func, args, kwargs or {})


class Elsewhere(TorchDispatchMode):
    """Also tensors that are made on a device of this kind, or sent to where one is (torch takes that for "meta")."""

    def __init__(self, kind: str):
        super().__init__()
        self.kind = kind

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return carried(func, args, kwargs or {}, self.kind)


def carried(func: Any, args: tuple, kwargs: dict, meta: str = "") -> Any:
    """The operation on the numbers held; raises where a device would."""
    name = func._schema.name.removeprefix("aten::")
    given = [one for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)]
    away = [one for one in given if isinstance(one, Away)]
    here = [one for one in given if not isinstance(one, Away) and one.dim()]
    if away and here and name not in MIXES and not (name in NUMBERED and isinstance(args[0], Away)):
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but found two, cpu and {away[0].kind}: {name}"
        )
    to = torch.device(kwargs["device"]) if kwargs.get("device") is not None else None
    if to is not None:
        kind = {"cpu": None, "meta": meta or (away[0].kind if away else None)}.get(to.type, to.type)
    elif name in {*MIXES, *NUMBERED}:
        kind = args[0].kind if isinstance(args[0], Away) else None
    else:
        kind = away[0].kind if away else None
    if kind == "mps" and name in WANTING:
        raise NotImplementedError(f"The operator 'aten::{name}' is not currently implemented for the MPS device.")
    plain = {**kwargs, **({} if to is None or kind is None else {"device": torch.device("cpu")})}
    found = func(*_bare(args), **_bare(plain))
    known = {id(one.held): one for one in away}

    def wrapped(one: Any) -> Any:
        if not isinstance(one, Tensor) or isinstance(one, Away) or kind is None:
            return one
        if id(one) in known:
            return known[id(one)]
        if kind == "mps" and one.dtype is torch.float64:
            raise TypeError(f"The MPS framework doesn't support float64: {name}")
        return Away(one, kind)

    return tree_map(wrapped, found)


def _bare(tree: Any) -> Any:
    return tree_map(lambda one: one.held if isinstance(one, Away) else one, tree)


def sent(model: nn.Module, kind: str) -> nn.Module:
    """A copy of the network on such a device."""
    model = copy.deepcopy(model)
    for module in model.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is not None:
                module._parameters[name] = nn.Parameter(Away(parameter.detach().clone(), kind))
        for name, buffer in list(module._buffers.items()):
            if buffer is not None:
                module._buffers[name] = Away(buffer.clone(), kind)
    return model


def back(value: Any) -> Any:
    """The same with every tensor on the CPU."""
    return tree_map(lambda one: one.held if isinstance(one, Away) else one, value)


@contextmanager
def elsewhere(kind: str) -> Iterator[None]:
    """Where such a device works."""
    overwrites = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)  # a parameter there can't take numbers from here
    synchronize, torch.mps.synchronize = torch.mps.synchronize, lambda: None
    try:
        with Elsewhere(kind):
            yield
    finally:
        torch.mps.synchronize = synchronize
        torch.__future__.set_overwrite_module_params_on_conversion(overwrites)

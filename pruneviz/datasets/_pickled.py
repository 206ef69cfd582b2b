"""The pickles in which CIFAR is published, read without running anything that they name."""

from __future__ import annotations

import io
import pickle
from math import prod
from typing import Any

import numpy as np

from pruneviz.basics.errors import DataUnavailable

_MEND = "Put the published file in its place."


def parse(content: bytes, name: str = "file") -> Any:
    """Plain containers, numbers, strings (of Python 2: bytes) and arrays of bytes from a pickle.

    Raises DataUnavailable where it holds anything else: nothing is imported and nothing called, numpy's functions included.
    """
    try:
        return _settled(_Reader(io.BytesIO(content), encoding="bytes").load())
    except DataUnavailable as error:
        raise DataUnavailable(f"{name} {error}. {_MEND}") from None
    except Exception as error:  # what a damaged pickle raises may be almost anything
        raise DataUnavailable(f"{name} is cut short or damaged ({type(error).__name__}: {error}). {_MEND}") from None


class _Type:
    """A dtype that is only told: ``dtype("u1", 0, 1)``."""

    def __init__(self, code: Any, *_: Any):
        self.code = code.decode("latin1") if isinstance(code, bytes) else code

    def __setstate__(self, state: Any) -> None:
        pass  # byte order and alignment: single bytes have none


class _Array:
    """An array that is only told: its state is version, shape, dtype, whether columns come first, and the bytes."""

    def __init__(self, *_: Any):
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    @property
    def value(self) -> np.ndarray:
        _, shape, kind, columns_first, raw = self.state
        if not (isinstance(kind, _Type) and kind.code == "u1"):
            raise DataUnavailable(f"holds an array of {getattr(kind, 'code', kind)!r}; expected single bytes, 'u1'")
        if len(raw) != prod(shape):
            raise DataUnavailable(f"is cut short: an array of shape {shape} with {len(raw):,} bytes")
        return np.frombuffer(raw, np.uint8).reshape(shape, order="F" if columns_first else "C")


class _Reader(pickle.Unpickler):
    """An unpickler that knows the three names of an array, and gives stand-ins for them."""

    STAND_INS = {
        ("numpy", "dtype"): _Type,
        ("numpy", "ndarray"): _Array,
        ("numpy.core.multiarray", "_reconstruct"): _Array,
        ("numpy._core.multiarray", "_reconstruct"): _Array,
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.STAND_INS:
            raise DataUnavailable(f"asks for {module}.{name}; only plain containers and arrays are read")
        return self.STAND_INS[module, name]

    def persistent_load(self, pid: Any) -> Any:
        raise DataUnavailable(f"asks for an object outside itself, {pid!r}; only plain containers and arrays are read")


def _settled(value: Any) -> Any:
    """The same containers with every stand-in replaced by its array."""
    if isinstance(value, _Array):
        return value.value
    if isinstance(value, dict):
        return {key: _settled(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_settled(item) for item in value)
    return value

"""Tensors of a safetensors file as numpy sees them, bfloat16 and float8 too: a header that is checked before anything is read.

The format (huggingface/safetensors, "Format"): eight bytes that say how long the header is, the header in JSON, the numbers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from pruneviz.basics.errors import DataUnavailable

LONGEST_HEADER = 16 * 2**20  # bytes; a thousand tensors take a hundred thousand
MOST_TENSORS = 20_000
_MOST_AXES = 32
_LONGEST_NAME = 500
_PICKLES = (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


def _bfloat16(raw: np.ndarray) -> np.ndarray:
    return (raw.astype(np.uint32) << 16).view(np.float32)


def _e5m2(raw: np.ndarray) -> np.ndarray:
    return (raw.astype(np.uint16) << 8).view(np.float16)


def _e4m3(raw: np.ndarray) -> np.ndarray:
    return _E4M3[raw]


def _e4m3_table() -> np.ndarray:
    """All 256 numbers of float8 with four bits of exponent (bias 7) and three of fraction; no infinity, one NaN a sign."""
    codes = np.arange(256)
    exponent, fraction = (codes >> 3) & 15, (codes & 7) / 8
    size = np.where(exponent == 0, fraction * 2.0**-6, (1 + fraction) * 2.0 ** (exponent - 7.0))
    size[(codes & 127) == 127] = np.nan
    return np.where(codes >> 7, -size, size)


_E4M3 = _e4m3_table()
KINDS: dict[str, str] = {  # as the file calls it -> how its bytes are stored, in numpy's words
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "F8_E4M3": "u1", "F8_E5M2": "u1", "I64": "<i8", "I32": "<i4",
    "I16": "<i2", "I8": "i1", "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1", "BOOL": "u1",
}  # fmt: skip
_DECODED: dict[str, Callable[[np.ndarray], np.ndarray]] = {"BF16": _bfloat16, "F8_E4M3": _e4m3, "F8_E5M2": _e5m2}


@dataclass(frozen=True)
class Values:
    """A tensor as a matrix ``[rows, columns]``: the first axis against all others; a vector is one column.

    ``raw`` are its numbers as they are stored, often still on disk: what is asked for is read, and nothing else. ``times``
    is a mask of the same shape that multiplies it.
    """

    kind: str
    shape: tuple[int, ...]
    raw: np.ndarray = field(repr=False, compare=False)
    times: Values | None = None

    @property
    def size(self) -> int:
        """How many numbers."""
        return prod(self.shape)

    @property
    def floating(self) -> bool:
        """Whether these are floating-point numbers."""
        return self.kind[0] in "FB" and self.kind != "BOOL"

    @property
    def rows(self) -> int:
        """The length of the first axis."""
        return self.shape[0] if self.shape else 1

    @property
    def columns(self) -> int:
        """How many numbers a row has."""
        return prod(self.shape[1:])

    def part(self, rows: Any = slice(None), columns: Any = slice(None)) -> np.ndarray:
        """Numbers of these rows and columns (slices or index arrays) as float64 [rows, columns]."""
        raw = self.raw.reshape(self.rows, self.columns)[rows][:, columns]
        found = np.asarray(_DECODED.get(self.kind, np.asarray)(np.ascontiguousarray(raw)), dtype=np.float64)
        return found if self.times is None else found * self.times.part(rows, columns)


@dataclass(frozen=True)
class Entry:
    """What a header says of a tensor; ``begin`` and ``end`` in bytes from the end of the header."""

    kind: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True)
class File:
    """A safetensors file whose header fits its bytes. ``name`` is what sentences call it."""

    name: str
    buffer: np.ndarray = field(repr=False)

    def __post_init__(self) -> None:
        _ = self.entries

    @classmethod
    def open(cls, path: Path | str) -> File:
        """A file on disk, mapped into memory. Raises DataUnavailable in one sentence where it is none."""
        path = Path(path)
        try:
            if path.is_dir():
                raise DataUnavailable(f"{path} is a folder. Name the file of weights in it.")
            if path.stat().st_size == 0:
                raise DataUnavailable(f"{path.name} is empty. {_SAVE}")
            return cls(path.name, np.memmap(path, np.uint8, "r"))
        except OSError as error:
            raise DataUnavailable(
                f"{path} cannot be read ({error.strerror or error}). Name a file of weights that is there."
            ) from None

    @classmethod
    def of(cls, name: str, content: bytes | memoryview) -> File:
        """A file that is in memory. Raises DataUnavailable in one sentence where it is none."""
        return cls(name, np.frombuffer(content, np.uint8))

    @cached_property
    def entries(self) -> dict[str, Entry]:
        """Tensor name -> what the header says of it, checked: kind, shape and place fit, nothing overlaps, nothing is missing."""
        found = {name: self._entry(name, said) for name, said in self._said.items() if name != "__metadata__"}
        if len(found) > MOST_TENSORS:
            raise DataUnavailable(f"{self.name} names {len(found):,} tensors; at most {MOST_TENSORS:,} are read.")
        if not found:
            raise DataUnavailable(f"{self.name} holds no tensors. Save a network's state_dict() in it.")
        at, last = 0, ""
        for name, entry in sorted(found.items(), key=lambda item: (item[1].begin, item[1].end)):
            if entry.begin < at:
                raise DataUnavailable(f"{self.name} is damaged: {name!r} overlaps {last!r}. {_AGAIN}")
            if entry.begin > at:
                raise DataUnavailable(f"{self.name} is damaged: bytes before {name!r} belong to no tensor. {_AGAIN}")
            at, last = entry.end, name
        there = self.buffer.size - self._begin
        if at > there:
            raise DataUnavailable(
                f"{self.name} is cut short: its tensors take {at:,} bytes, and {there:,} are there. {_AGAIN}"
            )
        if at < there:
            raise DataUnavailable(
                f"{self.name} is damaged: {there - at:,} bytes at its end belong to no tensor. {_AGAIN}"
            )
        return found

    def values(self, name: str) -> Values:
        """One tensor; read when its parts are asked for."""
        entry = self.entries[name]
        raw = self.buffer[self._begin + entry.begin : self._begin + entry.end].view(KINDS[entry.kind])
        return Values(entry.kind, entry.shape, raw)

    @cached_property
    def _begin(self) -> int:
        """Where the numbers begin."""
        start = self.buffer[:8].tobytes()
        length = int.from_bytes(start, "little")
        if start[:2] in _PICKLES and start[2:8] != bytes(6):
            raise DataUnavailable(
                f"{self.name} is no safetensors file but a pickle, which can hold code, or a zip. Load it where it is trusted, and "
                "save its state_dict() by safetensors.torch.save_file."
            )
        if len(start) < 8 or length < 2:
            raise DataUnavailable(f"{self.name} is no safetensors file. {_SAVE}")
        if length > LONGEST_HEADER or length > self.buffer.size - 8:
            raise DataUnavailable(
                f"{self.name} is no safetensors file: its header would take {length:,} bytes, and {self.buffer.size - 8:,} are there, "
                f"at most {LONGEST_HEADER:,} of which are read. {_SAVE}"
            )
        return 8 + length

    @cached_property
    def _said(self) -> dict[str, Any]:
        text = self.buffer[8 : self._begin].tobytes()
        try:
            found = json.loads(text, object_pairs_hook=_once) if text[:1] == b"{" else None
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise DataUnavailable(f"{self.name} is no safetensors file: its header cannot be read. {_SAVE}")
        return found

    def _entry(self, name: str, said: Any) -> Entry:
        """One tensor as the header tells of it. Raises DataUnavailable."""
        if len(name) > _LONGEST_NAME:
            raise DataUnavailable(
                f"{self.name} names a tensor in {len(name):,} letters; at most {_LONGEST_NAME} are read."
            )
        try:
            kind, shape, (begin, end) = said["dtype"], said["shape"], said["data_offsets"]
            right = len(shape) <= _MOST_AXES and all(type(n) is int and n >= 0 for n in (*shape, begin, end))
            right = right and isinstance(kind, str)
        except (KeyError, TypeError, ValueError):
            kind, shape, begin, end, right = "", (), 0, 0, False
        if right and kind not in KINDS:
            raise DataUnavailable(
                f"{self.name} holds {name!r} as {kind[:20]!r}; what is read is {', '.join(KINDS)}. Save it in one of these."
            )
        if not right or end - begin != prod(shape) * np.dtype(KINDS[kind]).itemsize:
            raise DataUnavailable(f"{self.name} is damaged: what it says of {name!r} does not fit its bytes. {_AGAIN}")
        return Entry(kind, tuple(shape), begin, end)


_SAVE = "Save the weights by safetensors.torch.save_file(net.state_dict(), FILE)."
_AGAIN = "Save or copy it again."


def _once(pairs: list[tuple[str, Any]]) -> Mapping[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice")
    return found

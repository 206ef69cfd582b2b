"""Two tensors beside each other, read in blocks, so that memory does not grow with them: counts, sizes, patterns, histograms."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import isfinite, prod, sqrt
from typing import Any

import numpy as np

from pruneviz.basics.tensors import Values
from pruneviz.difference.kept import Kept

BLOCK = 2**20  # numbers that are looked at together
BINS = 60
_SMALLEST = 1e-150  # bins of smaller, and of one over it larger, have no width in float64
GROUPS = (2, 4, 8, 16, 32)  # lengths M of the groups in which N:M is looked for
_FEWEST = 16  # groups that a tensor needs, or anything would be a pattern
_FULL = 0.9  # the share of groups that hold all N


@dataclass
class Side:
    """What is counted of one tensor."""

    size: int
    zero: int = 0
    odd: int = 0  # NaN and infinite
    patterns: tuple[str, ...] = ()
    counts: list[int] = field(default_factory=list)


@dataclass
class Numbers:
    """Two tensors: ``gone``, ``back`` (zero, and no longer) and ``moved`` are None where it is not known which number of one
    is which of the other. ``moved_by``: the norm of the differences of those that are zero in neither, over the norm they
    had; ``moved_most``: the largest difference. The histograms' bins are equal parts of [-``edge``, ``edge``], without zeros."""

    before: Side
    after: Side
    gone: int | None = None
    back: int | None = None
    moved: int | None = None
    moved_by: float | None = None
    moved_most: float | None = None
    edge: float = 0.0


def compare(a: Values, b: Values, kept: Kept | None) -> Numbers:
    """Everything that is counted of two tensors, of the same shape or with ``kept`` channels; else each for itself."""
    found = Numbers(Side(a.size), Side(b.size))
    with np.errstate(over="ignore", invalid="ignore"):
        edge = max(_largest(a), _largest(b))
        found.edge = edge if _SMALLEST < edge < 1 / _SMALLEST else 0.0
        _count(a, found.before, found.edge)
        _count(b, found.after, found.edge)
        if a.shape == b.shape or kept is not None:
            _beside(a, b, kept, found)
    return found


def alone(tensor: Values) -> Side:
    """What is counted of a tensor that only one side has; no histogram."""
    side = Side(tensor.size)
    with np.errstate(over="ignore", invalid="ignore"):
        _count(tensor, side, 0.0)
    side.counts = []
    return side


def _blocks(tensor: Values) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of pieces of at most BLOCK numbers; whole rows where one is not longer than that."""
    if not tensor.size:
        return
    high = max(1, BLOCK // tensor.columns)
    wide = min(BLOCK, tensor.columns)
    for row in range(0, tensor.rows, high):
        for column in range(0, tensor.columns, wide):
            yield slice(row, min(row + high, tensor.rows)), slice(column, min(column + wide, tensor.columns))


def _largest(tensor: Values) -> float:
    most = 0.0
    for rows, columns in _blocks(tensor):
        size = np.abs(tensor.part(rows, columns))
        most = max(most, float(size.max(where=np.isfinite(size), initial=0.0)))
    return most


def _count(tensor: Values, side: Side, edge: float) -> None:
    """Zeros, what is not finite, histogram and patterns of one tensor."""
    counts = np.zeros(BINS, dtype=np.int64)
    patterns = _Patterns(tensor.shape)
    for rows, columns in _blocks(tensor):
        part = tensor.part(rows, columns)
        alive, finite = part != 0, np.isfinite(part)
        side.zero += part.size - int(alive.sum())
        side.odd += part.size - int(finite.sum())
        shown = part[alive & finite]
        if edge:
            counts += np.histogram(shown, BINS, (-edge, edge))[0]
        patterns.see(alive, rows, columns)
    side.counts = counts.tolist()
    side.patterns = patterns.found() if side.zero else ()


def _beside(a: Values, b: Values, kept: Kept | None, found: Numbers) -> None:
    """Number for number."""
    choose = _chooser(a, kept)
    zeros_there = gone = back = moved = 0
    size2 = change2 = most = 0.0
    for rows, columns in _blocks(b):
        new, old = b.part(rows, columns), a.part(*choose(rows, columns))
        was, is_ = old != 0, new != 0
        zeros_there += old.size - int(was.sum())
        gone += int((was & ~is_).sum())
        back += int((~was & is_).sum())
        both = was & is_
        moved += int((both & (old != new) & ~(np.isnan(old) & np.isnan(new))).sum())
        both &= np.isfinite(old) & np.isfinite(new)
        change = new[both] - old[both]
        size2 += float(np.square(old[both]).sum())
        change2 += float(np.square(change).sum())
        most = max(most, float(np.abs(change).max(initial=0.0)))
    absent = (a.size - found.before.zero) - (b.size - zeros_there)  # not zero, in rows and columns that are no more
    found.gone, found.back, found.moved = gone + absent, back, moved
    moved_by = sqrt(change2 / size2) if size2 and isfinite(change2 / size2) else 0.0
    found.moved_by, found.moved_most = (None, None) if not isfinite(size2 + change2 + most) else (moved_by, most)


def _chooser(a: Values, kept: Kept | None) -> Any:
    """Rows and columns of the smaller tensor -> where they were in the dense one."""
    if kept is None:
        return lambda rows, columns: (rows, columns)
    kernel = prod(a.shape[2:])
    at = None if kept.columns is None else (kept.columns[:, None] * kernel + np.arange(kernel)).ravel()
    return lambda rows, columns: (
        rows if kept.rows is None else kept.rows[rows], columns if at is None else at[columns],
    )  # fmt: skip


class _Patterns:
    """Whole rows, columns and kernels that are zero, and at most N of M neighbours along the inputs that are not."""

    def __init__(self, shape: tuple[int, ...]):
        self.shape = shape
        self.matrix = len(shape) > 1
        self.rows = np.zeros(shape[0] if shape else 1, dtype=bool)
        self.columns = np.zeros(prod(shape[1:]), dtype=bool)
        self.kernel = prod(shape[2:])
        self.kernels = self.alive = 0  # in which something is not zero, and how much is
        whole = self.matrix and prod(shape[1:]) <= BLOCK
        self.whole = whole
        self.groups = [m for m in GROUPS if whole and shape[1] % m == 0]
        self.most = dict.fromkeys(self.groups, 0)
        self.holding = {m: np.zeros(m + 1, dtype=np.int64) for m in self.groups}

    def see(self, alive: np.ndarray, rows: slice, columns: slice) -> None:
        if not self.matrix:
            return
        self.rows[rows] |= alive.any(1)
        self.columns[columns] |= alive.any(0)
        if not self.whole:
            return
        cube = alive.reshape(len(alive), self.shape[1], self.kernel)
        if self.kernel > 1:
            self.kernels += int(cube.any(2).sum())
            self.alive += int(cube.sum())
        living = cube[alive.any(1)]
        for m in self.groups:
            held = living.reshape(len(living), -1, m, self.kernel).sum(2)
            self.holding[m] += np.bincount(held.ravel(), minlength=m + 1)

    def found(self) -> tuple[str, ...]:
        if not self.matrix:
            return ()
        rows, inputs = self.rows, self.columns.reshape(self.shape[1], self.kernel).any(1)
        convolution = len(self.shape) > 2
        said = [
            f"{int((~alive).sum()):,} of {alive.size:,} {what} zero"
            for alive, what in (
                (rows, "filters" if convolution else "rows"),
                (inputs, "input channels" if convolution else "columns"),
            )
            if not alive.all()
        ]
        total = int(rows.sum()) * int(inputs.sum())
        if self.whole and self.kernel > 1 and total:
            dead, chance = total - self.kernels, total * (1 - self.alive / (total * self.kernel)) ** self.kernel
            if dead > 1.5 * chance + 3 * sqrt(chance):  # more than single weights would leave empty
                said.append(f"{dead:,} of {total:,} other kernels zero")
        return (*said, *self._sparse())

    def _sparse(self) -> list[str]:
        """The N:M that leaves least; rows that are wholly zero do not count."""
        best: list[tuple[float, int, int]] = []
        for m in self.groups:
            held = self.holding[m]
            n = int(np.flatnonzero(held)[-1]) if held.any() else 0
            if 0 < n < m and held.sum() >= _FEWEST and held[n] >= _FULL * held.sum():
                best.append((n / m, m, n))
        return [f"{n}:{m}" for _, m, n in sorted(best)[:1]]

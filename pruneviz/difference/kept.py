"""Which channels of a dense network a smaller one kept, found from the numbers alone: nobody says how layers are joined.

A kept row equals a row of the dense tensor, or, where the network was trained on, is by far the nearest to one, and kept rows
stand in their old order. Where the inputs of a layer changed as well, they are found by single numbers that occur once, or are
those that another layer of the same sizes was found to keep. What is not certain is not found.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

from pruneviz.basics.tensors import Values

LARGEST = 32 * 2**20  # numbers of a tensor that is searched
_VOTING = 8 * 2**20  # numbers of one in which single numbers are looked up
_VOTES = 2**18  # of which so many are looked up
_CLEAR = 0.5  # the nearest is at most so far as the second nearest
_WIDE = 8  # numbers that a row needs for its nearest to say anything
_TRIES = 64  # sets of channels of other layers that are tried
_TOGETHER = 64  # rows whose distances are taken together


@dataclass(frozen=True)
class Kept:
    """The rows and columns (input channels) of a dense tensor that a smaller one has; ``exact``: with the very same numbers.

    ``None`` for all of them.
    """

    rows: np.ndarray | None
    columns: np.ndarray | None
    exact: bool


def find(pairs: Mapping[str, tuple[Values, Values]]) -> dict[str, Kept]:
    """Name -> what is kept, for those pairs (dense, smaller) of different shapes where it is certain."""
    found: dict[str, Kept] = {}
    known = _Known()
    jobs = [*_weights(pairs), *_vectors(pairs)]
    again = True
    while again and jobs:
        again = False
        for job in list(jobs):
            kept = _solved(job, known, found)
            if kept is None:
                continue
            jobs.remove(job)
            again = True
            found |= dict.fromkeys(job.names, kept)
            first = pairs[job.names[0]]
            known.add(first[0].rows, kept.rows)
            if len(first[0].shape) > 1:
                known.add(first[0].shape[1], kept.columns)
    return found


@dataclass(frozen=True)
class _Job:
    """Tensors that share what they keep: one weight, or all vectors of a module (a normalisation's, a bias)."""

    names: tuple[str, ...]
    pairs: tuple[tuple[Values, Values], ...]

    @property
    def module(self) -> str:
        return self.names[0].rpartition(".")[0]

    def dense(self) -> np.ndarray:
        """[rows, input channels, numbers of a kernel]; vectors stand side by side as the last."""
        return _stacked([dense for dense, _ in self.pairs])

    def small(self) -> np.ndarray:
        return _stacked([small for _, small in self.pairs])


def _stacked(tensors: Sequence[Values]) -> np.ndarray:
    first = tensors[0]
    if len(first.shape) > 1:
        return first.part().reshape(first.shape[0], first.shape[1], -1)
    return np.concatenate([t.part() for t in tensors], axis=1)[:, None, :]


def _weights(pairs: Mapping[str, tuple[Values, Values]]) -> Iterator[_Job]:
    for name, (dense, small) in pairs.items():
        a, b = dense.shape, small.shape
        smaller = len(a) == len(b) > 1 and a[2:] == b[2:] and 0 < b[0] <= a[0] and 0 < b[1] <= a[1]
        if smaller and dense.size <= LARGEST and dense.size:
            yield _Job((name,), ((dense, small),))


def _vectors(pairs: Mapping[str, tuple[Values, Values]]) -> Iterator[_Job]:
    together: dict[tuple[str, int, int], list[str]] = {}
    for name, (dense, small) in pairs.items():
        if len(dense.shape) == len(small.shape) == 1 and 0 < small.rows < dense.rows:
            together.setdefault((name.rpartition(".")[0], dense.rows, small.rows), []).append(name)
    for names in together.values():
        yield _Job(tuple(names), tuple(pairs[name] for name in names))


class _Known:
    """Sets of channels that were found, by how many there were and how many are left."""

    def __init__(self) -> None:
        self._sets: dict[tuple[int, int], list[np.ndarray]] = {}

    def add(self, dense: int, kept: np.ndarray | None) -> None:
        if kept is not None:
            sets = self._sets.setdefault((dense, len(kept)), [])
            if not any(np.array_equal(kept, one) for one in sets):
                sets.append(kept)

    def of(self, dense: int, small: int, *, flat: bool = False) -> list[np.ndarray | None]:
        """Those of these sizes; of inputs that may be a ``flat`` image, each as a block of places too."""
        if dense == small:
            return [None]
        found: list[np.ndarray | None] = [*self._sets.get((dense, small), [])[-_TRIES:]]
        for (all_, left), sets in self._sets.items() if flat else ():
            places = dense // all_
            if places > 1 and all_ * places == dense and left * places == small:
                found += [(one[:, None] * places + np.arange(places)).ravel() for one in sets[-_TRIES:]]
        return found


def _solved(job: _Job, known: _Known, found: Mapping[str, Kept]) -> Kept | None:
    if len(job.pairs[0][0].shape) == 1:
        return _solved_vectors(job, known, found)
    a, b = job.dense(), job.small()
    tried: list[tuple[float, Kept]] = []
    if a.shape[0] != b.shape[0] and a.shape[1] != b.shape[1] and (kept := _by_numbers(a, b)):
        return kept
    for columns in known.of(a.shape[1], b.shape[1], flat=a.shape[2] == 1):
        part = a if columns is None else a[:, columns]
        rows = _nearest(part, b) if a.shape[0] != b.shape[0] else _same(part, b)
        tried += [(rows[1], Kept(rows[0], columns, rows[1] == 0))] if rows else []
    if a.shape[1] != b.shape[1]:
        for rows in known.of(a.shape[0], b.shape[0]):
            part = (a if rows is None else a[rows]).transpose(1, 0, 2)
            if columns := _nearest(part, b.transpose(1, 0, 2)):
                tried.append((columns[1], Kept(rows, columns[0], columns[1] == 0)))
    return _best(tried)


def _best(tried: list[tuple[float, Kept]]) -> Kept | None:
    """The one that is left over least, if those that say otherwise leave clearly more."""
    tried.sort(key=lambda one: one[0])
    if not tried:
        return None
    least, kept = tried[0]
    others = [left for left, other in tried[1:] if not _alike(kept, other)]
    return kept if not others or least < _CLEAR * others[0] else None


def _alike(one: Kept, other: Kept) -> bool:
    def same(a: np.ndarray | None, b: np.ndarray | None) -> bool:
        return (a is None) == (b is None) and (a is None or b is None or np.array_equal(a, b))

    return same(one.rows, other.rows) and same(one.columns, other.columns)


def _solved_vectors(job: _Job, known: _Known, found: Mapping[str, Kept]) -> Kept | None:
    """A weight of the same module keeps the same rows; else by the numbers, or as another layer does."""
    a, b = job.dense()[:, 0], job.small()[:, 0]
    for name, kept in found.items():
        if name.rpartition(".")[0] == job.module and kept.rows is not None and len(kept.rows) == len(b):
            return Kept(kept.rows, None, bool(np.array_equal(a[kept.rows], b)))
    if (rows := _in_order(a, b)) is not None:
        return Kept(rows, None, True)
    spread = float(np.square(b - b.mean(0)).sum())
    tried = []
    for rows in known.of(len(a), len(b)):
        left = float(np.square(a[rows] - b).sum()) / spread if spread > 0 else np.inf
        if left <= _CLEAR**2:
            tried.append((left, Kept(rows, None, left == 0)))
    return _best(tried)


def _same(a: np.ndarray, b: np.ndarray) -> tuple[None, float] | None:
    """Whether b is a, row for row, up to what training moves; the share that is left over."""
    size = float(np.square(b).sum())
    left = float(np.square(a - b).sum()) / size if size else np.inf
    return (None, left) if left <= _CLEAR**2 else None


def _nearest(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, float] | None:
    """The rows of a that the rows of b are, in order, and the share of b that is left over; None where it is not certain."""
    a, b = a.reshape(len(a), -1), b.reshape(len(b), -1)
    if (a == b[0]).all(1).any() and (rows := _in_order(a, b)) is not None:
        return rows, 0.0
    if a.shape[1] < _WIDE or len(b) >= len(a) or not np.isfinite(a).all() or not np.isfinite(b).all():
        return None
    sizes, found, left = np.square(a).sum(1), list[np.ndarray](), 0.0
    for at in range(0, len(b), _TOGETHER):
        part = b[at : at + _TOGETHER]
        distance = np.maximum(np.square(part).sum(1)[:, None] + sizes - 2 * part @ a.T, 0)
        two = np.partition(distance, 1, axis=1)[:, :2]
        if (two[:, 0] > _CLEAR**2 * two[:, 1]).any():
            return None
        found.append(distance.argmin(1))
        left += float(two[:, 0].sum())
    rows = np.concatenate(found)
    return None if (np.diff(rows) <= 0).any() else (rows, left / max(float(np.square(b).sum()), 1e-300))


def _in_order(a: np.ndarray, b: np.ndarray) -> np.ndarray | None:
    """The rows of a that equal the rows of b, in order; None where there are none, or several choices."""
    keys_a, keys_b = ([blake2b(row + 0.0).digest() for row in one] for one in (a, b))  # + 0.0: no negative zeros
    if (first := _earliest(keys_a, keys_b)) is None:
        return None
    last = _earliest(keys_a[::-1], keys_b[::-1])
    assert last is not None
    last = [len(a) - 1 - at for at in reversed(last)]
    return np.array(first) if first == last else None


def _earliest(all_: Sequence[bytes], wanted: Sequence[bytes]) -> list[int] | None:
    """Where each wanted one is, one after another, as early as can be."""
    found, at = [], 0
    for key in wanted:
        while at < len(all_) and all_[at] != key:
            at += 1
        if at == len(all_):
            return None
        found.append(at)
        at += 1
    return found


def _by_numbers(a: np.ndarray, b: np.ndarray) -> Kept | None:
    """Rows and columns together: kernels of b that occur once in a say where they come from."""
    if a.size > _VOTING:
        return None
    keys_a, keys_b = _keys(a), _keys(b)
    unique, first, counts = np.unique(keys_a, return_index=True, return_counts=True)
    unique, first = unique[counts == 1], first[counts == 1]
    if not len(unique):
        return None
    asked = np.arange(len(keys_b))
    if len(asked) > _VOTES:
        asked = np.sort(np.random.default_rng(0).choice(asked, _VOTES, replace=False))
    at = np.minimum(np.searchsorted(unique, keys_b[asked]), len(unique) - 1)
    hit = unique[at] == keys_b[asked]
    place = first[at[hit]]
    rows, columns = np.full(len(b), -1), np.full(b.shape[1], -1)
    r, c = np.divmod(asked[hit], b.shape[1])
    rows[r], columns[c] = np.divmod(place, a.shape[1])
    if (rows < 0).any() or (columns < 0).any() or (np.diff(rows) <= 0).any() or (np.diff(columns) <= 0).any():
        return None
    return Kept(rows, columns, True) if np.array_equal(a[rows][:, columns], b) else None


def _keys(a: np.ndarray) -> np.ndarray:
    """Each kernel as one thing that sorts."""
    flat = np.ascontiguousarray(a.reshape(-1, a.shape[2]) + 0.0)
    return flat[:, 0] if flat.shape[1] == 1 else flat.view(np.dtype((np.void, flat.itemsize * flat.shape[1]))).ravel()

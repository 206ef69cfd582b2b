"""What a comparison of two networks' tensors found: plain data, that becomes sentences, a table, JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import prod
from typing import TYPE_CHECKING, Any, Self

import pandas as pd

from pruneviz.basics.errors import InvalidSetting, UnknownName
from pruneviz.difference.numbers import Numbers, Side
from pruneviz.figures import base

if TYPE_CHECKING:
    from collections.abc import Iterator

FORMAT = 1
COLUMNS = [
    "name", "shape_before", "shape_after", "dtype", "size", "zero_before", "zero", "gone", "back", "moved", "moved_by", "moved_most",
    "pattern", "kept", "note",
]  # fmt: skip
_NAMES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3",
    "F8_E5M2": "float8_e5m2",
}
_WHOLE = {"I": "int", "U": "uint"}


def dtype(kind: str) -> str:
    """ "BF16" -> "bfloat16": a safetensors kind in the usual words."""
    return _NAMES.get(kind) or (f"{_WHOLE[kind[0]]}{kind[1:]}" if kind[0] in _WHOLE else kind.lower())


@dataclass(frozen=True)
class Tensor:
    """One tensor that both have. ``how``: how kept channels were found ("equal", "nearest"), "not found", or "" where shapes are
    the same; ``rows`` and ``columns``: which they are, None for all of them."""

    name: str
    names: tuple[str, str]
    kinds: tuple[str, str]
    shapes: tuple[tuple[int, ...], tuple[int, ...]]
    numbers: Numbers
    how: str = ""
    rows: tuple[int, ...] | None = None
    columns: tuple[int, ...] | None = None
    note: str = ""

    @property
    def weight(self) -> bool:
        """Whether it is what sparsity counts: a matrix or a kernel of floating-point numbers."""
        return len(self.shapes[0]) > 1 and self.kinds[0][0] in "FB" and self.kinds[0] != "BOOL"

    @property
    def same(self) -> bool:
        """Whether every number is the same in both."""
        n = self.numbers
        return self.shapes[0] == self.shapes[1] and not (n.gone or n.back or n.moved)

    @property
    def kept(self) -> str:
        """Which channels are left, in words; empty where the shapes are the same."""
        if self.shapes[0] == self.shapes[1]:
            return ""
        if self.how == "not found":
            return "not found"
        sides = [("rows", self.rows, 0), ("inputs", self.columns, 1)]
        said = [f"{len(kept):,} of {self.shapes[0][axis]:,} {what}" for what, kept, axis in sides if kept is not None]
        return f"{', '.join(said)} ({self.how})"


@dataclass(frozen=True)
class Lone:
    """One tensor that only one side has."""

    name: str
    kind: str
    shape: tuple[int, ...]
    counted: Side


@dataclass(frozen=True)
class Found:
    """Two networks' tensors, compared number for number. ``before`` and ``after`` are what the two are called; ``notes`` say
    what was read or matched otherwise than it stands."""

    before: str
    after: str
    tensors: tuple[Tensor, ...]
    only_before: tuple[Lone, ...] = ()
    only_after: tuple[Lone, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def layers(self) -> pd.DataFrame:
        """The same as :meth:`frame`."""
        return self.frame()

    def frame(self) -> pd.DataFrame:
        """One row a tensor that both have; counts of numbers, ``zero`` and ``pattern`` of the second.

        ``gone``: zero or absent in the second and not zero in the first; ``back``: the reverse; ``moved``: zero in neither, and
        another number; ``moved_by``: relative norm of what moved; ``moved_most``: its largest. Missing where channels were not found.
        """
        rows = [
            {
                "name": t.name, "shape_before": t.shapes[0], "shape_after": t.shapes[1],
                "dtype": " → ".join(dict.fromkeys(map(dtype, t.kinds))), "size": t.numbers.before.size,
                "zero_before": t.numbers.before.zero, "zero": t.numbers.after.zero, "gone": t.numbers.gone, "back": t.numbers.back,
                "moved": t.numbers.moved, "moved_by": t.numbers.moved_by, "moved_most": t.numbers.moved_most,
                "pattern": "; ".join(t.numbers.after.patterns), "kept": t.kept, "note": t.note,
            }
            for t in self.tensors
        ]  # fmt: skip
        counts = dict.fromkeys(("gone", "back", "moved"), "Int64") | dict.fromkeys(
            ("moved_by", "moved_most"), "float64"
        )
        return pd.DataFrame(rows, columns=COLUMNS).astype(counts)

    @property
    def sparsity(self) -> dict[str, dict[str, float]]:
        """For ``matrix`` weights and for ``all`` floating-point numbers: how many there are ``before`` and ``after``, the share of them
        that is zero, and the share of the first's numbers that is left (``left``), whether the others are zero or absent."""
        return {what: _share(list(self._sides(what == "matrix"))) for what in ("matrix", "all")}

    def _sides(self, matrix: bool) -> Iterator[tuple[int, Side]]:
        every = [
            (i, t.kinds[i], t.shapes[i], (t.numbers.before, t.numbers.after)[i]) for t in self.tensors for i in (0, 1)
        ]
        every += [
            (i, t.kind, t.shape, t.counted) for i, lone in enumerate((self.only_before, self.only_after)) for t in lone
        ]
        for i, kind, shape, side in every:
            if kind[0] in "FB" and kind != "BOOL" and (len(shape) > 1 or not matrix):
                yield i, side

    def said(self) -> list[str]:
        """The comparison in a few sentences."""
        shared = self.sparsity
        what = "matrix weights" if shared["matrix"]["before"] + shared["matrix"]["after"] else "numbers"
        counted = shared["matrix" if what == "matrix weights" else "all"]
        changed = [t for t in self.tensors if not t.same]
        sums = [sum(getattr(t.numbers, what) or 0 for t in self.tensors) for what in ("gone", "back", "moved")]
        lost = [t.name for t in self.tensors if t.how == "not found"]
        odd = [t.name for t in self.tensors if t.numbers.before.odd + t.numbers.after.odd]
        odd += [t.name for t in (*self.only_before, *self.only_after) if t.counted.odd]
        shares = {key: base.percent(share) for key, share in counted.items() if key not in ("before", "after")}
        found = [
            f"Of {counted['before']:,.0f} {what} of {self.before}, {shares['zero_before']} are zero; of "
            f"{counted['after']:,.0f} of {self.after}, {shares['zero_after']}. {shares['left']} of the first's are left.",
            f"{len(changed):,} of {len(self.tensors):,} tensors that both have differ: {sums[0]:,} numbers are gone, {sums[1]:,} have come "
            f"back, {sums[2]:,} have moved."
            if changed
            else f"All {len(self.tensors):,} tensors that both have are the same, number for number.",
        ]
        if lost:
            found.append(f"Which channels are left could not be found, and is not guessed: {_some(lost)}.")
        if odd:
            found.append(f"NaN or infinite numbers, which are in no histogram and no norm: {_some(odd)}.")
        for label, lone in ((self.before, self.only_before), (self.after, self.only_after)):
            if lone:
                found.append(f"Only in {label}: {_some([t.name for t in lone])}.")
        return [*found, *self.notes]

    def __str__(self) -> str:
        return "\n".join([*self.said(), "", self.frame().to_string(index=False, na_rep="–")])

    def tensor(self, name: str) -> Tensor:
        """The tensor of this name. Raises UnknownName."""
        for tensor in self.tensors:
            if tensor.name == name:
                return tensor
        raise UnknownName("tensor", name, [t.name for t in self.tensors])

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain data for JSON; :meth:`from_dict` reads it back."""
        return {"format": FORMAT, "sparsity": self.sparsity, "said": self.said(), **asdict(self)}

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Self:
        """A comparison from what :meth:`to_dict` gave. Raises InvalidSetting where another version wrote it."""
        if found.get("format") != FORMAT:
            raise InvalidSetting(
                f"This comparison has format {found.get('format')!r}; {FORMAT} is read here. Compare again."
            )
        tensors = tuple(
            Tensor(
                **{
                    **t, "names": tuple(t["names"]), "kinds": tuple(t["kinds"]), "shapes": tuple(map(tuple, t["shapes"])),
                    "rows": _tuple(t["rows"]), "columns": _tuple(t["columns"]),
                    "numbers": Numbers(**{**t["numbers"], **{side: _side(t["numbers"][side]) for side in ("before", "after")}}),
                }
            )
            for t in found["tensors"]
        )  # fmt: skip
        only = [
            tuple(Lone(**{**t, "shape": tuple(t["shape"]), "counted": _side(t["counted"])}) for t in found[key])
            for key in ("only_before", "only_after")
        ]
        return cls(found["before"], found["after"], tensors, only[0], only[1], tuple(found["notes"]))


def _side(found: Mapping[str, Any]) -> Side:
    return Side(**{**found, "patterns": tuple(found["patterns"])})


def _tuple(found: Any) -> tuple[int, ...] | None:
    return None if found is None else tuple(found)


def _share(sides: list[tuple[int, Side]]) -> dict[str, float]:
    sizes = [sum(side.size for i, side in sides if i == which) for which in (0, 1)]
    zeros = [sum(side.zero for i, side in sides if i == which) for which in (0, 1)]
    left = [size - zero for size, zero in zip(sizes, zeros, strict=True)]
    return {
        "before": sizes[0], "after": sizes[1], "zero_before": zeros[0] / max(sizes[0], 1), "zero_after": zeros[1] / max(sizes[1], 1),
        "left": left[1] / max(sizes[0], 1),
    }  # fmt: skip


def _some(names: list[str], most: int = 6) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most:,} more" if len(names) > most else "")


def spelled(shape: tuple[int, ...]) -> str:
    """ "64 × 3 × 3 × 3"; a number alone is "1"."""
    return " × ".join(f"{n:,}" for n in shape) if shape else str(prod(shape))

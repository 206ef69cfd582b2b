"""Two networks' tensors beside each other: what is zero, gone, back and moved, with no network code and no data.

It takes what anybody made: files, state dicts and modules, of this library or another. Files are read by numpy, tensor by tensor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pruneviz.basics.errors import Unsuitable
from pruneviz.basics.tensors import Values
from pruneviz.difference.found import Lone, Tensor, spelled
from pruneviz.difference.kept import Kept, find
from pruneviz.difference.numbers import alone, compare
from pruneviz.difference.result import Diff
from pruneviz.difference.sides import Side, renamed, side

__all__ = ["Diff", "diff"]


def diff(before: Any, after: Any, *, progress: Callable[[float, str], None] | None = None) -> Diff:
    """Compare two networks' tensors by name, number for number.

    ``before`` and ``after``: each a path (.safetensors, or .pt read without its code), a state dict, a module, or what
    ``pv.prune`` and ``pv.compact`` gave. Names that
    differ by one beginning (``module.``) match; a weight that ``torch.nn.utils.prune`` keeps beside its mask is read as
    their product. Where shapes differ, kept channels are found by their numbers, or it is said that they are not.
    ``progress`` is told the share that is done and what comes next.
    Raises: DataUnavailable where a file cannot be read; Unsuitable where the two have no tensor in common.
    """
    first, second = side(before, "the first"), side(after, "the second")
    names, begin_a, begin_b = renamed(first.tensors, second.tensors)
    partner = {old: new for new, old in names.items()}
    pairs = {old: (tensor, second.tensors[partner[old]]) for old, tensor in first.tensors.items() if old in partner}
    if not pairs:
        raise Unsuitable(
            f"{first.label} and {second.label} have no tensor of the same name: the one has {_few(first)}, the other {_few(second)}. "
            "Compare two states of one network."
        )
    say = progress or (lambda _share, _what: None)
    say(0.0, "looking for kept channels")
    kept = find({name: both for name, both in pairs.items() if both[0].shape != both[1].shape})
    total, done = sum(a.size + b.size for a, b in pairs.values()) or 1, 0
    tensors = []
    for name, (a, b) in pairs.items():
        short = name.removeprefix(begin_a)
        say(done / total, short)
        tensors.append(_tensor(short, (name, partner[name]), a, b, kept.get(name)))
        done += a.size + b.size
    only = [
        tuple(Lone(name, t.kind, t.shape, alone(t)) for name, t in one.tensors.items() if name not in matched)
        for one, matched in ((first, partner), (second, names))
    ]
    notes = [*first.notes, *second.notes]
    notes += [
        f"Names of {one.label} are matched without {cut!r}."
        for one, cut in ((first, begin_a), (second, begin_b))
        if cut
    ]
    say(1.0, "")
    return Diff(first.label, second.label, tuple(tensors), only[0], only[1], tuple(notes))


def _tensor(name: str, names: tuple[str, str], a: Values, b: Values, kept: Kept | None) -> Tensor:
    numbers = compare(a, b, kept)
    how = "" if a.shape == b.shape else "not found" if kept is None else "equal" if kept.exact else "nearest"
    notes = []
    if how == "not found":
        notes.append(f"{spelled(a.shape)} became {spelled(b.shape)}, and which channels are left could not be found")
    if odd := numbers.before.odd + numbers.after.odd:
        notes.append(f"{odd:,} NaN or infinite ({numbers.before.odd:,} before, {numbers.after.odd:,} after)")
    if a.kind != b.kind:
        notes.append("kept in another precision: what moved may be rounding")
    rows, columns = (
        (None if one is None else tuple(map(int, one))) for one in ((kept.rows, kept.columns) if kept else (None, None))
    )
    return Tensor(name, names, (a.kind, b.kind), (a.shape, b.shape), numbers, how, rows, columns, "; ".join(notes))


def _few(one: Side, most: int = 3) -> str:
    names = list(one.tensors)
    return ", ".join(map(repr, names[:most])) + (f" and {len(names) - most:,} more" if len(names) > most else "")

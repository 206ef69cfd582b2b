"""Data of one's own, once read: what every reader gives, and the checks and splits that all share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pruneviz.basics.errors import DataUnavailable
from pruneviz.basics.seeds import number_for

Part = tuple[np.ndarray, np.ndarray]
SHARES = {"val": 0.1, "test": 0.2}  # of all samples, where a file has no such part


@dataclass(frozen=True)
class Limits:
    """How much is read: bytes of one file, unpacked; bytes in all; number of files. ``WEB`` is for what strangers send."""

    bytes_a_file: int = 8 * 2**30
    bytes_in_all: int = 16 * 2**30
    files: int = 1_000_000


WEB = Limits(bytes_a_file=256 * 2**20, bytes_in_all=512 * 2**20, files=20_000)


@dataclass(frozen=True)
class Found:
    """Training, validation and test samples, each (x [n, *shape] float32 or int64 tokens, y [n] int64), and what was done to them.

    ``said``: which part was split off, and how values were scaled, a sentence each.
    """

    train: Part
    val: Part
    test: Part
    classes: tuple[str, ...]
    shape: tuple[int, ...]
    said: tuple[str, ...] = ()


def completed(where: str, parts: dict[str, Part], classes: tuple[str, ...], said: list[str], *, seed: int = 0) -> Found:
    """Check samples and labels, and split off what is missing: seeded, with each class's share kept. Raises DataUnavailable."""
    numbers, counts = np.unique(parts["train"][1], return_counts=True)
    if len(numbers) < 2:
        raise DataUnavailable(
            f"{where}: all {len(parts['train'][1])} training labels are the same class. Give samples of at least two classes."
        )
    missing = [name for name in SHARES if name not in parts]
    if missing and (least := int(counts.min())) < len(missing) + 1:
        raise DataUnavailable(
            f"{where}: class {classes[int(numbers[counts.argmin()])]!r} has {least} {'sample' if least == 1 else 'samples'}, too few "
            f"to split off {' and '.join(missing)}. Give more, or give x_val, y_val, x_test and y_test."
        )
    for name, (x, y) in parts.items():
        if not len(x):
            raise DataUnavailable(f"{where}: there are no {name} samples. Give at least one, or leave that part out.")
        if x.shape[1:] != parts["train"][0].shape[1:]:
            raise DataUnavailable(
                f"{where}: a {name} sample has shape {list(x.shape[1:])} and a training sample {list(parts['train'][0].shape[1:])}. "
                "Give all samples in one shape."
            )
        if unknown := sorted(set(np.unique(y)) - set(range(len(classes)))):
            raise DataUnavailable(f"{where}: {name} has the label {unknown[0]}, and there are {len(classes)} classes.")
    whole = dict(parts)
    taken = _split(whole["train"][1], missing, seed) if missing else {}
    x, y = whole["train"]
    for name in missing:
        whole[name] = (x[taken[name]], y[taken[name]])
        share = 100 * SHARES[name]
        said.append(f"{len(taken[name])} samples ({share:.0f}% of each class, seeded) are split off for {_LONG[name]}.")
    if missing:
        left = np.setdiff1d(np.arange(len(x)), np.concatenate([taken[n] for n in missing]))
        whole["train"] = (x[left], y[left])
    return Found(whole["train"], whole["val"], whole["test"], classes, tuple(x.shape[1:]), tuple(said))


_LONG = {"val": "validation", "test": "the test"}


def _split(y: np.ndarray, names: list[str], seed: int) -> dict[str, np.ndarray]:
    """Positions of each part: of every class the part's share, at least one."""
    random = np.random.RandomState(number_for(seed, "split") % 2**32)
    found: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for label in np.unique(y):
        places = random.permutation(np.flatnonzero(y == label))
        for name in names:
            count = max(1, round(SHARES[name] * int((y == label).sum())))
            found[name].append(places[:count])
            places = places[count:]
    return {name: np.sort(np.concatenate(several)) for name, several in found.items()}


def numbered(where: str, y: np.ndarray, *, several: bool = False) -> tuple[np.ndarray, tuple[str, ...] | None]:
    """Labels as class numbers from 0: [n] int64; and the classes' names where labels are not those numbers already.

    One-hot rows become their column; any whole numbers or words are put in order. Raises DataUnavailable.
    """
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim == 2 and y.dtype.kind in "biuf" and bool(np.isin(y, (0, 1)).all()) and bool((y.sum(1) == 1).all()):
        return y.argmax(1).astype(np.int64), tuple(map(str, range(y.shape[1])))
    if y.ndim != 1:
        raise DataUnavailable(
            f"{where}: labels have shape {list(y.shape)}. Give one class for each sample, [n], or one-hot rows [n, classes]."
        )
    if y.dtype.kind in "US":
        names = np.unique(y)
        return np.searchsorted(names, y).astype(np.int64), tuple(str(name) for name in names)
    if y.dtype.kind == "f":
        if not np.isfinite(y).all():
            raise DataUnavailable(
                f"{where}: {int((~np.isfinite(y)).sum())} labels are NaN or infinite. Give whole numbers."
            )
        if (y != np.round(y)).any():
            raise DataUnavailable(
                f"{where}: the label {float(y[y != np.round(y)][0]):g} is no whole number. Give each sample one class: 0, 1, 2 and so on."
            )
    elif y.dtype.kind not in "biu":
        raise DataUnavailable(f"{where}: labels are of type {y.dtype}. Give whole numbers or words.")
    y = y.astype(np.int64)
    found = np.unique(y)
    if len(found) > 100_000:
        raise DataUnavailable(f"{where}: {len(found)} different labels are no classes. Give one class for each sample.")
    if len(found) and (found[0] != 0 or found[-1] != len(found) - 1):
        return np.searchsorted(found, y), tuple(map(str, found))
    return y, None


def scaled(where: str, x: np.ndarray, said: list[str], name: str) -> np.ndarray:
    """Samples as float32, bytes from 0 to 1; whole numbers of tokens stay int64. Raises DataUnavailable."""
    if x.dtype.kind == "b":
        return x.astype(np.float32)
    if x.dtype == np.uint8:
        told = "Bytes (0 to 255) are scaled to 0 to 1."
        if told not in said:
            said.append(told)
        return x.astype(np.float32) / np.float32(255)
    if x.dtype.kind in "iu":
        return x.astype(np.int64)
    if x.dtype.kind != "f":
        raise DataUnavailable(f"{where}: {name} is of type {x.dtype}. Give numbers.")
    wrong = ~np.isfinite(x)
    if wrong.any():
        raise DataUnavailable(
            f"{where}: {int(wrong.sum()):,} of the {x.size:,} numbers in {name} are NaN or infinite. Replace them, or leave those "
            "samples out."
        )
    return np.ascontiguousarray(x, dtype=np.float32)

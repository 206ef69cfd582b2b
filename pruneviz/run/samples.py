"""Samples as somebody's code gives them, in the one form that runs take."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pruneviz.basics.errors import DataUnavailable
from pruneviz.datasets._given import Found, completed, numbered, scaled
from pruneviz.datasets.base import Splits
from pruneviz.run.code import a


def samples_of(text: str, given: Any) -> Found:
    """Samples as somebody's code gives them: Splits, or (train, test), (train, val, test), each (x, y) or a Dataset of pairs.

    Raises DataUnavailable, naming what was found.
    """
    if isinstance(given, Found):
        return given
    if isinstance(given, Splits):
        parts = {name: getattr(given, name) for name in ("train", "val", "test")}
        classes: tuple[str, ...] | None = tuple(given.classes)
    else:
        several = list(given) if isinstance(given, list | tuple) else []
        names = {2: ("train", "test"), 3: ("train", "val", "test")}.get(len(several))
        if names is None:
            raise DataUnavailable(
                f"{text} gave {a(given)}{f' of {len(several)}' if several else ''}. Return (train, test) or (train, val, test), each "
                "(x, y) or a Dataset, or pv.Splits."
            )
        parts, classes = {n: part for n, part in zip(names, several, strict=True) if part is not None}, None
    said: list[str] = []
    pairs = {name: _pair(text, name, part) for name, part in parts.items()}
    if "train" not in pairs:
        raise DataUnavailable(f"{text} gave no training samples. Return (train, test) or (train, val, test).")
    try:
        together = np.concatenate([y for _, y in pairs.values()])
    except ValueError:
        raise DataUnavailable(
            f"{text}: labels of different parts have different shapes. Give all of them in one form."
        ) from None
    y, named = numbered(text, together)
    if classes is None or len(classes) < (len(named) if named else int(y.max()) + 1):
        classes = named or tuple(map(str, range(int(y.max()) + 1 if len(y) else 0)))
    pieces = np.split(y, np.cumsum([len(own_y) for _, own_y in pairs.values()])[:-1])
    ready = {
        name: (scaled(text, x, said, f"x of {name}"), piece)
        for (name, (x, _)), piece in zip(pairs.items(), pieces, strict=True)
    }
    return completed(text, ready, classes, said)


def _pair(text: str, name: str, part: Any) -> tuple[np.ndarray, np.ndarray]:
    if isinstance(part, list | tuple) and len(part) == 2 and not isinstance(part[0], int | float | str):
        x, y = (_array(text, name, value) for value in part)
    elif hasattr(part, "__len__") and hasattr(part, "__getitem__"):
        try:
            pairs = [part[i] for i in range(len(part))]
            x, y = (np.stack([_array(text, name, pair[i]) for pair in pairs]) for i in (0, 1))
        except (TypeError, IndexError, KeyError, ValueError) as error:
            raise DataUnavailable(
                f"{text}: {name} is {a(part)} that gives no pairs (x, y) of one shape ({error})."
            ) from None
    else:
        raise DataUnavailable(
            f"{text}: {name} is {a(part)}. Give (x, y), arrays or tensors, or a Dataset of such pairs."
        )
    if x.ndim < 2 or len(x) != len(y):
        raise DataUnavailable(f"{text}: {name} has x {list(x.shape)} and y {list(y.shape)}. Give [n, …] and [n].")
    return x, y


def _array(text: str, name: str, value: Any) -> np.ndarray:
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        return (value.float() if value.dtype in (torch.bfloat16, torch.float16) else value).numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            found = np.asarray(value)
        except (ValueError, Warning) as error:
            raise DataUnavailable(f"{text}: {name} holds {a(value)} that is no array ({error}).") from None
    if found.dtype.hasobject:
        raise DataUnavailable(f"{text}: {name} holds {a(value)} that is no array of numbers.")
    return found


def splits(found: Found, tokens: bool) -> Splits:
    def part(pair: tuple[np.ndarray, np.ndarray]) -> tuple[Tensor, Tensor]:
        x = torch.from_numpy(np.array(pair[0]))
        return (x if tokens or x.is_floating_point() else x.float(), torch.from_numpy(np.array(pair[1])).long())

    return Splits(part(found.train), part(found.val), part(found.test), found.classes, found.shape)

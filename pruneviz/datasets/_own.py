"""Data of one's own: the reader for each kind of file, and the card that is made of what was found."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from pruneviz.basics.errors import InvalidSetting
from pruneviz.basics.reference import Reference
from pruneviz.datasets._given import Found, Limits
from pruneviz.datasets.base import DataCard

STEPS = 40_000  # samples to learn from in all, from which the number of epochs follows


def read_own(path: Path, limits: Limits | None = None) -> Found:
    """The samples of an .npz or of a folder of images. Raises DataUnavailable."""
    from pruneviz.datasets import _images, _npz

    return _images.read(path, limits) if path.is_dir() else _npz.read(path, limits)


def facts_of(data: Found) -> dict[str, Any]:
    """What a run carries of its own data."""
    return {
        "shape": list(data.shape),
        "classes": list(data.classes),
        "sizes": [len(part[0]) for part in (data.train, data.val, data.test)],
        "said": list(data.said),
    }


def card_of(at: Reference, facts: Mapping[str, Any], digest: str) -> DataCard:
    """Its card: budgets follow from how many samples there are. Raises KeyError, TypeError or ValueError where facts are none."""

    def read(_: DataCard) -> NoReturn:
        raise InvalidSetting(f"{at.text!r} are no registered data: a run opens them by their place.")

    train, val, test = (int(n) for n in facts["sizes"])
    epochs = min(30, max(3, round(STEPS / max(1, train))))
    return DataCard(
        key=at.slug,
        title=at.slug,
        idea=f"Data of one's own: {at.text}.",
        shape=tuple(int(n) for n in facts["shape"]),
        classes=tuple(str(name) for name in facts["classes"]),
        sizes=(train, val, test),
        read=read,
        licence="one's own",
        source="a file of one's own",
        epochs=epochs,
        tune_epochs=max(1, epochs // 2),
        content=digest,
    )

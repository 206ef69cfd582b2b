"""Handwritten digits of 8 x 8 pixels, from scikit-learn."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from pruneviz.basics.errors import DataUnavailable
from pruneviz.datasets.base import Arrays, DataCard, split_off

ORDER = 10


def _read(card: DataCard) -> tuple[Arrays, Arrays, Arrays]:
    from sklearn.datasets import load_digits

    published: Any = load_digits()
    x, y = np.asarray(published["data"], np.uint8), np.asarray(published["target"], np.uint8)
    if hashlib.sha256(x.tobytes() + y.tobytes()).hexdigest() != card.content:
        raise DataUnavailable(
            "The digits of the installed scikit-learn are not the published ones. Reinstall scikit-learn."
        )
    train, val, test = ((a.astype(np.float32) / 16, b.astype(np.int64)) for a, b in split_off(x, y, *card.sizes))
    return train, val, test


CARDS = (
    DataCard(
        key="digits",
        title="Digits",
        idea="1,797 handwritten digits of 8 x 8 pixels; comes with the install, trains in seconds.",
        shape=(1, 8, 8),
        classes=tuple("0123456789"),
        sizes=(1257, 180, 360),
        read=_read,
        licence="CC BY 4.0",
        source="https://archive.ics.uci.edu/dataset/80/optical+recognition+of+handwritten+digits",
        epochs=30,
        tune_epochs=15,
        content="87ff0c9e40dc7e2c0e34e7257799c2e3f3aec1a016363bb11cad869ec428a826",
    ),
)

"""Exclusive or: the smallest task that needs a hidden layer."""

from __future__ import annotations

import numpy as np

from pruneviz.datasets.base import Arrays, DataCard

ORDER = 60


def _read(card: DataCard) -> tuple[Arrays, Arrays, Arrays]:
    x = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
    y = np.array([0, 1, 1, 0], np.int64)
    return (x, y), (x, y), (x, y)


CARDS = (
    DataCard(
        key="xor",
        title="XOR",
        idea="Is exactly one of two inputs on? Four points, all there are: they are training, validation and test set at once.",
        shape=(2,),
        classes=("equal", "different"),
        sizes=(4, 4, 4),
        read=_read,
        licence="none needed",
        source="a truth table",
        epochs=200,
        tune_epochs=100,
        model="mlp-2-2-1",
        content="00 0, 01 1, 10 1, 11 0",
    ),
)

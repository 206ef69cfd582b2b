"""The IDX format of MNIST and its kin."""

from __future__ import annotations

import numpy as np

from pruneviz.basics.errors import DataUnavailable
from pruneviz.datasets.base import Arrays, DataCard, obtain, split_off


def parse(content: bytes, name: str = "file") -> np.ndarray:
    """An IDX file of unsigned bytes as an array (header: 0 0 8 dimensions, then each size as a big-endian int32)."""
    if len(content) < 4 or content[:3] != b"\x00\x00\x08":
        raise DataUnavailable(f"{name} is not an IDX file of bytes. Put the published file in its place.")
    dims = content[3]
    shape = np.frombuffer(content, ">i4", dims, 4)
    if len(content) != 4 + 4 * dims + int(shape.prod()):
        raise DataUnavailable(f"{name} is cut short. Put the published file in its place.")
    return np.frombuffer(content, np.uint8, offset=4 + 4 * dims).reshape(shape)


def read(card: DataCard) -> tuple[Arrays, Arrays, Arrays]:
    """55,000 training, 5,000 validation and 10,000 test images; pixels in [0, 1]."""
    train_x, train_y, test_x, test_y = (parse(obtain(card, file), file.name) for file in card.files)
    train, val = split_off(train_x, train_y, *card.sizes[:2])

    def pixels(x: np.ndarray, y: np.ndarray) -> Arrays:
        return x.astype(np.float32) / 255, y.astype(np.int64)

    return pixels(*train), pixels(*val), pixels(test_x, test_y)

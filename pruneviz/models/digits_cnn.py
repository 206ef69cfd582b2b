"""A small convolutional network for 8 x 8 digits."""

from __future__ import annotations

from pruneviz.models.base import ModelCard, Shape

ORDER = 20


def _digits_cnn(shape: Shape, classes: int):
    from torch import nn

    channels, rows, columns = shape
    return nn.Sequential(
        nn.Conv2d(channels, 16, 3, padding=1), nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(32 * (rows // 2) * (columns // 2), 64), nn.ReLU(), nn.Linear(64, classes),
    )  # fmt: skip


CARDS = (
    ModelCard(
        "digits-cnn",
        "Digits CNN",
        "Two small convolutions and two dense layers: trains in seconds on a laptop.",
        "16 and 32 filters of 3 x 3, pooled once, then 64 units, ReLU",
        _digits_cnn,
        convolutions=True,
        min_size=4,
    ),
)

"""LeNet-300-100 and LeNet-5 in Caffe's sizes."""

from __future__ import annotations

from math import prod

from pruneviz.basics.citation import Paper
from pruneviz.models.base import ModelCard, Shape

ORDER = 10

_LECUN = Paper(
    "lecun1998gradient",
    "Yann LeCun, Léon Bottou, Yoshua Bengio, Patrick Haffner",
    "Gradient-Based Learning Applied to Document Recognition",
    1998,
    "Proceedings of the IEEE 86(11)",
    "https://doi.org/10.1109/5.726791",
)


def _lenet_300_100(shape: Shape, classes: int):
    from torch import nn

    return nn.Sequential(
        nn.Flatten(), nn.Linear(prod(shape), 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, classes)
    )


def _lenet_5_caffe(shape: Shape, classes: int):
    from torch import nn

    rows, columns = (((n - 4) // 2 - 4) // 2 for n in shape[1:])
    return nn.Sequential(
        nn.Conv2d(shape[0], 20, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(20, 50, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(50 * rows * columns, 500), nn.ReLU(), nn.Linear(500, classes),
    )  # fmt: skip


CARDS = (
    ModelCard(
        "lenet-300-100",
        "LeNet-300-100",
        "Two hidden layers, no convolution: the network most pruning papers start with.",
        "300 and 100 hidden units, ReLU",
        _lenet_300_100,
        _LECUN,
    ),
    ModelCard(
        "lenet-5-caffe",
        "LeNet-5 (Caffe)",
        "Two convolutions and two dense layers; nine tenths of the weights sit in one dense layer.",
        "20 and 50 filters of 5 x 5, each pooled, then 500 units, ReLU",
        _lenet_5_caffe,
        _LECUN,
        convolutions=True,
        min_size=16,
    ),
)

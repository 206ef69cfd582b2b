"""VGG as it is pruned on CIFAR: normalised everywhere, with a small head."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pruneviz.basics.citation import Paper
from pruneviz.models.base import ModelCard, Shape, scaled

if TYPE_CHECKING:
    from torch import nn

ORDER = 50

_LI = Paper(
    "li2017pruning",
    "Hao Li, Asim Kadav, Igor Durdanovic, Hanan Samet, Hans Peter Graf",
    "Pruning Filters for Efficient ConvNets",
    2017,
    "International Conference on Learning Representations",
    "https://arxiv.org/abs/1608.08710",
    "table 2",
)
_SIMONYAN = Paper(
    "simonyan2015very",
    "Karen Simonyan, Andrew Zisserman",
    "Very Deep Convolutional Networks for Large-Scale Image Recognition",
    2015,
    "International Conference on Learning Representations",
    "https://arxiv.org/abs/1409.1556",
)
_STAGES = (64, 128, 256, 512, 512)


def _vgg(*convolutions: int, bias: bool, hidden: int | None, average: bool) -> Callable[[Shape, int, float], nn.Module]:
    """Convolutions of 3 x 3 in five stages, each normalised; a pooling ends each stage, the last by ``average`` where asked."""

    def build(shape: Shape, classes: int, width: float) -> nn.Module:
        from torch import nn

        channels, rows, columns = shape
        layers: list[nn.Module] = []
        for stage, count in zip(_STAGES, convolutions, strict=True):
            outputs = scaled(stage, width)
            for _ in range(count):
                layers += [nn.Conv2d(channels, outputs, 3, padding=1, bias=bias), nn.BatchNorm2d(outputs), nn.ReLU()]
                channels = outputs
            # an odd side keeps its last row, so that 28 pixels last for five poolings
            layers += [nn.MaxPool2d(2, ceil_mode=True)]
            rows, columns = (rows + 1) // 2, (columns + 1) // 2
        if average:
            layers[-1] = nn.AvgPool2d(2, ceil_mode=True)
        layers += [nn.Flatten()]
        features = channels * rows * columns
        if hidden is not None:
            units = scaled(hidden, width)
            layers += [nn.Linear(features, units), nn.BatchNorm1d(units), nn.ReLU()]
            features = units
        return nn.Sequential(*layers, nn.Linear(features, classes))

    return build


CARDS = (
    ModelCard(
        "vgg-16",
        "VGG-16",
        "Thirteen convolutions and a small head, 15 million weights: the network whose filters Li et al. remove.",
        "Filters of 3 x 3: 64 x 2 | 128 x 2 | 256 x 3 | 512 x 3 | 512 x 3, normalised, each stage pooled, then 512 units, ReLU",
        _vgg(2, 2, 3, 3, 3, bias=True, hidden=512, average=False),
        _LI,
        widths=True,
        convolutions=True,
        min_size=17,
        lr=1e-3,
        batch_size=128,
    ),
    ModelCard(
        "vgg-19",
        "VGG-19",
        "Sixteen convolutions and one dense layer, 20 million weights: what GraSP and EigenDamage prune on CIFAR.",
        "Filters of 3 x 3: 64 x 2 | 128 x 2 | 256 x 4 | 512 x 4 | 512 x 4, normalised, each stage pooled (the last averaged), ReLU",
        _vgg(2, 2, 4, 4, 4, bias=False, hidden=None, average=True),
        _SIMONYAN,
        widths=True,
        convolutions=True,
        min_size=17,
        lr=1e-3,
        batch_size=128,
    ),
)

"""Residual networks for CIFAR."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pruneviz.basics.citation import Paper
from pruneviz.models.base import ModelCard, Shape, scaled

if TYPE_CHECKING:
    from torch import nn

ORDER = 60

_HE = Paper(
    "he2016deep",
    "Kaiming He, Xiangyu Zhang, Shaoqing Ren, Jian Sun",
    "Deep Residual Learning for Image Recognition",
    2016,
    "IEEE Conference on Computer Vision and Pattern Recognition",
    "https://arxiv.org/abs/1512.03385",
    "section 4.2",
)


def _resnet(depth: int) -> Callable[[Shape, int, float], nn.Module]:
    """One convolution, three stages of (depth - 2) / 6 blocks with 16, 32 and 64 filters, the mean over pixels, the classes."""

    def build(shape: Shape, classes: int, width: float) -> nn.Module:
        from torch import nn

        from pruneviz.models._torch.residual import BasicBlock

        channels = scaled(16, width)
        first = nn.Conv2d(shape[0], channels, 3, padding=1, bias=False)
        layers: list[nn.Module] = [first, nn.BatchNorm2d(channels), nn.ReLU()]
        for i, outputs in enumerate(scaled(n, width) for n in (16, 32, 64)):
            for j in range((depth - 2) // 6):
                layers += [BasicBlock(channels, outputs, stride=2 if i and not j else 1)]
                channels = outputs
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))

    return build


def _card(depth: int, idea: str) -> ModelCard:
    blocks = (depth - 2) // 6
    return ModelCard(
        f"resnet-{depth}",
        f"ResNet-{depth}",
        idea,
        f"3 x {blocks} blocks of two convolutions of 3 x 3, 16 | 32 | 64 filters, normalised, shortcuts without parameters, ReLU",
        _resnet(depth),
        _HE,
        widths=True,
        convolutions=True,
        min_size=5,
        lr=1e-3,
        batch_size=128,
    )


CARDS = (
    _card(20, "The smallest residual network of CIFAR: 270,000 weights in nine blocks."),
    _card(
        32,
        "Fifteen blocks; GraSP's and EigenDamage's are this at widths 2 and 4, but for two shortcuts that they learn.",
    ),
    _card(
        56, "Twenty-seven blocks, 850,000 weights: Li et al. remove the filters between the two convolutions of each."
    ),
    _card(110, "Fifty-four blocks, a hundred and ten layers deep, and no more than 1.7 million weights."),
)

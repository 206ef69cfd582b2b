"""Conv-2, Conv-4 and Conv-6 of the lottery ticket paper: VGG's first stages, made small."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pruneviz.basics.citation import Paper
from pruneviz.models.base import ModelCard, Shape, scaled

if TYPE_CHECKING:
    from torch import nn

ORDER = 40

_FRANKLE = Paper(
    "frankle2019lottery",
    "Jonathan Frankle, Michael Carbin",
    "The Lottery Ticket Hypothesis: Finding Sparse, Trainable Neural Networks",
    2019,
    "International Conference on Learning Representations",
    "https://arxiv.org/abs/1803.03635",
    "figure 2",
)


def _conv(*stages: int) -> Callable[[Shape, int, float], nn.Module]:
    """Two convolutions of 3 x 3 and a pooling for each stage, then 256, 256 and the classes, with biases and ReLU."""

    def build(shape: Shape, classes: int, width: float) -> nn.Module:
        from torch import nn

        channels, rows, columns = shape
        layers: list[nn.Module] = []
        for stage in stages:
            for _ in range(2):
                layers += [nn.Conv2d(channels, channels := scaled(stage, width), 3, padding=1), nn.ReLU()]
            layers += [nn.MaxPool2d(2)]
            rows, columns = rows // 2, columns // 2
        hidden = scaled(256, width)
        return nn.Sequential(
            *layers, nn.Flatten(), nn.Linear(channels * rows * columns, hidden), nn.ReLU(),
            nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, classes),
        )  # fmt: skip

    return build


def _card(idea: str, lr: float, *stages: int) -> ModelCard:
    filters = " | ".join(f"{n}, {n}" for n in stages)
    return ModelCard(
        f"conv-{2 * len(stages)}",
        f"Conv-{2 * len(stages)}",
        idea,
        f"Filters of 3 x 3: {filters}, each pair pooled, then 256 and 256 units, ReLU",
        _conv(*stages),
        _FRANKLE,
        widths=True,
        convolutions=True,
        min_size=2 ** len(stages),
        lr=lr,
        batch_size=60,
    )


CARDS = (
    _card("Two convolutions; nearly all of its 4.3 million weights sit in one dense layer.", 2e-4, 64),
    _card("Four convolutions, which hold a tenth of its 2.4 million weights.", 3e-4, 64, 128),
    _card("Six convolutions, which hold half of its 2.3 million weights.", 3e-4, 64, 128, 256),
)

"""Dense networks of the papers' small problems: XOR, MONK's, MNIST-1D, and the deep one of signal propagation."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from math import prod
from typing import TYPE_CHECKING, Literal

from pruneviz.basics.citation import Paper
from pruneviz.models.base import ModelCard, Shape

if TYPE_CHECKING:
    from torch import nn

ORDER = 30

_RUMELHART = Paper(
    "rumelhart1986learning",
    "David E. Rumelhart, Geoffrey E. Hinton, Ronald J. Williams",
    "Learning Internal Representations by Error Propagation",
    1986,
    "Parallel Distributed Processing, volume 1, MIT Press",
    "https://apps.dtic.mil/sti/citations/ADA164453",
    "XOR",
)
_HASSIBI = Paper(
    "hassibi1993second",
    "Babak Hassibi, David G. Stork",
    "Second Order Derivatives for Network Pruning: Optimal Brain Surgeon",
    1993,
    "Advances in Neural Information Processing Systems 5",
    "https://proceedings.neurips.cc/paper/1992/hash/303ed4c69846ab36c2904d3ba8573050-Abstract.html",
    "the MONK's problems",
)
_GREYDANUS = Paper(
    "greydanus2024scaling",
    "Sam Greydanus, Dmitry Kobak",
    "Scaling Down Deep Learning with MNIST-1D",
    2024,
    "International Conference on Machine Learning",
    "https://proceedings.mlr.press/v235/greydanus24a.html",
)
_LEE = Paper(
    "lee2020signal",
    "Namhoon Lee, Thalaiyasingam Ajanthan, Stephen Gould, Philip H. S. Torr",
    "A Signal Propagation Perspective for Pruning Neural Networks at Initialization",
    2020,
    "International Conference on Learning Representations",
    "https://arxiv.org/abs/1906.06307",
)


def _mlp(
    *hidden: int, activation: Literal["ReLU", "Tanh"], outputs: int | None = None
) -> Callable[[Shape, int], nn.Module]:
    """Linear layers with an activation between them; a single output ends in a sigmoid: the probability of class 1."""

    def build(shape: Shape, classes: int) -> nn.Module:
        from torch import nn

        layers: list[nn.Module] = [nn.Flatten()]
        for inputs, units in pairwise((prod(shape), *hidden, outputs or classes)):
            layers += [nn.Linear(inputs, units), getattr(nn, activation)()]
        return nn.Sequential(*layers[:-1], *([nn.Sigmoid()] if outputs == 1 else []))

    return build


CARDS = (
    ModelCard(
        "mlp-1d",
        "MLP-1D",
        "Two hidden layers for signals of 40 numbers; trains in seconds.",
        "100 and 100 hidden units, ReLU",
        _mlp(100, 100, activation="ReLU"),
        _GREYDANUS,
        lr=5e-3,
        batch_size=128,
    ),
    ModelCard(
        "mlp-7x100",
        "MLP 7 x 100",
        "Seven layers deep and narrow, so that signals fade where singular values are small.",
        "6 times 100 hidden units, tanh",
        _mlp(*[100] * 6, activation="Tanh"),
        _LEE,
    ),
    ModelCard(
        "mlp-2-2-1",
        "MLP 2-2-1",
        "A hidden layer just wide enough for XOR: nine parameters.",
        "2 hidden units, tanh; 1 sigmoid output",
        _mlp(2, activation="Tanh", outputs=1),
        _RUMELHART,
        inputs=2,
        outputs=1,
        loss="squared",
        lr=0.2,
        batch_size=2,
    ),
    ModelCard(
        "mlp-17-3-1",
        "MLP 17-3-1",
        "58 parameters for the first of the MONK's problems: small enough to see every weight.",
        "3 hidden units, tanh; 1 sigmoid output",
        _mlp(3, activation="Tanh", outputs=1),
        _HASSIBI,
        inputs=17,
        outputs=1,
        loss="squared",
        lr=0.02,
        batch_size=16,
    ),
    ModelCard(
        "mlp-17-2-1",
        "MLP 17-2-1",
        "39 parameters for the second and third of the MONK's problems.",
        "2 hidden units, tanh; 1 sigmoid output",
        _mlp(2, activation="Tanh", outputs=1),
        _HASSIBI,
        inputs=17,
        outputs=1,
        loss="squared",
        lr=0.02,
        batch_size=16,
    ),
)

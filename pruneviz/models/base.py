"""What a network is before torch is loaded: a card."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from math import floor, prod
from typing import TYPE_CHECKING, Literal

from pruneviz.basics.citation import Paper
from pruneviz.basics.errors import InvalidSetting, Unsuitable

if TYPE_CHECKING:
    from torch import nn

Shape = tuple[int, ...]
WIDEST = 8


@dataclass(frozen=True)
class ModelCard:
    """``build(shape, classes)`` makes the network without choosing its weights; ``loss``: what it is trained on.

    Where it has ``widths``, it is ``build(shape, classes, width)``: ``width`` times as many channels in every layer.

    ``convolutions``: it has some. What it takes: ``images`` with sides of at least ``min_size`` pixels (None: where it has
    convolutions); ``inputs``: numbers in a sample
    (None: any); ``outputs``: its own number of outputs (None: one for each class; 1: the probability of class 1).
    ``lr`` and ``batch_size``: what it learns with (None: the usual ones); how long to train is the data's to say.
    """

    key: str
    title: str
    idea: str
    layers: str
    build: Callable[..., nn.Module]
    paper: Paper | None = None
    widths: bool = False
    convolutions: bool = False
    images: bool | None = None
    min_size: int = 1
    inputs: int | None = None
    outputs: int | None = None
    loss: Literal["cross-entropy", "squared"] = "cross-entropy"
    lr: float | None = None
    batch_size: int | None = None
    schema: int = 1

    @property
    def budget(self) -> dict[str, float]:
        """The training settings suggested for it."""
        wanted = {"lr": self.lr, "batch_size": self.batch_size}
        return {name: value for name, value in wanted.items() if value is not None}

    def fits(self, shape: Shape, classes: int) -> bool:
        """Whether samples of this shape pass through the network and its outputs tell so many classes apart."""
        return self._misfit(shape, classes) is None

    def check(self, shape: Shape, classes: int) -> None:
        """Raises Unsuitable, with the reason, where the data do not fit."""
        reason = self._misfit(shape, classes)
        if reason is not None:
            raise Unsuitable(f"{self.key!r} {reason}. Try lenet-300-100, which takes samples of any shape.")

    def check_width(self, width: float) -> None:
        """Raises InvalidSetting, with the mend, where the network does not come in this width."""
        if not 0 < width <= WIDEST:
            raise InvalidSetting(
                f"A width is a factor on the channels of all layers, above 0 and at most {WIDEST}; found {width:g}."
            )
        if width != 1 and not self.widths:
            raise InvalidSetting(
                f"{self.key!r} comes in one width, 1; found {width:g}. Leave it out, or try resnet-20, which takes any."
            )

    def _misfit(self, shape: Shape, classes: int) -> str | None:
        images = self.convolutions if self.images is None else self.images
        if images and len(shape) != 3:
            return f"needs images, and a sample has shape {shape}"
        if images and min(shape[1:]) < self.min_size:
            least = f"{self.min_size} x {self.min_size}"
            return f"needs images of at least {least} pixels, and these have {shape[1]} x {shape[2]}"
        if self.inputs not in (None, prod(shape)):
            return f"has {self.inputs} inputs, and a sample has {prod(shape)} numbers"
        tells = 2 if self.outputs == 1 else self.outputs
        if tells not in (None, classes):
            return f"tells {tells} classes apart, and there are {classes}"
        return None


def scaled(channels: int, width: float) -> int:
    """``width`` times as many channels: the nearest whole number, halves up, at least one."""
    return max(1, floor(channels * width + 0.5))


def in_words(width: float) -> str:
    """A width as papers write it: "1/8" for 0.125, "2" for 2."""
    simple = Fraction(width).limit_denominator(64)
    return str(simple) if width < 1 and float(simple) == width else f"{width:g}"

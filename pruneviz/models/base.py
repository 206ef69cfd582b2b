"""What a network is before torch is loaded: a card."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pruneviz.citation import Paper
from pruneviz.errors import Unsuitable

if TYPE_CHECKING:
    from torch import nn

Shape = tuple[int, ...]


@dataclass(frozen=True)
class ModelCard:
    """``build(shape, classes)`` makes the network without choosing its weights; ``min_size``: least image side in pixels;
    ``loss``: what it is trained on."""

    key: str
    title: str
    idea: str
    layers: str
    build: Callable[[Shape, int], nn.Module]
    paper: Paper | None = None
    convolutions: bool = False
    min_size: int = 1
    loss: Literal["cross-entropy", "squared"] = "cross-entropy"
    schema: int = 1

    def check(self, shape: Shape) -> None:
        """Raises Unsuitable where samples of this shape do not pass through the network."""
        if self.convolutions and len(shape) != 3:
            raise Unsuitable(f"{self.key!r} needs images, and a sample has shape {shape}. Try lenet-300-100.")
        if self.convolutions and min(shape[1:]) < self.min_size:
            raise Unsuitable(
                f"{self.key!r} needs images of at least {self.min_size} x {self.min_size} pixels, and these have "
                f"{shape[1]} x {shape[2]}. Try digits-cnn or lenet-300-100."
            )

"""One use of a weight in a forward pass: what it multiplies and what comes back to its outputs, sample by sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.graph import GradientEdge

from pruneviz.basics.errors import UnsupportedLayer
from pruneviz.curvature.products import Product, rows_of
from pruneviz.door.network import Weight


@dataclass
class Use:
    """A call of ``linear`` or ``conv`` with a weight, for so many ``samples``. ``edge``: where its output leaves, in the graph.

    Samples come first in what it gives, whatever their order in the network (``weight.inner``); a convolution whose batch
    is several images of each sample becomes a product of their patches.
    """

    weight: Weight
    samples: int
    edge: GradientEdge
    shape: torch.Size
    own: Product  # of the call itself
    _x: Tensor
    _version: int

    @property
    def product(self) -> Product:
        """What :meth:`input` and :meth:`slope` are of."""
        return Product(self.own.weight.flatten(1)) if self.folded else self.own

    @property
    def folded(self) -> bool:
        """Whether a convolution's images are not the samples."""
        return self.own.weight.dim() > 2 and (self.shape[0] != self.samples or bool(self.weight.inner))

    @property
    def positions(self) -> int:
        """At how many positions of a sample the weight is used."""
        return self.shape.numel() // (self.samples * len(self.own.weight))

    def input(self) -> Tensor:
        """What it multiplies. Raises UnsupportedLayer where an operation has overwritten it since."""
        if self._x._version != self._version:
            raise UnsupportedLayer(
                f"The input of layer {self.weight.layer!r} was overwritten by an operation that works in place. "
                "Write y = y + x where the forward pass has y += x, or use inplace=False."
            )
        if self.own.weight.dim() == 2:
            return self._ordered(self._x.reshape(-1, 1, self._x.shape[-1]))
        return self._ordered(rows_of(self.own, self._x)) if self.folded else self._x

    def slope(self, given: Tensor) -> Tensor:
        """A slope at its output, as :meth:`input` is ordered: [n, l, out], or of images [n, out, h, w]."""
        if self.own.weight.dim() == 2:
            return self._ordered(given.reshape(-1, 1, given.shape[-1]))
        images = given if given.dim() == 4 else given.unsqueeze(2)
        return self._ordered(images.flatten(2).mT) if self.folded else images

    def back(self, slope: Tensor) -> Tensor:
        """What :meth:`slope` gives, in the output's own shape."""
        if self.own.weight.dim() > 2 and not self.folded:
            return slope.reshape(self.shape)
        inner, out = self.weight.inner, slope.shape[-1]
        block = 1 if self.own.weight.dim() == 2 else self.shape[2:].numel()
        rows = self.shape.numel() // (out * block)
        if inner:
            slope = slope.reshape(self.samples, rows // (self.samples * inner), inner, block, out).transpose(0, 1)
        if block > 1 or self.own.weight.dim() > 2:
            slope = slope.reshape(rows, block, out).mT
        return slope.reshape(self.shape)

    def _ordered(self, rows: Tensor) -> Tensor:
        """[rows, l, d], samples in any order -> [n, l', d]."""
        count, block, width = rows.shape
        if self.weight.inner:
            inner = self.weight.inner
            rows = rows.reshape(count // (self.samples * inner), self.samples, inner, block, width).transpose(0, 1)
        return rows.reshape(self.samples, -1, width)


def use_of(
    weight: Weight, samples: int, call: tuple[str, tuple, dict[str, Any]], edge: GradientEdge, shape: torch.Size
) -> Use:
    """The use that a call makes: (function, arguments, arguments by name)."""
    name, args, kwargs = call
    x = (args[0] if args else kwargs["input"]).detach()
    values = (args[1] if len(args) > 1 else kwargs["weight"]).detach()
    if name == "linear":
        return Use(weight, samples, edge, shape, Product(values), x, x._version)
    version = x._version
    defaults = (("stride", 1), ("padding", 0), ("dilation", 1), ("groups", 1))
    given = {k: args[i] if len(args) > i else kwargs.get(k, d) for i, (k, d) in enumerate(defaults, 3)}
    flat = name == "conv1d"
    if flat:
        x, values = x.unsqueeze(2), values.unsqueeze(2)
    stride, dilation = _both(given["stride"], 1, flat), _both(given["dilation"], 1, flat)
    padding = (0, 0) if isinstance(given["padding"], str) else _both(given["padding"], 0, flat)
    if given["padding"] == "same":
        sides = [d * (k - 1) for d, k in zip(dilation, values.shape[2:], strict=True)]
        x = F.pad(x, (sides[1] // 2, sides[1] - sides[1] // 2, sides[0] // 2, sides[0] - sides[0] // 2))
        version = x._version
    return Use(weight, samples, edge, shape, Product(values, stride, padding, dilation, given["groups"]), x, version)


def _both(value: Any, other: int, flat: bool) -> tuple[int, int]:
    """A convolution's setting for both directions of an image; a sequence is an image of one line."""
    values = (value,) if isinstance(value, int) else tuple(value)
    if flat:
        return other, values[0]
    return (values[0], values[0]) if len(values) == 1 else (values[0], values[1])

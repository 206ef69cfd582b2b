"""What is made of one layer's output, number by number, and its slope."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import sqrt
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from pruneviz.basics.errors import UnsupportedLayer


@dataclass(eq=False)
class Base:
    """Numbers that are followed together: a layer's output, or parts of it set beside each other (``pieces``)."""

    edge: GradientEdge
    like: Tensor  # of no memory: shape, dtype, device
    pieces: list[End] = field(default_factory=list)


@dataclass(eq=False)
class Part:
    """A tensor each of whose numbers is made of one of a base's, the one at ``place`` (None: all, in their places)."""

    use: Use
    base: Base
    place: Tensor | None
    version: int = 0  # of the tensor
    above: frozenset[Part] = frozenset()  # the parts that it is made of
    origin: End | None = None  # the tensor that has the same numbers, in other places
    kept: Tensor | None = None  # the tensor in a network's own no_grad, where a custom function cuts it off

    def places(self) -> Tensor:
        """Where in the base each number comes from, in the tensor's shape."""
        if self.place is not None:
            return self.place
        return torch.arange(self.base.like.numel(), device=self.use.output.device).reshape(self.base.like.shape)


@dataclass(eq=False)
class End:
    """A part that something else reads. ``measured``: only as a sum or a mean, by which its layer may be normalised;
    ``places``: which of the base's numbers are read (None: all that it has)."""

    part: Part
    edge: GradientEdge
    like: Tensor
    measured: bool = True
    places: list[Tensor] | None = field(default_factory=list)

    def covers(self) -> Tensor:
        """Which of the base's numbers are read: [numbers], bool."""
        covered = torch.zeros(self.part.base.like.numel(), dtype=torch.bool, device=self.part.use.output.device)
        for place in [self.part.place] if self.places is None else self.places:
            covered[... if place is None else place.flatten()] = True
        return covered


@dataclass(eq=False)
class Use:
    """One use of a layer: the weight it multiplied with, what by, and what is made of the result until something mixes."""

    layer: str
    weight: Tensor
    input: Tensor  # of the function
    rest: dict[str, Any]  # stride, padding, dilation, groups
    output: Tensor
    entered: Tensor | None = None  # of the module, where it was called
    whole: bool = False  # the module gives what the function gave
    bases: list[Base] = field(default_factory=list)
    ends: dict[Any, End] = field(default_factory=dict)
    sliced: list[End] = field(default_factory=list)  # parts of which less went on
    read: bool = False
    cut: bool = False  # detached
    refused: str = ""

    def slope(self) -> Tensor:
        """The derivative of what follows, number by number; of several ends beside each other the root of its squares' sum.

        Raises UnsupportedLayer, where it can't be told.
        """
        if self.refused:
            raise UnsupportedLayer(self.refused)
        try:
            with torch.enable_grad():
                return self._slope().detach()
        except (RuntimeError, NotImplementedError) as error:
            if "inplace operation" in str(error):
                raise
            raise UnsupportedLayer(
                f"What follows layer {self.layer!r} can't be differentiated ({_first(error)}), so that its Jacobian cannot be told."
            ) from error

    def _slope(self) -> Tensor:
        ends = list(self.ends.values())
        if not ends:  # signs or sizes are asked for at most: a constant
            return torch.zeros_like(self.output) if self.read else torch.ones_like(self.output)
        if len(ends) == 1 and ends[0].part.base is self.bases[0]:
            return self._unread(self._through(ends[0], _ones(ends[0])))
        squares = {id(base): torch.zeros_like(base.like, device=self.output.device) for base in self.bases}
        for end in ends:
            squares[id(end.part.base)] += self._through(end, _ones(end)).square()
        for base in reversed(self.bases[1:]):
            found = torch.autograd.grad(
                [base.edge], [one.edge for one in base.pieces], [squares[id(base)]], retain_graph=True
            )
            for piece, square in zip(base.pieces, found, strict=True):
                squares[id(piece.part.base)] += self._through(piece, square.sqrt()).square()
        return self._unread(squares[id(self.bases[0])].sqrt())

    def _unread(self, slope: Tensor) -> Tensor:
        """Numbers that nobody reads, beside others that go on, count as they were when they were left behind."""
        if not self.sliced:
            return slope
        left = torch.ones(slope.numel(), dtype=torch.bool, device=slope.device)
        for end in [*self.ends.values(), *(piece for base in self.bases for piece in base.pieces)]:
            if end.part.base is self.bases[0]:
                left &= ~end.covers()
        for end in (e for e in reversed(self.sliced) if e.part.base is self.bases[0] and bool(left.any())):
            here = end.covers() & left
            slope = torch.where(here.view_as(slope), self._through(end, _ones(end)), slope)
            left &= ~here
        return slope

    def _through(self, end: End, weights: Tensor) -> Tensor:
        """``weights`` times the derivative of an end's numbers, at the numbers of the base that they are made of."""
        base, place = end.part.base, end.part.place
        if (end.edge.node, end.edge.output_nr) == (base.edge.node, base.edge.output_nr):  # nothing follows
            return weights if end.places is None else torch.where(end.covers().view_as(weights), weights, 0)
        found = _back(end.edge, base, weights)
        v = draw(weights)
        moved = v if place is None else torch.zeros(base.like.numel(), dtype=v.dtype, device=v.device)
        if place is not None:
            moved[place.flatten()] = v.flatten()
        if not same(_back(end.edge, base, weights * v), found * moved.reshape(found.shape).to(found.dtype), found):
            raise UnsupportedLayer(
                f"What follows layer {self.layer!r} mixes its numbers in a place that isn't seen (code outside torch's functions?), so "
                "that its Jacobian cannot be told. Use a module or function of torch.nn for it."
            )
        return found if end.places is None else torch.where(end.covers().view_as(found), found, 0)


def together(parts: list[Part]) -> bool:
    """Whether parts are made of the same numbers, place by place."""
    first = parts[0]
    for part in parts[1:]:
        if part.base is not first.base:
            return False
        if part.place is not first.place and not torch.equal(part.places(), first.places()):
            return False
    return True


def like_(tensor: Tensor) -> Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")


def _ones(end: End) -> Tensor:
    return torch.ones(end.like.shape, dtype=end.like.dtype, device=end.part.use.output.device)


def _back(edge: GradientEdge, base: Base, weights: Tensor) -> Tensor:
    (found,) = torch.autograd.grad([edge], [base.edge], [weights], retain_graph=True, allow_unused=True)
    return torch.zeros(base.like.shape, dtype=base.like.dtype, device=weights.device) if found is None else found


def draw(like: Tensor) -> Tensor:
    """Numbers that are all different, the same each time."""
    v = torch.arange(1, like.numel() + 1, dtype=torch.float32, device=like.device).sqrt_().mul_(39).sin_()
    return v.view(like.shape).to(like.dtype)


def same(found: Tensor, expected: Tensor, slope: Tensor) -> bool:
    most = 1.0 if not slope.numel() else max(1.0, float(slope.detach().abs().max()))
    tolerance = 6 * sqrt(torch.finfo(found.dtype).eps) * most
    return not slope.numel() or float((found - expected).detach().abs().max()) <= tolerance


def _first(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


def tensors_in(value: Any) -> Iterator[Tensor]:
    return (leaf for leaf in _leaves(value) if isinstance(leaf, Tensor))


def _leaves(value: Any) -> Iterator[Any]:
    """What lists, tuples and mappings hold, faster than a tree."""
    if isinstance(value, list | tuple):
        for item in value:
            yield from _leaves(item)
    elif isinstance(value, dict):
        yield from _leaves(list(value.values()))
    else:
        yield value

"""Losses: what training, scores and curvature share.

A sample's loss is: cross-entropy, the mean over its counted positions (one where outputs are [n, classes]); squared and
binary, the sum over its outputs. The loss is the mean over samples. A network with several outputs gives logits; one with a
single output gives a probability to cross-entropy. ``y`` holds class numbers, -100 where a position is not counted, class
probabilities like the outputs, or numbers like the outputs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor

from pruneviz.basics.errors import InvalidSetting, PrunevizError, Unsuitable

TINY = 1e-12  # the least probability a curvature divides by
IGNORED = -100  # a label that is none, as in torch
MANY = 4096  # slopes of a sample that are taken one by one


class Loss(ABC):
    """A loss, and its derivatives with respect to the network's outputs [n, outputs]."""

    key: str

    def __call__(self, outputs: Tensor, y: Tensor) -> Tensor:
        """The mean over samples: a scalar."""
        return self.each(outputs, y).mean()

    @abstractmethod
    def each(self, outputs: Tensor, y: Tensor) -> Tensor:
        """The loss of each sample: [n]."""

    @abstractmethod
    def root(self, outputs: Tensor, y: Tensor | None = None) -> Tensor:
        """B with A = B Bᵀ, A the Hessian with respect to the outputs (its expectation under the model): [n, *outputs, k].

        ``y`` is read for the positions that are counted. Raises Unsuitable for more than 4,096 columns.
        """

    def slope(self, outputs: Tensor, y: Tensor) -> Tensor:
        """The gradient of each sample's loss with respect to its outputs: like the outputs."""
        with torch.enable_grad():
            z = outputs.detach().requires_grad_()
            return torch.autograd.grad(self.each(z, y).sum(), z)[0]

    @abstractmethod
    def drawn(self, outputs: Tensor, draws: int, generator: torch.Generator, y: Tensor | None = None) -> Tensor:
        """The same gradient for labels drawn from the model; the mean of its outer product is A: [draws, n, *outputs].

        Samples take their random numbers one after another, so that it does not matter how they are batched.
        """


@dataclass(frozen=True)
class CrossEntropy(Loss):
    """Mean cross-entropy in nats: of the softmax of several logits, along ``axis``, or of one probability."""

    axis: int = 1  # or -1: [n, positions, classes]

    key = "cross-entropy"

    def each(self, outputs: Tensor, y: Tensor) -> Tensor:
        if outputs.dim() == 2 and outputs.shape[1] == 1:
            p = probability(outputs)
            return F.binary_cross_entropy(p, y.to(p.dtype), reduction="none")
        y = y.to(outputs.dtype) if y.is_floating_point() else y
        if outputs.dim() == 2:
            return F.cross_entropy(outputs, y, reduction="none")
        logits = outputs.movedim(self.axis, 1)
        labels = y.movedim(self.axis, 1) if y.is_floating_point() else y
        return (F.cross_entropy(logits, labels, reduction="none") * self._weights(outputs, y)).flatten(1).sum(1)

    def root(self, outputs: Tensor, y: Tensor | None = None) -> Tensor:
        if outputs.dim() == 2 and outputs.shape[1] > 1:
            _few(outputs.shape[1] - 1)
            return _softmax_root(outputs.softmax(1))
        if outputs.dim() == 2:
            p = probability(outputs)
            return (p * (1 - p)).clamp(min=TINY).rsqrt().view(-1, 1, 1)
        logits = outputs.movedim(self.axis, -1)
        n, classes = len(outputs), logits.shape[-1]
        places = logits[0, ..., 0].numel()
        _few(places * (classes - 1))
        each = _softmax_root(logits.reshape(-1, classes).softmax(1)).view(n, places, classes, classes - 1)
        each = each * self._weights(outputs, y).reshape(n, places, 1, 1).sqrt()
        whole = each.new_zeros(n, places, classes, places, classes - 1)
        at = torch.arange(places, device=outputs.device)
        whole[:, at, :, at] = each.transpose(0, 1)  # a position's loss knows its own outputs alone
        return whole.view(*logits.shape, -1).movedim(-2, self.axis if self.axis > 0 else -2)

    def drawn(self, outputs: Tensor, draws: int, generator: torch.Generator, y: Tensor | None = None) -> Tensor:
        if outputs.dim() > 2:
            return self._drawn_everywhere(outputs, draws, generator, y)
        p = outputs.softmax(1) if outputs.shape[1] > 1 else torch.stack([1 - (q := probability(outputs)), q], 1)
        below = p.double().cumsum(1) if p.device.type != "mps" else p.cumsum(1)  # [n, classes]
        u = _uniform(len(p), draws, generator).to(below) * below[:, -1:]
        labels = torch.searchsorted(below, u, right=True).clamp(max=p.shape[1] - 1)  # [n, draws]
        return torch.stack([self.slope(outputs, label) for label in labels.T])

    def _drawn_everywhere(self, outputs: Tensor, draws: int, generator: torch.Generator, y: Tensor | None) -> Tensor:
        """A label for each position. Their slopes are each position's own over its count: the square of a sum of independent
        ones is the sum of squares, so that sqrt of the weight stands for the weight."""
        logits = outputs.detach().movedim(self.axis, -1)
        p = logits.softmax(-1)
        below = p.double().cumsum(-1) if p.device.type != "mps" else p.cumsum(-1)
        shape = logits.shape[:-1]
        places = shape[1:].numel()
        u = _uniform(len(p), draws * places, generator).to(below).view(len(p), draws, *shape[1:]).movedim(1, 0)
        found = []
        for one in u:
            labels = torch.searchsorted(below, (one * below[..., -1])[..., None], right=True)[..., 0]
            slope = p - F.one_hot(labels.clamp(max=p.shape[-1] - 1), p.shape[-1]).to(p)
            found.append((slope * self._weights(outputs, y)[..., None].sqrt()).movedim(-1, self.axis))
        return torch.stack(found)

    def _weights(self, outputs: Tensor, y: Tensor | None) -> Tensor:
        """What each position counts in its sample's mean: [n, ...]."""
        shape = outputs.movedim(self.axis, 1)[:, 0]
        counted = torch.ones_like(shape) if y is None or y.is_floating_point() else (y != IGNORED).to(shape)
        total = counted.flatten(1).sum(1).clamp(min=1)
        return counted / total.view(-1, *[1] * (counted.dim() - 1))


class Squared(Loss):
    """The squared error summed over outputs, mean over samples."""

    key = "squared"

    def each(self, outputs: Tensor, y: Tensor) -> Tensor:
        return (outputs - _target(outputs, y)).square().reshape(len(outputs), -1).sum(1)

    def root(self, outputs: Tensor, y: Tensor | None = None) -> Tensor:
        n, outs = len(outputs), outputs[0].numel()
        _few(outs)
        eye = 2**0.5 * torch.eye(outs, dtype=outputs.dtype, device=outputs.device)
        return eye.view(*outputs.shape[1:], outs).expand(n, *outputs.shape[1:], outs)

    def drawn(self, outputs: Tensor, draws: int, generator: torch.Generator, y: Tensor | None = None) -> Tensor:
        n, outs = len(outputs), outputs[0].numel()  # the model is a Gaussian around its outputs, of variance 1/2
        u = _uniform(n, draws * outs, generator).view(n, draws, outs).transpose(0, 1)
        return 2**0.5 * torch.special.ndtri(u).to(outputs).view(draws, *outputs.shape)


class Binary(Loss):
    """Cross-entropy of as many yes/no questions as there are outputs, which are logits: their sum, mean over samples."""

    key = "binary"

    def each(self, outputs: Tensor, y: Tensor) -> Tensor:
        found = F.binary_cross_entropy_with_logits(outputs, _target(outputs, y), reduction="none")
        return found.reshape(len(outputs), -1).sum(1)

    def root(self, outputs: Tensor, y: Tensor | None = None) -> Tensor:
        _few(outputs[0].numel())
        p = torch.sigmoid(outputs).reshape(len(outputs), -1)
        return torch.diag_embed((p * (1 - p)).sqrt()).view(*outputs.shape, -1)

    def drawn(self, outputs: Tensor, draws: int, generator: torch.Generator, y: Tensor | None = None) -> Tensor:
        n, outs = len(outputs), outputs[0].numel()
        p = torch.sigmoid(outputs.detach())
        u = _uniform(n, draws * outs, generator).view(n, draws, outs).transpose(0, 1).to(p).view(draws, *outputs.shape)
        return p - (u < p).to(p)


@dataclass(frozen=True)
class Custom(Loss):
    """Anybody's loss: a function of outputs and targets that gives the mean. Gradient scores read it; curvature does not."""

    function: Callable[[Tensor, Tensor], Tensor]

    key = "custom"

    def __call__(self, outputs: Tensor, y: Tensor) -> Tensor:
        try:
            found = self.function(outputs, y)
        except PrunevizError:
            raise
        except Exception as error:
            said = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
            raise Unsuitable(
                f"The loss that was given stops on outputs {list(outputs.shape)} and targets {list(y.shape)}: {said}. "
                "It is called as loss(outputs, y), and gives the mean over samples."
            ) from error
        if not isinstance(found, Tensor) or found.numel() != 1:
            what = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise Unsuitable(f"A loss gives one number, the mean over samples; this one gives {what}. Add .mean().")
        if outputs.requires_grad and not found.requires_grad:
            raise Unsuitable("The loss that was given has no slope: it goes through .detach(), .item() or numpy.")
        return found.reshape(())

    def each(self, outputs: Tensor, y: Tensor) -> Tensor:
        raise Unsuitable(
            f"Curvature knows the losses {', '.join(LOSSES)}, sample by sample; a function serves gradient scores only."
        )

    def root(self, outputs: Tensor, y: Tensor | None = None) -> Tensor:
        return self.each(outputs, outputs)

    def drawn(self, outputs: Tensor, draws: int, generator: torch.Generator, y: Tensor | None = None) -> Tensor:
        return self.each(outputs, outputs)


def _softmax_root(p: Tensor) -> Tensor:
    """B with diag(p) - p p^T = B B^T: [n, c] -> [n, c, c - 1]."""
    # diag(r) - p r^T with r = sqrt(p) maps r to 0: a reflection that takes r to the first axis leaves a column of
    # zeros there, and one backward pass less
    r = p.sqrt()
    root = torch.diag_embed(r) - p.unsqueeze(2) * r.unsqueeze(1)  # [n, outputs, outputs]
    first, others = root[:, :, :1], root[:, :, 1:]
    return others - first * (r[:, 1:] / (1 + r[:, :1])).unsqueeze(1)


def _few(slopes: int) -> None:
    """Raises Unsuitable where a sample has too many slopes to take one by one."""
    if slopes > MANY:
        raise Unsuitable(
            f"The exact curvature takes {slopes:,} backward passes for these outputs; the limit is {MANY:,}. Draw labels "
            "instead (hessian='fisher', or fisher='sampled'), or read fewer outputs with outputs=."
        )


def _uniform(n: int, each: int, generator: torch.Generator) -> Tensor:
    """Random numbers between 0 and 1, neither included: [n, each], float64."""
    return torch.rand(n, each, generator=generator, dtype=torch.float64).clamp(min=2**-54)


def probability(outputs: Tensor) -> Tensor:
    """A single output [n, 1] as the probability of class 1: [n]. Raises Unsuitable outside 0 to 1."""
    p = outputs[:, 0]
    if bool(((p < 0) | (p > 1)).any()):
        raise Unsuitable(
            "Cross-entropy of a single output reads it as a probability, and this network's lies outside 0 to 1. "
            "End the network with a sigmoid, give it two outputs, or use loss='binary' for a logit, loss='squared' for a number."
        )
    return p


def _target(outputs: Tensor, y: Tensor) -> Tensor:
    """Numbers like the outputs, from those, from [n] for one output, or from class numbers."""
    if y.shape == outputs.shape:
        return y.to(outputs.dtype)
    if outputs.shape[1] == 1:
        return y.to(outputs.dtype).view_as(outputs)
    return F.one_hot(y, outputs.shape[1]).to(outputs.dtype)


def tempered(loss: Loss, temperature: float) -> Callable[[Tensor, Tensor], Tensor]:
    """Cross-entropy of the logits over the temperature; a single output p is a probability of logit log(p / (1 - p)).

    Binary's logits likewise. Squared error has no logits and no temperature.
    """

    def cooled(outputs: Tensor, y: Tensor) -> Tensor:
        if loss.key == BINARY.key or outputs.dim() > 2 or outputs.shape[1] > 1:
            return loss(outputs / temperature, y)
        if bool(((outputs < 0) | (outputs > 1)).any()):
            return loss(outputs, y)  # raises, with the mend
        logits = torch.logit(outputs, eps=torch.finfo(outputs.dtype).eps)
        return loss(torch.sigmoid(logits / temperature), y)

    return cooled if loss.key in (CROSS_ENTROPY.key, BINARY.key) and temperature != 1 else loss


def right(outputs: Tensor, y: Tensor, axis: int = 1) -> Tensor:
    """Which samples are classified correctly: [n] bool; of outputs with positions the share of the counted ones: [n]."""
    if outputs.dim() == 2 and outputs.shape[1] == 1:
        return (outputs[:, 0] > 0.5).long() == y
    labels = y.argmax(axis) if y.is_floating_point() else y
    same = outputs.argmax(axis) == labels
    if outputs.dim() == 2:
        return same
    counted = (labels != IGNORED).flatten(1)
    return (same.flatten(1) & counted).sum(1) / counted.sum(1).clamp(min=1)


CROSS_ENTROPY, SQUARED, BINARY = CrossEntropy(), Squared(), Binary()
LOSSES: Mapping[str, Loss] = MappingProxyType({loss.key: loss for loss in (CROSS_ENTROPY, SQUARED, BINARY)})


def loss_called(key: str) -> Loss:
    """The loss of this name; raises InvalidSetting."""
    if key not in LOSSES:
        raise InvalidSetting(f"A loss is one of {', '.join(LOSSES)}; found {key!r}.")
    return LOSSES[key]

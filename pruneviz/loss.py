"""The two losses of the papers: what training, scores and curvature share.

A network with several outputs gives logits; one with a single output gives a probability. ``y`` holds class numbers
[n], or for squared error also targets [n, outputs].
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor

from pruneviz.errors import InvalidSetting, Unsuitable

TINY = 1e-12  # the least probability a curvature divides by


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
    def root(self, outputs: Tensor) -> Tensor:
        """B with A = B Bᵀ, A the Hessian with respect to the outputs (its expectation under the model): [n, outputs, k]."""

    def slope(self, outputs: Tensor, y: Tensor) -> Tensor:
        """The gradient of each sample's loss with respect to its outputs: [n, outputs]."""
        with torch.enable_grad():
            z = outputs.detach().requires_grad_()
            return torch.autograd.grad(self.each(z, y).sum(), z)[0]

    @abstractmethod
    def drawn(self, outputs: Tensor, draws: int, generator: torch.Generator) -> Tensor:
        """The same gradient for labels drawn from the model; the mean of its outer product is A: [draws, n, outputs].

        Samples take their random numbers one after another, so that it does not matter how they are batched.
        """


class CrossEntropy(Loss):
    """Mean cross-entropy in nats: of the softmax of several logits, or of one probability."""

    key = "cross-entropy"

    def each(self, outputs: Tensor, y: Tensor) -> Tensor:
        if outputs.shape[1] > 1:
            return F.cross_entropy(outputs, y, reduction="none")
        p = _probability(outputs)
        return F.binary_cross_entropy(p, y.to(p.dtype), reduction="none")

    def root(self, outputs: Tensor) -> Tensor:
        if outputs.shape[1] > 1:
            # diag(r) - p r^T with r = sqrt(p) maps r to 0: a reflection that takes r to the first axis leaves a column of
            # zeros there, and one backward pass less
            p = outputs.softmax(1)
            r = p.sqrt()
            root = torch.diag_embed(r) - p.unsqueeze(2) * r.unsqueeze(1)  # [n, outputs, outputs]
            first, others = root[:, :, :1], root[:, :, 1:]
            return others - first * (r[:, 1:] / (1 + r[:, :1])).unsqueeze(1)
        p = _probability(outputs)
        return (p * (1 - p)).clamp(min=TINY).rsqrt().view(-1, 1, 1)

    def drawn(self, outputs: Tensor, draws: int, generator: torch.Generator) -> Tensor:
        p = outputs.softmax(1) if outputs.shape[1] > 1 else torch.stack([1 - (q := _probability(outputs)), q], 1)
        below = p.double().cumsum(1) if p.device.type != "mps" else p.cumsum(1)  # [n, classes]
        u = _uniform(len(p), draws, generator).to(below) * below[:, -1:]
        labels = torch.searchsorted(below, u, right=True).clamp(max=p.shape[1] - 1)  # [n, draws]
        return torch.stack([self.slope(outputs, label) for label in labels.T])


class Squared(Loss):
    """The squared error summed over outputs, mean over samples."""

    key = "squared"

    def each(self, outputs: Tensor, y: Tensor) -> Tensor:
        return (outputs - _target(outputs, y)).square().sum(1)

    def root(self, outputs: Tensor) -> Tensor:
        n, outs = outputs.shape
        return 2**0.5 * torch.eye(outs, dtype=outputs.dtype, device=outputs.device).expand(n, outs, outs)

    def drawn(self, outputs: Tensor, draws: int, generator: torch.Generator) -> Tensor:
        n, outs = outputs.shape  # the model is a Gaussian around its outputs, of variance 1/2
        u = _uniform(n, draws * outs, generator).view(n, draws, outs).transpose(0, 1)
        return 2**0.5 * torch.special.ndtri(u).to(outputs)


def _uniform(n: int, each: int, generator: torch.Generator) -> Tensor:
    """Random numbers between 0 and 1, neither included: [n, each], float64."""
    return torch.rand(n, each, generator=generator, dtype=torch.float64).clamp(min=2**-54)


def _probability(outputs: Tensor) -> Tensor:
    p = outputs[:, 0]
    if bool(((p < 0) | (p > 1)).any()):
        raise Unsuitable(
            "Cross-entropy of a single output reads it as a probability, and this network's lies outside 0 to 1. "
            "End the network with a sigmoid, give it two outputs, or use loss=squared where the method has it."
        )
    return p


def _target(outputs: Tensor, y: Tensor) -> Tensor:
    if y.dim() == 2:
        return y.to(outputs.dtype)
    if outputs.shape[1] == 1:
        return y.to(outputs.dtype)[:, None]
    return F.one_hot(y, outputs.shape[1]).to(outputs.dtype)


def tempered(loss: Loss, temperature: float) -> Callable[[Tensor, Tensor], Tensor]:
    """Cross-entropy of the logits over the temperature; a single output p is a probability of logit log(p / (1 - p)).

    Squared error has no logits and no temperature.
    """

    def cooled(outputs: Tensor, y: Tensor) -> Tensor:
        if outputs.shape[1] > 1:
            return loss(outputs / temperature, y)
        if bool(((outputs < 0) | (outputs > 1)).any()):
            return loss(outputs, y)  # raises, with the mend
        logits = torch.logit(outputs, eps=torch.finfo(outputs.dtype).eps)
        return loss(torch.sigmoid(logits / temperature), y)

    return cooled if loss.key == CROSS_ENTROPY.key and temperature != 1 else loss


def right(outputs: Tensor, y: Tensor) -> Tensor:
    """Which samples are classified correctly: [n] bool."""
    return (outputs.argmax(1) if outputs.shape[1] > 1 else (outputs[:, 0] > 0.5).long()) == y


CROSS_ENTROPY, SQUARED = CrossEntropy(), Squared()
LOSSES: Mapping[str, Loss] = MappingProxyType({loss.key: loss for loss in (CROSS_ENTROPY, SQUARED)})


def loss_called(key: str) -> Loss:
    """The loss of this name; raises InvalidSetting."""
    if key not in LOSSES:
        raise InvalidSetting(f"A loss is one of {', '.join(LOSSES)}; found {key!r}.")
    return LOSSES[key]

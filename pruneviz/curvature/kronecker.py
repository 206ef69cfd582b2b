"""Kronecker factors of the Fisher (K-FAC)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pruneviz.curvature.gradients import untouched
from pruneviz.errors import UnsupportedLayer


@dataclass(frozen=True)
class KroneckerFactors:
    r"""The pair of one layer, :math:`F_\ell \approx S \otimes A`. Shapes: ``A [in, in]``, ``S [out, out]``, symmetric."""

    A: Tensor
    S: Tensor

    def eigh(self) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """(eigenvalues, eigenvectors) of A and of S; eigenvalues ascending, clamped at 0."""
        (a, qa), (s, qs) = torch.linalg.eigh(self.A), torch.linalg.eigh(self.S)
        return (a.clamp(min=0), qa), (s.clamp(min=0), qs)

    def inverse(self, damping: float) -> KroneckerFactors:
        """Inverses of both factors, each damped by ``damping`` times its own mean eigenvalue."""

        def inverted(matrix: Tensor) -> Tensor:
            ridge = (
                damping * matrix.diagonal().mean() * torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)
            )
            return torch.cholesky_inverse(torch.linalg.cholesky(matrix + ridge))

        return KroneckerFactors(inverted(self.A), inverted(self.S))

    def dense(self) -> Tensor:
        """``torch.kron(S, A)``, in the order of ``weight.flatten()``: [out * in, out * in]."""
        return torch.kron(self.S, self.A)


class _Recorder:
    """Inputs and outputs of every Linear and Conv2d in one forward pass, and their factors."""

    def __init__(self, model: nn.Module):
        self.layers = {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)}
        self.inputs: dict[str, Tensor] = {}
        self.outputs: dict[str, Tensor] = {}

    def __enter__(self) -> _Recorder:
        self.handles = [m.register_forward_hook(self._hook(n)) for n, m in self.layers.items()]
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self.handles:
            handle.remove()

    def _hook(self, name: str) -> Callable:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if name in self.outputs:
                raise UnsupportedLayer(
                    f"Layer {name!r} is used twice in one forward pass: its Kronecker factors would be wrong. "
                    "Give each use its own layer, or leave the spectra probe out."
                )
            if isinstance(module, nn.Conv2d) and module.groups != 1:
                raise UnsupportedLayer(
                    f"Layer {name!r} is a convolution with {module.groups} groups; Kronecker factors are computed for "
                    "groups=1 only. Leave the spectra probe out for this network."
                )
            self.inputs[name], self.outputs[name] = inputs[0].detach(), output

        return hook

    def clear(self) -> None:
        self.inputs.clear()
        self.outputs.clear()

    def rows(self, name: str) -> Tensor:
        """What the layer multiplies with its weight: [samples, positions, in]."""
        layer, x = self.layers[name], self.inputs[name]
        if isinstance(layer, nn.Conv2d):
            if layer.padding_mode != "zeros" or isinstance(layer.padding, str):
                raise UnsupportedLayer(f"Layer {name!r}: only zero padding given in numbers is supported.")
            return F.unfold(x, layer.kernel_size, layer.dilation, layer.padding, layer.stride).transpose(1, 2)
        return x.reshape(len(x), -1, x.shape[-1])

    def slopes(self, name: str, gradient: Tensor) -> Tensor:
        """The gradient at the layer's output: [samples, positions, out]."""
        if isinstance(self.layers[name], nn.Conv2d):
            return gradient.flatten(2).transpose(1, 2)
        return gradient.reshape(len(gradient), -1, gradient.shape[-1])


def kfac(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    fisher: Literal["sampled", "exact", "empirical"] = "sampled",
    samples: int = 1,
    generator: torch.Generator,
    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
) -> dict[str, KroneckerFactors]:
    r"""Kronecker factors of the Fisher, one pair per Linear or Conv2d layer.

    :math:`F_\ell \approx S_\ell \otimes A_\ell`. Linear: :math:`A = E[a a^\top]`, :math:`S = E[g g^\top]`, ``g`` the
    gradient of one sample's loss at the layer's output (Martens & Grosse 2015, section 3). Convolution, with patches
    :math:`x_l` at locations :math:`l \in I`: :math:`A = \sum_l E[x_l x_l^\top]`, :math:`S = |I|^{-1} \sum_l E[g_l g_l^\top]`
    (Grosse & Martens 2016). Weights only, no bias column; undamped; mean over samples of per-sample quantities, in
    evaluation mode. ``fisher``: labels drawn from the model (``samples`` times each), all labels weighted by their
    probability, or the labels given.

    Returns: module name -> factors, ``A [in, in]``, ``S [out, out]`` (``in`` counts the kernel's entries).
    Raises:  UnsupportedLayer, if a layer is used twice in one forward pass or is a grouped convolution.
    """
    A: dict[str, Tensor] = {}
    S: dict[str, Tensor] = {}
    seen = 0

    def add(into: dict[str, Tensor], name: str, matrix: Tensor) -> None:
        into[name] = into[name] + matrix if name in into else matrix

    with untouched(model), _Recorder(model) as recorder:
        for x, y in batches:
            recorder.clear()
            logits = model(x)
            seen += len(x)
            names = list(recorder.outputs)
            for name in names:
                rows = recorder.rows(name).flatten(0, 1)  # [samples * positions, in]
                add(A, name, rows.T @ rows)
            for weight, labels in _labels(logits, y, fisher, samples, generator):
                total = (weight * _per_sample(loss, logits, labels)).sum()
                found = torch.autograd.grad(total, [recorder.outputs[n] for n in names], retain_graph=True)
                for name, gradient in zip(names, found, strict=True):
                    slopes = recorder.slopes(name, gradient)  # [samples, positions, out]
                    positions, flat = slopes.shape[1], slopes.flatten(0, 1)
                    add(S, name, flat.T @ flat / positions)
            del logits
    draws = samples if fisher == "sampled" else 1
    return {name: KroneckerFactors(A[name] / seen, S[name] / (seen * draws)) for name in A}


def _per_sample(loss: Callable[[Tensor, Tensor], Tensor], logits: Tensor, labels: Tensor) -> Tensor:
    """The loss of each sample, [samples]."""
    if loss is F.cross_entropy:
        return F.cross_entropy(logits, labels, reduction="none")
    return torch.stack([loss(z[None], t[None]) for z, t in zip(logits, labels, strict=True)])


def _labels(
    logits: Tensor, y: Tensor, fisher: str, samples: int, generator: torch.Generator
) -> Iterable[tuple[Tensor, Tensor]]:
    """Pairs (square root of the weight [samples], labels [samples]) whose gradients' outer products add up to the Fisher."""
    one = torch.ones(len(logits), dtype=logits.dtype, device=logits.device)
    if fisher == "empirical":
        yield one, y
        return
    p = logits.detach().softmax(1)
    if fisher == "exact":
        for c in range(p.shape[1]):
            yield p[:, c].sqrt(), torch.full_like(y, c)
        return
    drawn = torch.multinomial(p.cpu(), samples, replacement=True, generator=generator).to(y.device)  # [samples, draws]
    for k in range(samples):
        yield one, drawn[:, k]

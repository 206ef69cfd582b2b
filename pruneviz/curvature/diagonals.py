"""The diagonal of the loss's Hessian and of its stand-ins."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pruneviz.basics.errors import Unsuitable
from pruneviz.curvature.hvp import differentiable
from pruneviz.curvature.layers import Gatherer, Recorder
from pruneviz.curvature.products import Product, inputs_squares, rows_of, shares_products, slopes_of, squared_gradients
from pruneviz.curvature.statistic import Diagonal, InputNorms
from pruneviz.curvature.uses import Use
from pruneviz.door.loss import Loss
from pruneviz.door.network import Network
from pruneviz.door.parameters import named

ENTRIES = 20_000  # of weights whose exact second derivative takes a backward pass each


class Squares(Gatherer):
    """A diagonal in the making, fed with portions of samples by the sweep."""

    def __init__(self, wanted: Diagonal, model: nn.Module):
        self._exact, self._embeddings, self._model = wanted.kind == "exact", wanted.embeddings, model
        self._total = {name: torch.zeros_like(p) for name, p in named(model).items()}
        self._reached: set[str] = set()
        self._curved: dict[str, Tensor] = {}
        self._waiting: dict[str, list[Tensor]] = {}

    def direct(self, product: Product) -> bool:
        return not self._exact or product.groups == 1

    def single(self, network: Network) -> tuple[str, ...]:
        return () if self._exact else self._wanted(network)

    def _wanted(self, network: Network) -> tuple[str, ...]:
        counted = [w for w in network.counted(embeddings=self._embeddings).values() if w.slope]
        return tuple(dict.fromkeys(name for w in counted for name in (w.name, *w.biases)))

    def outputs(self, recorder: Recorder, outputs: Tensor, y: Tensor, loss: Loss) -> None:
        if self._exact:
            with differentiable(self._model):
                self._second(recorder, outputs, y, loss)

    def _second(self, recorder: Recorder, outputs: Tensor, y: Tensor, loss: Loss) -> None:
        self._curved = _curved(recorder, outputs, y, loss)
        for name, slope in self._curved.items():
            if recorder.product(name).groups == 1:
                self._add(recorder, name, *_exact(recorder.use(name), slope))
        for name, value in self._apart(recorder, outputs, y, loss).items():
            self._keep(name, value)

    def slope(self, recorder: Recorder, name: str, slope: Tensor, of: int) -> None:
        if name in self._curved:
            return
        self._waiting.setdefault(name, []).append(slope)
        if not shares_products(recorder.product(name), recorder.use(name).positions, of):
            self.slopes_end(recorder, name)

    def slopes_end(self, recorder: Recorder, name: str) -> None:
        slopes = self._waiting.pop(name, [])
        if slopes:
            self._add(recorder, name, *squared_gradients(recorder.product(name), recorder.use(name).input(), slopes))

    def gradients(self, sample: int, gradients: dict[str, Tensor]) -> None:
        for name, several in gradients.items():
            self._keep(name, several.square().sum(0))

    def found(self, seen: int) -> dict[str, Tensor]:
        return {name: self._total[name] / seen for name in self._total if name in self._reached}

    def _add(self, recorder: Recorder, name: str, kernel: Tensor, bias: Tensor) -> None:
        self._keep(name, kernel)
        for own in recorder.network.weights[name].biases:
            self._keep(own, bias)

    def _keep(self, name: str, value: Tensor) -> None:
        self._total[name] += value.view_as(self._total[name])
        self._reached.add(name)

    def _apart(self, recorder: Recorder, outputs: Tensor, y: Tensor, loss: Loss) -> dict[str, Tensor]:
        """The exact diagonal of what no product gives, entry by entry. Raises Unsuitable where they are too many."""
        had = {n for n in recorder if self.direct(recorder.product(n))}
        had |= {bias for n in had for bias in recorder.network.weights[n].biases}
        names = [n for n in self._wanted(recorder.network) if n not in had]
        params = named(self._model)
        if (count := sum(params[n].numel() for n in names)) > ENTRIES:
            raise Unsuitable(
                f"The exact Hessian of {names[0]!r} and others takes a backward pass for each of {count:,} entries; the limit "
                f"is {ENTRIES:,}. Use hessian=ggn, which takes a pass for each output, or leave them alone with skip=."
            )
        if not names:
            return {}
        total = loss.each(outputs, y).sum()
        slopes = torch.autograd.grad(total, [params[n] for n in names], create_graph=True, allow_unused=True)
        return {n: _entries(params[n], slope) for n, slope in zip(names, slopes, strict=True) if slope is not None}


class Norms(Gatherer):
    """Mean squares of the layers' inputs in the making."""

    def __init__(self, wanted: InputNorms, model: nn.Module):
        self._total: dict[str, Tensor] = {}

    def inputs(self, recorder: Recorder, name: str, x: Tensor) -> None:
        layer = recorder.network.weights[name].layer
        self._total[layer] = self._total.get(layer, 0) + inputs_squares(recorder.product(name), x)

    def found(self, seen: int) -> dict[str, Tensor]:
        return {name: total / seen for name, total in self._total.items()}


def _curved(recorder: Recorder, outputs: Tensor, y: Tensor, loss: Loss) -> dict[str, Tensor]:
    """Layers whose Hessian is more than its Gauss-Newton part, with the slope at their output (its graph kept).

    Compared along one random direction at each layer's output: between there and the loss, piecewise linear activations
    and max-pooling leave the two equal, and Gauss-Newton costs far less.
    """
    names = list(recorder)
    if not names:
        return {}
    at = [recorder.use(n).edge for n in names]
    slopes = torch.autograd.grad(loss.each(outputs, y).sum(), at, create_graph=True, allow_unused=True)
    free = torch.zeros_like(outputs, requires_grad=True)
    backward = torch.autograd.grad(outputs, at, free, create_graph=True, allow_unused=True)
    root = loss.root(outputs.detach(), y)
    root = root.reshape(len(root), -1, root.shape[-1])  # [n, outputs, k]
    draws = torch.Generator().manual_seed(0)
    found = {}
    for name, z, slope, back in zip(names, at, slopes, backward, strict=True):
        if slope is None or back is None or not slope.requires_grad:
            continue
        v = torch.randn(recorder.use(name).shape, generator=draws, dtype=torch.float64).to(outputs)
        (hessian,) = torch.autograd.grad(slope, z, v, retain_graph=True, allow_unused=True)
        (forward,) = torch.autograd.grad(back, free, v, retain_graph=True)  # J v: [n, outputs]
        weighed = torch.einsum("nck,ndk,nd->nc", root, root, forward.reshape(len(root), -1)).view_as(outputs)
        (gauss_newton,) = torch.autograd.grad(outputs, z, weighed, retain_graph=True)
        hessian = torch.zeros_like(gauss_newton) if hessian is None else hessian
        close = 1e3 * torch.finfo(outputs.dtype).eps * max(float(hessian.norm()), float(gauss_newton.norm()))
        if float((hessian - gauss_newton).norm()) > close:
            found[name] = slope
    return found


def _entries(parameter: Tensor, slope: Tensor) -> Tensor:
    """The second derivative by each entry alone, several at a time: like the parameter."""
    found = torch.zeros_like(parameter).flatten()
    if not slope.requires_grad:
        return found.view_as(parameter)
    for some in torch.arange(len(found), device=found.device).split(64):
        one = F.one_hot(some, len(found)).to(slope).view(-1, *slope.shape)
        options: Any = {"retain_graph": True, "allow_unused": True}
        try:
            (rows,) = torch.autograd.grad(slope, parameter, one, is_grads_batched=True, **options)
        except RuntimeError:
            each = [torch.autograd.grad(slope, parameter, v, **options)[0] for v in one]
            rows = None if each[0] is None else torch.stack(each)
        if rows is not None:
            found[some] = rows.flatten(1)[torch.arange(len(some), device=some.device), some]
    return found.view_as(parameter)


def _exact(use: Use, slope: Tensor) -> tuple[Tensor, Tensor]:
    """The kernel's diagonal [out, in] and the bias's [out], from Hessian-vector products at the layer's output z.

    z is linear in the layer's weights, so that with x(l) the row a weight meets at position l,
    d2L/dw2 = sum over l, l' of x(l) x(l') d2L/dz(l)dz(l'). One product gives a row of every sample's Hessian at once.
    """
    layer = use.product
    rows = rows_of(layer, use.input())
    x = torch.cat([rows, torch.ones_like(rows[:, :, :1])], 2)  # [n, l, in + 1], the last for the bias
    positions, out = use.positions, len(layer.weight)
    found = x.new_zeros(out, x.shape[2])
    shape = use.slope(x.new_zeros(use.shape)).shape

    def product(channel: int, direction: Tensor) -> Tensor:
        """The Hessian at z times a direction [n, l] in one output channel, read in that channel: [n, l]."""
        v = x.new_zeros(shape)  # contiguous, so that the next line writes into it
        slopes_of(layer, v)[:, :, channel] = direction
        (hv,) = torch.autograd.grad(slope, use.edge, use.back(v), retain_graph=True, allow_unused=True)
        return torch.zeros_like(direction) if hv is None else slopes_of(layer, use.slope(hv))[:, :, channel]

    for o in range(out):
        if positions > x.shape[2]:  # fewer weights than positions: one product a weight
            for j, pattern in enumerate(x.unbind(2)):
                found[o, j] = (product(o, pattern) * pattern).sum()
        else:
            for at in range(positions):
                one = torch.zeros_like(x[:, :, 0])
                one[:, at] = 1
                found[o] += (torch.einsum("nl,nlj->nj", product(o, one), x) * x[:, at]).sum(0)
    return found[:, :-1], found[:, -1]

"""The diagonal of the loss's Hessian and of its stand-ins."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from pruneviz.curvature.layers import Gatherer, Recorder
from pruneviz.curvature.products import inputs_squares, rows_of, shares_products, slopes_of, squared_gradients
from pruneviz.errors import InvalidSetting
from pruneviz.loss import CROSS_ENTROPY, Loss
from pruneviz.statistic import Diagonal, DiagonalKind, InputNorms

KINDS = ("ggn", "exact", "fisher", "empirical")


def diagonal(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    kind: DiagonalKind = "ggn",
    loss: Loss = CROSS_ENTROPY,
    generator: torch.Generator | None = None,
) -> dict[str, Tensor]:
    r"""Diagonal of the mean loss's curvature for every weight and bias of Linear and Conv2d layers.

    ``kind`` "exact": :math:`\partial^2 L / \partial \theta_q^2`, signed. "ggn": :math:`E[J^\top A J]_{qq}`, A the loss's
    Hessian at the outputs (for softmax and squared error the Fisher's). "fisher": the mean over samples of the squared
    gradient for one label drawn from the model. "empirical": the same for the labels given. All per sample: the mean of
    squares, never the square of a mini-batch's mean. Evaluation mode. (LeCun et al. 1990, section 2; Martens 2020,
    sections 5 and 8.)

    Returns: parameter name -> tensor like it. Raises UnsupportedLayer (a layer used twice, grouped convolutions).
    """
    from pruneviz.curvature.sweep import sweep

    if kind not in KINDS:
        raise InvalidSetting(f"A diagonal is 'ggn', 'exact', 'fisher' or 'empirical'; found {kind!r}.")
    wanted = Diagonal(kind)
    return sweep(model, batches, (wanted,), loss=loss, generator=generator)[wanted]


class Squares(Gatherer):
    """A diagonal in the making, fed with portions of samples by the sweep."""

    def __init__(self, wanted: Diagonal, model: nn.Module):
        self._exact = wanted.kind == "exact"
        self._total = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
        self._reached: set[str] = set()
        self._curved: dict[str, Tensor] = {}
        self._waiting: dict[str, list[Tensor]] = {}

    def outputs(self, recorder: Recorder, outputs: Tensor, y: Tensor, loss: Loss) -> None:
        if self._exact:
            self._curved = _curved(recorder, outputs, loss.each(outputs, y).sum(), loss)
            for name, slope in self._curved.items():
                self._add(name, *_exact(recorder, name, slope))

    def slope(self, recorder: Recorder, name: str, slope: Tensor, of: int) -> None:
        if name in self._curved:
            return
        self._waiting.setdefault(name, []).append(slope)
        if not shares_products(recorder.layers[name], recorder.positions[name], of):
            self.slopes_end(recorder, name)

    def slopes_end(self, recorder: Recorder, name: str) -> None:
        slopes = self._waiting.pop(name, [])
        if slopes:
            self._add(name, *squared_gradients(recorder.layers[name], recorder.input(name), slopes))

    def found(self, seen: int) -> dict[str, Tensor]:
        return {name: self._total[name] / seen for name in self._total if name in self._reached}

    def _add(self, layer: str, kernel: Tensor, bias: Tensor) -> None:
        for kind, value in (("weight", kernel), ("bias", bias)):
            name = f"{layer}.{kind}" if layer else kind
            if name in self._total:
                self._total[name] += value.view_as(self._total[name])
                self._reached.add(name)


class Norms(Gatherer):
    """Mean squares of the layers' inputs in the making."""

    def __init__(self, wanted: InputNorms, model: nn.Module):
        self._total: dict[str, Tensor] = {}

    def inputs(self, recorder: Recorder, name: str, x: Tensor) -> None:
        self._total[name] = self._total.get(name, 0) + inputs_squares(recorder.layers[name], x)

    def found(self, seen: int) -> dict[str, Tensor]:
        return {name: total / seen for name, total in self._total.items()}


def _curved(recorder: Recorder, outputs: Tensor, total: Tensor, loss: Loss) -> dict[str, Tensor]:
    """Layers whose Hessian is more than its Gauss-Newton part, with the slope at their output (its graph kept).

    Compared along one random direction at each layer's output: between there and the loss, piecewise linear activations
    and max-pooling leave the two equal, and Gauss-Newton costs far less.
    """
    names = list(recorder)
    at = [recorder.edge(n) for n in names]
    slopes = torch.autograd.grad(total, at, create_graph=True, allow_unused=True)
    free = torch.zeros_like(outputs, requires_grad=True)
    backward = torch.autograd.grad(outputs, at, free, create_graph=True, allow_unused=True)
    root = loss.root(outputs.detach())  # [n, outputs, k]
    draws = torch.Generator().manual_seed(0)
    found = {}
    for name, z, slope, back in zip(names, at, slopes, backward, strict=True):
        if slope is None or back is None or not slope.requires_grad:
            continue
        v = torch.randn(recorder.shape(name), generator=draws, dtype=torch.float64).to(outputs)
        (hessian,) = torch.autograd.grad(slope, z, v, retain_graph=True, allow_unused=True)
        (forward,) = torch.autograd.grad(back, free, v, retain_graph=True)  # J v: [n, outputs]
        weighed = torch.einsum("nck,ndk,nd->nc", root, root, forward)
        (gauss_newton,) = torch.autograd.grad(outputs, z, weighed, retain_graph=True)
        hessian = torch.zeros_like(gauss_newton) if hessian is None else hessian
        close = 1e3 * torch.finfo(outputs.dtype).eps * max(float(hessian.norm()), float(gauss_newton.norm()))
        if float((hessian - gauss_newton).norm()) > close:
            found[name] = slope
    return found


def _exact(recorder: Recorder, name: str, slope: Tensor) -> tuple[Tensor, Tensor]:
    """The kernel's diagonal [out, in] and the bias's [out], from Hessian-vector products at the layer's output z.

    z is linear in the layer's weights, so that with x(l) the row a weight meets at position l,
    d2L/dw2 = sum over l, l' of x(l) x(l') d2L/dz(l)dz(l'). One product gives a row of every sample's Hessian at once.
    """
    layer, edge, shape = recorder.layers[name], recorder.edge(name), recorder.shape(name)
    rows = rows_of(layer, recorder.input(name))
    x = torch.cat([rows, torch.ones_like(rows[:, :, :1])], 2)  # [n, l, in + 1], the last for the bias
    positions, out = recorder.positions[name], len(layer.weight)
    found = x.new_zeros(out, x.shape[2])

    def product(channel: int, direction: Tensor) -> Tensor:
        """The Hessian at z times a direction [n, l] in one output channel, read in that channel: [n, l]."""
        v = x.new_zeros(shape)  # contiguous, so that the next line writes into it
        slopes_of(layer, v)[:, :, channel] = direction
        (hv,) = torch.autograd.grad(slope, edge, v, retain_graph=True, allow_unused=True)
        return torch.zeros_like(direction) if hv is None else slopes_of(layer, hv)[:, :, channel]

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

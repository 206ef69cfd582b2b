"""The diagonal of the loss's Hessian and of its stand-ins."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from pruneviz.curvature.gradients import untouched
from pruneviz.curvature.kronecker import cotangents
from pruneviz.curvature.layers import Recorder
from pruneviz.errors import InvalidSetting
from pruneviz.loss import CROSS_ENTROPY, Loss

Kind = Literal["ggn", "exact", "fisher", "empirical"]
_FISHER: Mapping[str, str] = {"ggn": "exact", "exact": "exact", "fisher": "sampled", "empirical": "empirical"}
ENTRIES = 2**24  # of one temporary [samples, out, in]


def diagonal(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    kind: Kind = "ggn",
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
    if kind not in _FISHER:
        raise InvalidSetting(f"A diagonal is 'ggn', 'exact', 'fisher' or 'empirical'; found {kind!r}.")
    total = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    found: set[str] = set()
    seen = 0

    def add(layer: str, kernel: Tensor, bias: Tensor) -> None:
        for kind_, value in (("weight", kernel), ("bias", bias)):
            name = f"{layer}.{kind_}" if layer else kind_
            if name in total:
                total[name] += value.view_as(total[name])
                found.add(name)

    with untouched(model), Recorder(model) as recorder:
        for x, y in batches:
            recorder.clear()
            outputs = model(x)
            seen += len(x)
            squares: dict[str, Tensor] = {}
            curved = _curved(recorder, outputs, loss.each(outputs, y).sum(), loss) if kind == "exact" else {}
            for layer, slope in curved.items():
                add(layer, *_exact(recorder, layer, slope))
            for slope in cotangents(loss, outputs, y, _FISHER[kind], 1, generator):
                for layer, g in recorder.gradients(
                    slope, outputs, [n for n in recorder.outputs if n not in curved]
                ).items():
                    if g.shape[1] == 1:  # one position: (g aT)^2 = g^2 (a^2)T, so the sum over slopes comes first
                        squares[layer] = squares.get(layer, 0) + g[:, 0].square()
                    else:
                        add(layer, _summed_squares(g, recorder.rows(layer)), g.sum(1).square().sum(0))
            for layer, s in squares.items():  # [samples, out]
                add(layer, s.T @ recorder.rows(layer)[:, 0].square(), s.sum(0))
    return {name: total[name] / seen for name in total if name in found}


def _summed_squares(slopes: Tensor, rows: Tensor) -> Tensor:
    """Squared per-sample gradients, summed: slopes [n, l, out], rows [n, l, in] -> [out, in]."""
    step = max(1, ENTRIES // (slopes.shape[2] * rows.shape[2]))
    parts = (
        torch.einsum("nlo,nli->noi", slopes[i : i + step], rows[i : i + step]).square().sum(0)
        for i in range(0, len(rows), step)
    )
    return torch.stack(list(parts)).sum(0)


def _curved(recorder: Recorder, outputs: Tensor, total: Tensor, loss: Loss) -> dict[str, Tensor]:
    """Layers whose Hessian is more than its Gauss-Newton part, with the slope at their output (its graph kept).

    Compared along one random direction at each layer's output: between there and the loss, piecewise linear activations
    and max-pooling leave the two equal, and Gauss-Newton costs far less.
    """
    names = list(recorder.outputs)
    at = [recorder.outputs[n] for n in names]
    slopes = torch.autograd.grad(total, at, create_graph=True, allow_unused=True)
    free = torch.zeros_like(outputs, requires_grad=True)
    backward = torch.autograd.grad(outputs, at, free, create_graph=True, allow_unused=True)
    root = loss.root(outputs.detach())  # [n, outputs, k]
    draws = torch.Generator().manual_seed(0)
    found = {}
    for name, z, slope, back in zip(names, at, slopes, backward, strict=True):
        if slope is None or back is None or not slope.requires_grad:
            continue
        v = torch.randn(z.shape, generator=draws, dtype=torch.float64).to(z)
        (hessian,) = torch.autograd.grad(slope, z, v, retain_graph=True, allow_unused=True)
        (forward,) = torch.autograd.grad(back, free, v, retain_graph=True)  # J v: [n, outputs]
        weighed = torch.einsum("nck,ndk,nd->nc", root, root, forward)
        (gauss_newton,) = torch.autograd.grad(outputs, z, weighed, retain_graph=True)
        hessian = torch.zeros_like(z) if hessian is None else hessian
        close = 1e3 * torch.finfo(z.dtype).eps * max(float(hessian.norm()), float(gauss_newton.norm()))
        if float((hessian - gauss_newton).norm()) > close:
            found[name] = slope
    return found


def _exact(recorder: Recorder, name: str, slope: Tensor) -> tuple[Tensor, Tensor]:
    """The kernel's diagonal [out, in] and the bias's [out], from Hessian-vector products at the layer's output z.

    z is linear in the layer's weights, so that with x(l) the row a weight meets at position l,
    d2L/dw2 = sum over l, l' of x(l) x(l') d2L/dz(l)dz(l'). One product gives a row of every sample's Hessian at once.
    """
    z, rows = recorder.outputs[name], recorder.rows(name)
    x = torch.cat([rows, torch.ones_like(rows[:, :, :1])], 2)  # [n, l, in + 1], the last for the bias
    positions, out = recorder.slopes(name, z).shape[1:]
    found = torch.zeros(out, x.shape[2], dtype=z.dtype, device=z.device)

    def product(channel: int, direction: Tensor) -> Tensor:
        """The Hessian at z times a direction [n, l] in one output channel, read in that channel: [n, l]."""
        v = torch.zeros(z.shape, dtype=z.dtype, device=z.device)  # contiguous, so that the next line writes into it
        recorder.slopes(name, v)[:, :, channel] = direction
        (hv,) = torch.autograd.grad(slope, z, v, retain_graph=True, allow_unused=True)
        return torch.zeros_like(direction) if hv is None else recorder.slopes(name, hv)[:, :, channel]

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

"""Singular values of the layers' Jacobians."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pruneviz.curvature.gradients import untouched
from pruneviz.curvature.products import gram
from pruneviz.errors import InvalidSetting

_ACTIVATIONS = frozenset(
    {
        F.relu, F.relu_, torch.relu, torch.relu_, torch.tanh, F.tanh, torch.sigmoid, F.sigmoid, F.leaky_relu, F.elu, F.gelu,
        F.silu, F.selu, F.softplus, F.hardtanh, F.relu6, F.mish, F.celu, F.hardswish, F.hardsigmoid, F.logsigmoid,
        F.softsign, F.tanhshrink, Tensor.relu, Tensor.tanh, Tensor.sigmoid, Tensor.relu_, Tensor.tanh_, Tensor.sigmoid_,
    }
)  # fmt: skip
_NORMALISATIONS = frozenset({F.batch_norm, torch.batch_norm, F.dropout, torch.dropout})


class _Watcher(TorchFunctionMode):
    """Follows each layer's output to the activation that reads it, whether a module or a plain function calls it."""

    def __init__(self):
        super().__init__()
        self.owner: dict[int, str] = {}
        self.alive: list[Tensor] = []  # so that no id is used twice
        self.slopes: dict[str, Tensor] = {}

    def own(self, name: str, output: Tensor) -> None:
        self.owner[id(output)] = name
        self.alive.append(output)

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        first = args[0] if args else kwargs.get("input")
        name = self.owner.get(id(first)) if isinstance(first, Tensor) else None
        if name is None or func not in _ACTIVATIONS | _NORMALISATIONS:
            return func(*args, **kwargs)
        assert isinstance(first, Tensor)
        if func in _ACTIVATIONS and name not in self.slopes:
            with torch.enable_grad():
                z = first.detach().clone().requires_grad_()
                out = func(z * 1, *args[1:], **{k: v for k, v in kwargs.items() if k != "input"})
                (self.slopes[name],) = torch.autograd.grad(out.sum(), z)
        result = func(*args, **kwargs)
        if func in _NORMALISATIONS:
            self.own(name, result)
        return result


LARGEST = 4096  # rows and columns of a convolution's operator that is decomposed exactly
LANCZOS = 32  # singular values of a larger one


def jacobian_singular_values(
    model: nn.Module, x: Tensor, *, conv: Literal["kernel", "operator"] = "kernel"
) -> dict[str, Tensor]:
    r"""Singular values of every layer's Jacobian, in forward order, descending (Lee et al. 2020, section 4).

    Linear: of :math:`J = D W` at each sample, ``D`` the derivative of the activation that follows (identity where none
    does): [samples, min(out, in)]. Conv2d, ``conv="kernel"``: of the kernel matrix [out, in k k] (with groups, of the block
    diagonal of theirs), which the paper's loss uses: [1, min]. ``conv="operator"``: of D times the map from input image to
    output image itself: [samples, min(pixels)]; where it has more than 4,096 rows or columns, the largest 32 by Lanczos'
    method: [samples, 32]. Exact values go through W Wᵀ on the smaller side in float64: small ones are right to about 1e-8
    of the largest. Raises: InvalidSetting.
    """
    if conv not in ("kernel", "operator"):
        raise InvalidSetting(f"conv is 'kernel' or 'operator'; found {conv!r}.")
    layers = {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)}
    inputs: dict[str, Tensor] = {}
    outputs: dict[str, Tensor] = {}
    with untouched(model), torch.no_grad(), _Watcher() as watcher:

        def hook(name: str) -> Callable:
            def record(module: nn.Module, inputs_: Any, output: Tensor) -> None:
                inputs[name], outputs[name] = inputs_[0], output
                watcher.own(name, output)

            return record

        handles = [m.register_forward_hook(hook(n)) for n, m in layers.items()]
        try:
            model(x)
        finally:
            for handle in handles:
                handle.remove()
    found = {}
    for name in outputs:
        layer, weight = layers[name], layers[name].weight.detach()
        slope = watcher.slopes.get(name, torch.ones_like(outputs[name])).detach()
        if isinstance(layer, nn.Linear):
            found[name] = _scaled_rows(weight, slope.reshape(-1, weight.shape[0]))
        elif conv == "kernel":
            blocks = weight.view(layer.groups, -1, weight[0].numel())  # [groups, out, in k k]
            values = torch.linalg.svdvals(blocks.double()).flatten().sort(descending=True).values
            found[name] = values[None].to(weight.dtype)
        elif max(inputs[name][0].numel(), outputs[name][0].numel()) <= LARGEST:
            found[name] = _scaled_rows(_operator(layer, inputs[name]), slope.flatten(1))
        else:
            found[name] = torch.stack([_largest(layer, image, d) for image, d in zip(inputs[name], slope, strict=True)])
    return found


@torch.no_grad()
def _operator(layer: nn.Conv2d, inputs: Tensor) -> Tensor:
    """The matrix that takes a flat input image to the flat output image: [out pixels, in pixels], column by column."""
    columns = inputs[0].numel()
    unit = torch.eye(columns, dtype=layer.weight.dtype, device=layer.weight.device).view(columns, *inputs.shape[1:])
    return layer._conv_forward(unit, layer.weight, None).flatten(1).T


def _largest(layer: nn.Conv2d, image: Tensor, slope: Tensor) -> Tensor:
    """The 32 largest singular values of D times the convolution, through products with it and its transpose (ARPACK).

    ``image`` [in, h, w], ``slope`` [out, h', w']; fewer where the smaller side has fewer pixels. The start vector is fixed.
    """
    from scipy.sparse.linalg import LinearOperator, svds

    weight, d = layer.weight.detach().double(), slope.double()
    with torch.enable_grad():  # a linear map's gradient is its transpose, the same at every image
        at = torch.zeros_like(image, dtype=weight.dtype).requires_grad_()
        out = layer._conv_forward(at[None], weight, None)[0]

    def forward(v: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            image = torch.from_numpy(v.reshape(at.shape)).to(at)
            return (d * layer._conv_forward(image[None], weight, None)[0]).flatten().cpu().numpy()

    def backward(u: np.ndarray) -> np.ndarray:
        (found,) = torch.autograd.grad(out, at, d * torch.from_numpy(u.reshape(d.shape)).to(d), retain_graph=True)
        return found.flatten().cpu().numpy()

    operator = LinearOperator((d.numel(), at.numel()), forward, backward, dtype=np.float64)  # pyright: ignore[reportCallIssue]
    least, draw = min(operator.shape), np.random.default_rng(0).standard_normal
    if least <= LANCZOS:  # Lanczos' method finds fewer than all
        wide = d.numel() == least
        values = np.linalg.svd((operator.rmatmat if wide else operator.matmat)(np.eye(least)), compute_uv=False)
    elif not forward(draw(at.numel())).any():  # and nothing in a map that is zero
        values = np.zeros(LANCZOS)
    else:
        found = np.asarray(svds(operator, LANCZOS, v0=draw(least), return_singular_vectors=False))
        values = np.sort(found)[::-1].copy()
    return torch.from_numpy(values).to(layer.weight)


def _scaled_rows(weight: Tensor, slope: Tensor) -> Tensor:
    """Singular values of diag(d) W for each row d of ``slope`` [samples, out]: [samples, min(out, in)], descending."""
    W, D = weight.double(), slope.double()
    k = min(W.shape)
    values = torch.zeros(len(D), k, dtype=W.dtype, device=W.device)
    products = gram(W.T)  # [out, out]
    for i, d in enumerate(D):
        alive = d.nonzero().flatten()  # ReLU: rows that are off add only zeros
        n = min(len(alive), k)
        if n == 0:
            continue
        if len(alive) <= W.shape[1]:
            square = products.index_select(0, alive).index_select(1, alive)
            square *= torch.outer(d[alive], d[alive])
        else:
            scaled = W[alive] * d[alive, None]
            square = scaled.T @ scaled
        values[i, :n] = torch.linalg.eigvalsh(square).flip(0)[:n].clamp(min=0).sqrt()
    return values.to(weight.dtype)

"""Singular values of the layers' Jacobians."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pruneviz.curvature.gradients import untouched

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


def jacobian_singular_values(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    r"""Singular values of every layer's Jacobian, in forward order, descending (Lee et al. 2020, section 3).

    Linear: of :math:`J = D W` at each sample, ``D`` the derivative of the activation that follows (identity where none
    does): [samples, min(out, in)]. Conv2d: of the kernel matrix [out, in k k], which the paper's loss uses: [1, min].
    Through W Wᵀ on the smaller side in float64, so small values are right to about 1e-8 of the largest.
    """
    layers = {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)}
    outputs: dict[str, Tensor] = {}
    with untouched(model), torch.no_grad(), _Watcher() as watcher:

        def hook(name: str) -> Callable:
            def record(module: nn.Module, inputs: Any, output: Tensor) -> None:
                outputs[name] = output
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
        weight = layers[name].weight.detach()
        if isinstance(layers[name], nn.Conv2d):
            found[name] = torch.linalg.svdvals(weight.flatten(1).double())[None].to(weight.dtype)
        else:
            slope = watcher.slopes.get(name, torch.ones_like(outputs[name]))
            found[name] = _scaled_rows(weight, slope.detach().reshape(-1, weight.shape[0]))
    return found


def _scaled_rows(weight: Tensor, slope: Tensor) -> Tensor:
    """Singular values of diag(d) W for each row d of ``slope`` [samples, out]: [samples, min(out, in)], descending."""
    W, D = weight.double(), slope.double()
    k = min(W.shape)
    values = torch.zeros(len(D), k, dtype=W.dtype, device=W.device)
    gram = W @ W.T  # [out, out]
    for i, d in enumerate(D):
        alive = d.nonzero().flatten()  # ReLU: rows that are off add only zeros
        n = min(len(alive), k)
        if n == 0:
            continue
        if len(alive) <= W.shape[1]:
            square = gram[alive][:, alive] * d[alive, None] * d[alive]
        else:
            scaled = W[alive] * d[alive, None]
            square = scaled.T @ scaled
        values[i, :n] = torch.linalg.eigvalsh(square).flip(0)[:n].clamp(min=0).sqrt()
    return values.to(weight.dtype)

"""The frame in which every derivative is taken: afterwards everything is as before."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from warnings import catch_warnings, simplefilter

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode


@contextmanager
def untouched(model: nn.Module, *, mode: str = "eval", seed: int = 0) -> Iterator[nn.Module]:
    """The model in ``mode``, with gradients on; afterwards modes, ``.grad``, ``requires_grad``, buffers and generators are as before.

    Repeatable: what a network draws (dropout) follows from ``seed``, whatever was drawn before; attention and weight
    normalisation take their plain forms, which can be differentiated twice. On CUDA operations are deterministic where
    torch has them so, and in full precision, not in TF32 (its ten bits are of no use in a curvature).
    """
    modes = {module: module.training for module in model.modules()}
    grads = {parameter: (parameter.grad, parameter.requires_grad) for parameter in model.parameters()}
    tables = [m.weight for m in modes if isinstance(m, nn.Embedding | nn.EmbeddingBag) and m.max_norm is not None]
    buffers: dict[Tensor, Tensor] = {t: t.detach().clone() for t in (*tables, *model.buffers())}  # tables renormalise
    devices = {p.device for p in model.parameters() if p.device.type == "cuda"}
    with ExitStack() as within:
        within.enter_context(torch.random.fork_rng(devices=[d.index or 0 for d in devices]))
        torch.default_generator.manual_seed(seed)
        for device in devices:
            torch.cuda.default_generators[device.index or 0].manual_seed(seed)
        within.enter_context(torch.enable_grad())
        within.enter_context(sdpa_kernel(SDPBackend.MATH))
        if any(map(_normalises, modes)):
            within.enter_context(_Normalised())
        if devices:
            within.enter_context(_precise())
        try:
            model.train(mode == "train")
            for parameter in grads:
                parameter.grad = None
                parameter.requires_grad_(True)
            yield model
        finally:
            for module, training in modes.items():
                module.training = training
            for parameter, (grad, requires) in grads.items():
                parameter.requires_grad_(requires)
                parameter.grad = grad
            with torch.no_grad():
                for buffer, value in buffers.items():
                    buffer.copy_(value)


class _Normalised(TorchFunctionMode):
    """Weight normalisation by its formula: in the second derivative of torch's own the norms count as constants."""

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        own = getattr(torch, "_weight_norm", None)
        return (_normalised if func is own else func)(*args, **(kwargs or {}))


def _normalised(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    return v * (g / torch.norm_except_dim(v, 2, dim))


def _normalises(module: nn.Module) -> bool:
    """Whether it is, or has before it, torch's weight normalisation."""
    hooks = module._forward_pre_hooks.values()
    return type(module).__name__ == "_WeightNorm" or any(type(hook).__name__ == "WeightNorm" for hook in hooks)


@contextmanager
def _precise() -> Iterator[None]:
    """Full precision and deterministic operations on CUDA."""
    before = torch.backends.cuda.matmul.allow_tf32
    deterministic, warns = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    with (
        torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False),
        catch_warnings(),
    ):
        simplefilter("ignore")  # where torch has no deterministic form, it says so
        try:
            torch.backends.cuda.matmul.allow_tf32 = False
            torch.use_deterministic_algorithms(True, warn_only=True)
            yield
        finally:
            torch.backends.cuda.matmul.allow_tf32 = before
            torch.use_deterministic_algorithms(deterministic, warn_only=warns)

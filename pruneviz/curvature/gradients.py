"""Mean gradients, and the frame in which every derivative is taken."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def untouched(model: nn.Module, *, mode: str = "eval") -> Iterator[nn.Module]:
    """The model in ``mode``, with gradients on; afterwards modes, ``.grad``, ``requires_grad``, buffers and generators are as before.

    On CUDA convolutions are taken in full precision, not in TF32 (its ten bits are of no use in a curvature).
    """
    modes = {module: module.training for module in model.modules()}
    grads = {parameter: (parameter.grad, parameter.requires_grad) for parameter in model.parameters()}
    buffers = {buffer: buffer.detach().clone() for buffer in model.buffers()}
    devices = {p.device for p in model.parameters() if p.device.type == "cuda"}
    tf32 = torch.backends.cudnn.allow_tf32 if devices else False
    with torch.random.fork_rng(devices=[d.index or 0 for d in devices]), torch.enable_grad():
        try:
            if tf32:
                torch.backends.cudnn.allow_tf32 = False
            model.train(mode == "train")
            for parameter in grads:
                parameter.grad = None
                parameter.requires_grad_(True)
            yield model
        finally:
            if tf32:
                torch.backends.cudnn.allow_tf32 = True
            for module, training in modes.items():
                module.training = training
            for parameter, (grad, requires) in grads.items():
                parameter.requires_grad_(requires)
                parameter.grad = grad
            with torch.no_grad():
                for buffer, value in buffers.items():
                    buffer.copy_(value)


def mean_gradient(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    loss: Callable[[Tensor, Tensor], Tensor],
    *,
    mode: str = "eval",
) -> dict[str, Tensor]:
    """The gradient of the mean loss over all samples: parameter name -> tensor like it.

    Batches are weighted by their size, so the result does not depend on how samples are batched (in ``eval`` mode;
    batch normalisation in ``train`` mode sees its own batch).
    """
    with untouched(model, mode=mode):
        names, parameters = zip(*model.named_parameters(), strict=True)
        total, seen = [torch.zeros_like(p) for p in parameters], 0
        for x, y in batches:
            found = torch.autograd.grad(loss(model(x), y) * len(x), parameters, allow_unused=True)
            for t, g in zip(total, found, strict=True):
                if g is not None:
                    t += g
            seen += len(x)
    return {name: t / seen for name, t in zip(names, total, strict=True)}

"""Mean gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn

from pruneviz.door.parameters import named
from pruneviz.door.samples import Samples, answered, changed, forward, turned
from pruneviz.door.untouched import untouched

AT_ONCE = 200  # samples whose graph is kept at a time, where more change nothing but memory


def mean_gradient(
    model: nn.Module,
    batches: Iterable[tuple[Samples, Tensor]],
    loss: Callable[[Tensor, Tensor], Tensor],
    *,
    mode: str = "eval",
    seed: int = 0,
) -> dict[str, Tensor]:
    """The gradient of the mean loss over all samples: parameter name -> tensor like it, a shared one under each of its names.

    Batches are weighted by their size, so the result does not depend on how samples are batched (in ``eval`` mode;
    batch normalisation in ``train`` mode sees its own batch, whole). ``seed``: of dropout in ``train`` mode.
    """
    batches = list(batches)
    whole = any(len(x) > AT_ONCE for x, _ in batches) and meet(model, batches[0][0], mode)
    with untouched(model, mode=mode, seed=seed):
        names, parameters = zip(*named(model).items(), strict=True)
        total, seen = [torch.zeros_like(p) for p in parameters], 0
        for x, y in (part for batch in batches for part in ([batch] if whole else portions(*batch))):
            found = torch.autograd.grad(loss(answered(model, x), y) * len(x), parameters, allow_unused=True)
            for t, g in zip(total, found, strict=True):
                if g is not None:
                    t += g
            seen += len(x)
    return {name: t / seen for name, t in zip(names, total, strict=True)}


def portions(x: Samples, y: Tensor, size: int = AT_ONCE) -> Iterator[tuple[Samples, Tensor]]:
    """A batch in parts whose graphs take little memory."""
    return zip(x.split(size), y.split(size), strict=True)


def meet(model: nn.Module, x: Samples, mode: str = "train") -> bool:
    """Whether a sample's output depends on the samples beside it, as with batch normalisation in training mode."""
    if mode == "train" and any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules()):
        return True
    pair = x[:2]
    other = changed(pair, lambda t: torch.cat([t[:1], turned(t[1:])]))
    with torch.no_grad():
        outputs = []
        for samples in (pair, other):
            with untouched(model, mode=mode):
                outputs.append(forward(model, samples).detach()[0])
    return not torch.allclose(*outputs, rtol=1e-4, atol=1e-7)

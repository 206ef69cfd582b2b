"""Products of the loss's Hessian with a vector, and the check that such a product is a derivative at all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pruneviz.curvature.gradients import mean_gradient, untouched
from pruneviz.curvature.layers import Gatherer, Recorder
from pruneviz.errors import UnsupportedLayer
from pruneviz.loss import Loss as ModelLoss
from pruneviz.loss import tempered
from pruneviz.statistic import HessianGradient

Batch = tuple[Tensor, Tensor]
Tensors = Mapping[str, Tensor]
Loss = Callable[[Tensor, Tensor], Tensor]

# Relative steps of the central difference, the likeliest first. A large one may carry some unit of some sample across its
# kink by chance, a small one suffers from rounding (1e-16 / 1e-10 = 1e-6 of the gradient). One that agrees is enough: at
# a true kink the difference of the gradients stays as it is while the step shrinks, and no step agrees.
STEPS = (1e-8, 1e-9, 1e-10, 1e-7, 1e-6)
TOLERANCE = 1e-3  # of the norm of the product


def hessian_vector_product(
    model: nn.Module,
    batches: Iterable[Batch],
    loss: Loss,
    vector: Tensors,
    *,
    mode: str = "eval",
    within: Tensors | None = None,
    checked: bool = False,
) -> dict[str, Tensor]:
    r""":math:`H v`, the Hessian of the mean loss over all samples times ``vector``.

    Formula: :math:`H v = \nabla_\theta \left( \nabla_\theta L \cdot v \right)` by double backward (Pearlmutter 1994).
    :math:`\theta` are the parameters named in ``vector``; all others are held fixed. ``within`` (name -> bool, like the
    parameter) takes the rows and columns of H at these entries only, as if the others were constants too.

    Batches are weighted by their size and summed in float64 where the device has it. In ``train`` mode batch
    normalisation sees its own batch, and the product includes the derivatives of mean and variance.

    ``checked`` compares the product with the central difference of the gradient along the vector,
    :math:`(g(\theta + \epsilon v) - g(\theta - \epsilon v)) / 2 \epsilon`, in float64 on a copy (not on a device without
    float64). Where the gradient jumps, at a tie between different patches in a max-pool or at an activation's kink, the
    product of one side is no derivative. Harmless and accepted: patches that tie because they are equal (blank regions),
    and units at a kink that the weights do not move (blank inputs and no bias).

    Returns: name -> tensor like the parameter.
    Raises:  UnsupportedLayer, where an in-place operation or an operation without second derivative stops the double
             backward, or where the check finds a jump.
    """
    batches = list(batches)
    vector = {name: _restricted(v.detach(), name, within) for name, v in vector.items()}
    params = dict(model.named_parameters())
    if checked and wide(next(iter(params.values())).device) is torch.float64:
        model = deepcopy(model).double()
        batches = [(x.double() if x.is_floating_point() else x, y) for x, y in batches]
        vector = {name: v.double() for name, v in vector.items()}
        product = _product(model, batches, loss, vector, mode, within)
        _check(model, batches, loss, vector, mode, within, product)
    else:
        product = _product(model, batches, loss, vector, mode, within)
    return {name: value.to(params[name].dtype) for name, value in product.items()}


def hessian_gradient(
    model: nn.Module,
    batches: Iterable[Batch],
    loss: Loss,
    *,
    names: Sequence[str] | None = None,
    mode: str = "eval",
    within: Tensors | None = None,
    checked: bool = False,
) -> dict[str, Tensor]:
    r""":math:`H g` with g the gradient of the same mean loss, over ``names`` (weights of Linear and Conv2d by default).

    As :func:`hessian_vector_product`. A single batch needs one differentiable backward pass: its slopes are the vector.

    Returns: name -> tensor like the parameter.
    """
    batches, names = list(batches), weights_of(model) if names is None else names
    if len(batches) == 1 and not checked:
        with differentiable(model), untouched(model, mode=mode):
            ((x, y),) = batches
            return _along(model, loss(model(x), y), names, within)
    with differentiable(model):
        gradient = mean_gradient(model, batches, loss, mode=mode)
    vector = {name: gradient[name] for name in names}
    return hessian_vector_product(model, batches, loss, vector, mode=mode, within=within, checked=checked)


def weights_of(model: nn.Module) -> list[str]:
    """Names of the weights of Linear and Conv2d layers."""
    layers = (prefix for prefix, m in model.named_modules() if isinstance(m, nn.Linear | nn.Conv2d))
    return [f"{prefix}.weight" if prefix else "weight" for prefix in layers]


def _along(model: nn.Module, total: Tensor, names: Sequence[str], within: Tensors | None = None) -> dict[str, Tensor]:
    """The Hessian of ``total`` times its own gradient, over the parameters named; the graph stays."""
    params = dict(model.named_parameters())
    chosen = [params[name] for name in names]
    slopes = torch.autograd.grad(total, chosen, create_graph=True, allow_unused=True)
    along = [
        (g * _restricted(g.detach(), name, within)).sum()
        for name, g in zip(names, slopes, strict=True)
        if g is not None and g.requires_grad  # one without graph does not depend on the weights
    ]
    found = torch.autograd.grad(along, chosen, retain_graph=True, allow_unused=True) if along else [None] * len(chosen)
    return {
        name: _restricted(torch.zeros_like(p) if h is None else h, name, within)
        for name, p, h in zip(names, chosen, found, strict=True)
    }


class Products(Gatherer):
    """The Hessian times the gradient in the making, where all samples pass at once: None where they do not."""

    def __init__(self, wanted: HessianGradient, model: nn.Module):
        self._wanted, self._model = wanted, model
        self._found: list[dict[str, Tensor]] = []

    def outputs(self, recorder: Recorder, outputs: Tensor, y: Tensor, loss: ModelLoss) -> None:
        if not self._found:
            with differentiable(self._model):
                total = tempered(loss, self._wanted.temperature)(outputs, y)
                self._found.append(_along(self._model, total, weights_of(self._model)))
            self._samples = len(y)

    def found(self, seen: int) -> dict[str, Tensor] | None:
        return self._found[0] if self._samples == seen else None


def wide(device: torch.device) -> torch.dtype:
    """The dtype for sums on this device: float64, but float32 on Apple's GPUs, which have no other."""
    return torch.float32 if device.type == "mps" else torch.float64


def _restricted(value: Tensor, name: str, within: Tensors | None) -> Tensor:
    return value if within is None or name not in within else value * within[name]


def _product(
    model: nn.Module, batches: list[Batch], loss: Loss, vector: Tensors, mode: str, within: Tensors | None
) -> dict[str, Tensor]:
    with differentiable(model), untouched(model, mode=mode):
        params = dict(model.named_parameters())
        chosen = [params[name] for name in vector]
        total, seen = [torch.zeros_like(p, dtype=wide(p.device)) for p in chosen], 0
        for x, y in batches:
            slopes = torch.autograd.grad(loss(model(x), y) * len(x), chosen, create_graph=True, allow_unused=True)
            # g . v in pieces; a slope without graph does not depend on the weights
            pairs = zip(slopes, vector.values(), strict=True)
            along = [(g * v).sum() for g, v in pairs if g is not None and g.requires_grad]
            found = torch.autograd.grad(along, chosen, allow_unused=True) if along else [None] * len(chosen)
            for t, h in zip(total, found, strict=True):
                if h is not None:
                    t += h
            seen += len(x)
    return {name: _restricted(t / seen, name, within) for name, t in zip(vector, total, strict=True)}


@contextmanager
def differentiable(model: nn.Module) -> Iterator[None]:
    """Turns autograd's complaints about in-place operations and missing derivatives into UnsupportedLayer with the mend."""
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        if "inplace operation" in text or "in-place operation" in text:
            inplace = [f"{n!r} ({type(m).__name__})" for n, m in model.named_modules() if getattr(m, "inplace", False)]
            where = f" Layers set to work in place: {', '.join(inplace)}." if inplace else ""
            raise UnsupportedLayer(
                "The Hessian needs two backward passes, and an in-place operation has overwritten a value that they "
                f"read.{where} Use inplace=False, and write y = y + x where the forward pass has y += x."
            ) from error
        if "is not implemented" in text or "once_differentiable" in text:
            raise UnsupportedLayer(
                "The Hessian needs two backward passes, and an operation of this network has one only "
                f"({text.splitlines()[0]}). Replace that operation, or choose a method that reads gradients alone, "
                "such as SNIP."
            ) from error
        raise


def _check(
    model: nn.Module,
    batches: list[Batch],
    loss: Loss,
    vector: Tensors,
    mode: str,
    within: Tensors | None,
    found: Tensors,
) -> None:
    """Raises UnsupportedLayer where the gradient has no derivative along the vector, or ``found`` is not it."""
    params = dict(model.named_parameters())
    size, length = _norm({name: params[name] for name in vector}), _norm(vector)
    if size == 0 or length == 0:
        return
    epsilon = apart = 0.0
    for step in STEPS:
        epsilon = step * size / length
        ahead, behind = (
            mean_gradient(_moved(model, vector, by), batches, loss, mode=mode) for by in (epsilon, -epsilon)
        )
        difference = {n: _restricted((ahead[n] - behind[n]) / (2 * epsilon), n, within) for n in vector}
        rounding = 1e3 * torch.finfo(torch.float64).eps * _norm({n: ahead[n] for n in vector}) / epsilon
        apart = _norm({n: difference[n] - found[n] for n in vector})
        if apart <= TOLERANCE * _norm(found) + rounding:
            return
    share = f"by {apart / _norm(found):.2g} times its norm" if _norm(found) else "and the product is zero"
    raise UnsupportedLayer(
        f"The Hessian times the vector is not the derivative of the gradient (they differ {share}): "
        f"{_jump(model, batches, vector, epsilon, mode)}. "
        "Score other samples or other weights (another seed), or choose a method that reads gradients alone, such as SNIP."
    )


def _norm(tensors: Tensors) -> float:
    return float(torch.stack([t.detach().square().sum() for t in tensors.values()]).sum().sqrt())


@torch.no_grad()
def _moved(model: nn.Module, vector: Tensors, epsilon: float) -> nn.Module:
    """A copy whose parameters have moved by ``epsilon`` along the vector."""
    copy = deepcopy(model)
    for name, parameter in copy.named_parameters():
        if name in vector:
            parameter += epsilon * vector[name]
    return copy


@torch.no_grad()
def _jump(model: nn.Module, batches: list[Batch], vector: Tensors, epsilon: float, mode: str) -> str:
    """Where the gradient jumps, in words: pools whose ties the vector breaks, and kinks that it crosses."""
    found: Counter[str] = Counter()
    for x, _ in batches:
        here, ahead, behind = (_inputs(_moved(model, vector, by), x, mode) for by in (0.0, epsilon, -epsilon))
        for name, (module, value) in here.items():
            up, down = ahead[name][1], behind[name][1]
            if isinstance(module, nn.MaxPool2d):
                first, last = _winners(module, up), _winners(module, down)
                tie = (_at(value, first) == _at(value, last)) & (_at(up, first) > _at(up, last))
                found[f"different patches tie for a maximum in the max-pool {name!r}"] += int(tie.sum())
            else:
                crossed = (value == 0) & (up * down < 0)
                found[f"inputs lie exactly at the kink of the activation {name!r}"] += int(crossed.sum())
    said = [f"{text} ({times} times)" for text, times in found.items() if times]
    return " and ".join(said) or "it jumps here, or an operation of the network has no second derivative"


def _inputs(model: nn.Module, x: Tensor, mode: str) -> dict[str, tuple[nn.Module, Tensor]]:
    """Layer name -> layer and its input, for every max-pool and every activation with its kink at zero."""
    kept: dict[str, tuple[nn.Module, Tensor]] = {}

    def record(name: str):
        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            kept[name] = (module, inputs[0].detach().clone())

        return hook

    kinked = nn.MaxPool2d | nn.ReLU | nn.ReLU6 | nn.LeakyReLU | nn.PReLU
    with untouched(model, mode=mode), torch.no_grad():
        for name, module in model.named_modules():
            if isinstance(module, kinked):
                module.register_forward_pre_hook(record(name))
        model(x)
    return kept


def _winners(pool: nn.MaxPool2d, x: Tensor) -> Tensor:
    """Flat positions of the maxima: [n, c, out pixels]."""
    _, index = F.max_pool2d(
        x, pool.kernel_size, pool.stride, pool.padding, pool.dilation, pool.ceil_mode, return_indices=True
    )
    return index.flatten(-2)


def _at(x: Tensor, index: Tensor) -> Tensor:
    return x.flatten(-2).gather(-1, index)

"""Products of the loss's Hessian with a vector, and the check that such a product is a derivative at all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pruneviz.basics.errors import UnsupportedLayer
from pruneviz.curvature.gradients import AT_ONCE, mean_gradient, meet, portions
from pruneviz.curvature.layers import Gatherer, Recorder
from pruneviz.curvature.statistic import HessianGradient
from pruneviz.door.loss import Loss as ModelLoss
from pruneviz.door.loss import tempered
from pruneviz.door.network import Network, network_of
from pruneviz.door.parameters import copied, named
from pruneviz.door.samples import Samples, answered, changed, forward
from pruneviz.door.untouched import untouched

Batch = tuple[Samples, Tensor]
Tensors = Mapping[str, Tensor]
Loss = Callable[[Tensor, Tensor], Tensor]

# Relative steps of the central difference, the likeliest first. A large one may carry some unit of some sample across its
# kink by chance, a small one suffers from rounding (1e-16 / 1e-10 = 1e-6 of the gradient). One that agrees is enough: at
# a true kink the difference of the gradients stays as it is while the step shrinks, and no step agrees.
STEPS = (1e-8, 1e-9, 1e-10, 1e-7, 1e-6)
COARSE = (
    1e-5,
    1e-4,
    1e-3,
)  # where a network rounds to float32 inside (a norm that casts), 1e-7 / 1e-4 = 1e-3 of the gradient
TOLERANCE = 1e-3  # of the norm of the product
CHECKED = 32  # samples on which it is compared
PORTION = AT_ONCE // 2  # samples whose graph of two passes is kept at a time


def hessian_vector_product(
    model: nn.Module,
    batches: Iterable[Batch],
    loss: Loss,
    vector: Tensors,
    *,
    mode: str = "eval",
    within: Tensors | None = None,
    checked: bool = False,
    seed: int = 0,
) -> dict[str, Tensor]:
    r""":math:`H v`, the Hessian of the mean loss over all samples times ``vector``.

    Formula: :math:`H v = \nabla_\theta \left( \nabla_\theta L \cdot v \right)` by double backward (Pearlmutter 1994).
    :math:`\theta` are the parameters named in ``vector``; all others are held fixed. ``within`` (name -> bool, like the
    parameter) takes the rows and columns of H at these entries only, as if the others were constants too.

    Batches are weighted by their size and summed in float64 where the device has it. In ``train`` mode batch
    normalisation sees its own batch, and the product includes the derivatives of mean and variance.

    ``checked`` takes the product in float64 on a copy, and compares that of at most 32 samples with the central difference of
    their gradient along the vector, :math:`(g(\theta + \epsilon v) - g(\theta - \epsilon v)) / 2 \epsilon` (not on a device
    without float64). Where the gradient jumps, at a tie between different patches in a max-pool or at an activation's kink, the
    product of one side is no derivative. Harmless and accepted: patches that tie because they are equal (blank regions),
    and units at a kink that the weights do not move (blank inputs and no bias).

    Returns: name -> tensor like the parameter.
    Raises:  UnsupportedLayer, where an in-place operation or an operation without second derivative stops the double
             backward, or where the check finds a jump.
    """
    batches = list(batches)
    vector = {name: _restricted(v.detach(), name, within) for name, v in vector.items()}
    params = named(model)
    if checked and wide(next(iter(params.values())).device) is torch.float64:
        model = copied(model).double()
        batches = [(changed(x, _doubled), _doubled(y)) for x, y in batches]
        vector = {name: v.double() for name, v in vector.items()}
        product = _product(model, batches, loss, vector, mode, within, seed)
        few = _few(batches, mode)
        of_few = product if few is batches else _product(model, few, loss, vector, mode, within, seed)
        _check(model, few, loss, vector, mode, within, of_few, seed)
    else:
        product = _product(model, batches, loss, vector, mode, within, seed)
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
    seed: int = 0,
) -> dict[str, Tensor]:
    r""":math:`H g` with g the gradient of the same mean loss, over ``names`` (by default the weights that a slope reaches).

    As :func:`hessian_vector_product`. A single batch needs one differentiable backward pass: its slopes are the vector.

    Returns: name -> tensor like the parameter.
    """
    batches = list(batches)
    names = weights_of(network_of(model, batches[0][0])) if names is None else names
    if len(batches) == 1 and not checked and len(batches[0][0]) <= AT_ONCE:
        with differentiable(model), untouched(model, mode=mode, seed=seed):
            ((x, y),) = batches
            return _along(model, loss(answered(model, x), y), names, within)
    with differentiable(model):
        gradient = mean_gradient(model, batches, loss, mode=mode, seed=seed)
    vector = {name: gradient[name] for name in names}
    return hessian_vector_product(model, batches, loss, vector, mode=mode, within=within, checked=checked, seed=seed)


def weights_of(network: Network) -> list[str]:
    """Names of the weights that a slope reaches and that can be zeroed, in forward order."""
    return [w.name for w in network.counted().values() if w.slope and w.stays]


def _few(batches: list[Batch], mode: str) -> list[Batch]:
    """At most 32 samples, spread evenly over the batches (in training mode, over one); the batches themselves where they hold no more."""
    if sum(len(x) for x, _ in batches) <= CHECKED:
        return batches
    if mode == "train":  # normalisation sees its batch
        batches = [max(batches, key=lambda batch: len(batch[0]))]
    step, before, found = -(-sum(len(x) for x, _ in batches) // CHECKED), 0, []
    for x, y in batches:
        at = torch.arange(len(x))[-before % step :: step].to(y.device)
        before += len(x)
        if len(at):
            found.append((x[at], y[at]))
    return found


def _doubled(tensor: Tensor) -> Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor


def _along(model: nn.Module, total: Tensor, names: Sequence[str], within: Tensors | None = None) -> dict[str, Tensor]:
    """The Hessian of ``total`` times its own gradient, over the parameters named; the graph stays."""
    params = named(model)
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
                self._found.append(_along(self._model, total, weights_of(recorder.network)))
            self._samples = len(y)

    def found(self, seen: int) -> dict[str, Tensor] | None:
        return self._found[0] if self._samples == seen else None


def wide(device: torch.device) -> torch.dtype:
    """The dtype for sums on this device: float64, but float32 on Apple's GPUs, which have no other."""
    return torch.float32 if device.type == "mps" else torch.float64


def _restricted(value: Tensor, name: str, within: Tensors | None) -> Tensor:
    return value if within is None or name not in within else value * within[name]


def _product(
    model: nn.Module, batches: list[Batch], loss: Loss, vector: Tensors, mode: str, within: Tensors | None, seed: int
) -> dict[str, Tensor]:
    with differentiable(model), untouched(model, mode=mode, seed=seed):
        params = named(model)
        chosen = [params[name] for name in vector]
        total, seen = [torch.zeros_like(p, dtype=wide(p.device)) for p in chosen], 0
        whole = any(len(x) > PORTION for x, _ in batches) and meet(model, batches[0][0], mode)
        for x, y in (part for batch in batches for part in ([batch] if whole else portions(*batch, PORTION))):
            found = _summed(loss(answered(model, x), y) * len(x), chosen, list(vector.values()))
            for t, h in zip(total, found, strict=True):
                if h is not None:
                    t += h
            seen += len(x)
    return {name: _restricted(t / seen, name, within) for name, t in zip(vector, total, strict=True)}


def _summed(total: Tensor, chosen: list[nn.Parameter], vector: list[Tensor]) -> Sequence[Tensor | None]:
    """The Hessian of ``total`` times the vector; its graph is let go."""
    slopes = torch.autograd.grad(total, chosen, create_graph=True, allow_unused=True)
    # g . v in pieces; a slope without graph does not depend on the weights
    along = [(g * v).sum() for g, v in zip(slopes, vector, strict=True) if g is not None and g.requires_grad]
    return torch.autograd.grad(along, chosen, allow_unused=True) if along else [None] * len(chosen)


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
    seed: int,
) -> None:
    """Raises UnsupportedLayer where the gradient has no derivative along the vector, or ``found`` is not it."""
    params = named(model)
    size, length = _norm({name: params[name] for name in vector}), _norm(vector)
    if size == 0 or length == 0:
        return
    epsilon = apart = 0.0
    for step in _steps(model, batches[0][0]):
        epsilon = step * size / length
        ahead, behind = (
            mean_gradient(_moved(model, vector, by), batches, loss, mode=mode, seed=seed) for by in (epsilon, -epsilon)
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


def _steps(model: nn.Module, x: Samples) -> Iterator[float]:
    yield from STEPS
    with untouched(model), _Rounds() as inside:
        forward(model, x[:2])
    if inside.found:
        yield from COARSE


class _Rounds(TorchFunctionMode):
    """Whether a forward pass in float64 has anything in between in a lower precision."""

    found = False

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if (
            isinstance(result, Tensor)
            and result.requires_grad
            and result.dtype in (torch.float32, torch.bfloat16, torch.float16)
        ):
            self.found = True
        return result


def _norm(tensors: Tensors) -> float:
    return float(torch.stack([t.detach().square().sum() for t in tensors.values()]).sum().sqrt())


@torch.no_grad()
def _moved(model: nn.Module, vector: Tensors, epsilon: float) -> nn.Module:
    """A copy whose parameters have moved by ``epsilon`` along the vector."""
    copy = copied(model)
    params = named(copy)
    for name, value in vector.items():
        params[name].add_(epsilon * value)
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


def _inputs(model: nn.Module, x: Samples, mode: str) -> dict[str, tuple[nn.Module, Tensor]]:
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
        forward(model, x)
    return kept


def _winners(pool: nn.MaxPool2d, x: Tensor) -> Tensor:
    """Flat positions of the maxima: [n, c, out pixels]."""
    _, index = F.max_pool2d(
        x, pool.kernel_size, pool.stride, pool.padding, pool.dilation, pool.ceil_mode, return_indices=True
    )
    return index.flatten(-2)


def _at(x: Tensor, index: Tensor) -> Tensor:
    return x.flatten(-2).gather(-1, index)

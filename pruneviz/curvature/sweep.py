"""The sweep: all statistics that are wanted of one network and its samples, in one pass over the data."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pruneviz.curvature.diagonals import Norms, Squares
from pruneviz.curvature.gradients import mean_gradient, untouched
from pruneviz.curvature.hvp import Products, hessian_gradient
from pruneviz.curvature.jacobian import jacobian_singular_values
from pruneviz.curvature.kronecker import Factors
from pruneviz.curvature.layers import Gatherer, Recorder
from pruneviz.curvature.woodbury import Waiting
from pruneviz.loss import CROSS_ENTROPY, Loss, tempered
from pruneviz.statistic import (
    Diagonal,
    Gradient,
    HessianGradient,
    InputNorms,
    Jacobians,
    Kronecker,
    Rows,
    Slopes,
    Statistic,
)

if TYPE_CHECKING:
    from pruneviz.task import Task

LIMIT = 2**30  # bytes of activations and slopes at a time, beside the network and what is kept
FEW = 64  # samples that need not be measured before they are taken at once
GATHERERS: dict[type, Callable[[Any, nn.Module], Gatherer]] = {
    Kronecker: Factors, Diagonal: Squares, InputNorms: Norms, Rows: Waiting, HessianGradient: Products
}  # fmt: skip
Batch = tuple[Tensor, Tensor]


def sweep(
    model: nn.Module, batches: Iterable[Batch], wanted: Sequence[Statistic], **options: Any
) -> dict[Statistic, Any]:
    """The statistics wanted: :func:`passing` to its end."""
    steps = passing(model, batches, wanted, **options)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def passing(
    model: nn.Module,
    batches: Iterable[Batch],
    wanted: Sequence[Statistic],
    *,
    loss: Loss = CROSS_ENTROPY,
    generator: torch.Generator | None = None,
    limit: int = LIMIT,
) -> Generator[int, None, dict[Statistic, Any]]:
    """The sweep step by step: yields how many samples are done, returns the statistics wanted. Stop asking to cancel.

    One forward pass serves all, and a backward pass for each slope at the network's outputs serves all that read it (the
    given labels', drawn labels', all of the loss's curvature). ``limit``: bytes of activations and slopes beside what is
    kept; larger batches go through in portions, which changes nothing but last digits. Labels are drawn from the
    generator's seed, whatever else was drawn from it: the same alone as with other statistics. In evaluation mode;
    gradients alone or in training mode, products with the Hessian over several batches and Jacobians take passes of their own.
    """
    batches = list(batches)
    shared = {s: GATHERERS[type(s)](s, model) for s in wanted if type(s) in GATHERERS and _joins(s, len(batches))}
    found: dict[Statistic, Any] = {}
    if shared:
        plain = [s for s in wanted if isinstance(s, Gradient) and (s.mode == "eval" or _modeless(model))]
        gradient = yield from _together(model, batches, shared, bool(plain), loss, generator, limit)
        seen = sum(len(x) for x, _ in batches)
        made = {s: gatherer.found(seen) for s, gatherer in shared.items()} | dict.fromkeys(plain, gradient)
        found = {s: value for s, value in made.items() if value is not None}
    for statistic in (s for s in wanted if s not in found):
        match statistic:
            case Gradient(mode=mode):
                found[statistic] = mean_gradient(model, batches, loss, mode=mode)
            case HessianGradient(temperature=temperature, mode=mode, checked=checked):
                found[statistic] = hessian_gradient(
                    model, batches, tempered(loss, temperature), mode=mode, checked=checked
                )
            case Jacobians(samples=samples, conv=conv):
                first = islice((one for x, _ in batches for one in x.split(1)), samples)
                found[statistic] = jacobian_singular_values(model, torch.cat(list(first)), conv=conv)
    return found


def _joins(statistic: Statistic, batches: int) -> bool:
    """Whether it can share the passes of others: a product with the Hessian only where the gradient is known in one."""
    if isinstance(statistic, HessianGradient):
        return batches == 1 and statistic.mode == "eval" and not statistic.checked
    return True


def _together(
    model: nn.Module,
    batches: Sequence[Batch],
    shared: dict[Statistic, Gatherer],
    gradient: bool,
    loss: Loss,
    generator: torch.Generator | None,
    limit: int,
) -> Generator[int, None, dict[str, Tensor]]:
    """Feed the gatherers, portion by portion; returns the mean gradient where it is asked for."""
    readers: dict[Slopes, list[Gatherer]] = {("labels", 1): []} if gradient else {}
    for statistic, gatherer in shared.items():
        slopes = getattr(statistic, "slopes", None)
        if slopes is not None:
            readers.setdefault(slopes, []).append(gatherer)
    seed = ((generator or torch.Generator()).initial_seed() + 1) % 2**63
    labels = {reading: torch.Generator().manual_seed(seed) for reading in readers}
    params = dict(model.named_parameters()) if gradient else {}
    total = {name: torch.zeros_like(p) for name, p in params.items()}
    seen = 0
    groups = all(isinstance(s, Kronecker | InputNorms | HessianGradient) for s in shared)
    with untouched(model), Recorder(model, groups=groups) as recorder:
        for x, y in _portions(recorder, model, batches, limit):
            outputs = recorder.forward(model, x)
            for gatherer in shared.values():
                gatherer.outputs(recorder, outputs, y, loss)
                for name in recorder:
                    gatherer.inputs(recorder, name, recorder.input(name))
            for (kind, draws), reading in readers.items():
                also = params if kind == "labels" else {}
                names = list(recorder) if reading else []
                slopes = cotangents(loss, outputs, y, kind, draws, labels[kind, draws])
                for several in slopes.split(max(1, limit // 2 // (recorder.bytes * len(x)))):
                    for one in several:
                        here, there = recorder.slopes(one, outputs, names, list(also.values()))
                        for name, slope in zip(names, here, strict=True):
                            for gatherer in reading:
                                gatherer.slope(recorder, name, slope, len(several))
                        for name, value in zip(also, there, strict=True):
                            total[name] += value
                        del here
                    for gatherer in reading:
                        for name in names:
                            gatherer.slopes_end(recorder, name)
            seen += len(x)
            del outputs
            yield seen
    return {name: value / seen for name, value in total.items()}


def _portions(recorder: Recorder, model: nn.Module, batches: Sequence[Batch], limit: int) -> Iterator[Batch]:
    """The batches, in parts whose activations stay within half the limit: about four tensors of each layer's output."""
    step = None
    for x, y in batches:
        if step is None and len(x) > FEW:
            recorder.forward(model, x[:1])
            step = max(1, limit // 2 // (4 * recorder.bytes))
        yield from zip(x.split(step or len(x)), y.split(step or len(x)), strict=True)


def _modeless(model: nn.Module) -> bool:
    """Whether training and evaluation mode are the same: all modules are known, and none of them asks."""
    asking = nn.modules.batchnorm._NormBase | nn.modules.dropout._DropoutNd
    return all(
        type(module).__module__.startswith(("torch.nn.", "pruneviz.models.")) and not isinstance(module, asking)
        for module in model.modules()
    )


def cotangents(loss: Loss, outputs: Tensor, y: Tensor, kind: str, draws: int, generator: torch.Generator) -> Tensor:
    """Slopes at the outputs whose outer products add up to the curvature (times ``draws`` where drawn): [k, n, outputs]."""
    outputs = outputs.detach()
    match kind:
        case "labels":
            return loss.slope(outputs, y)[None]
        case "all":
            return loss.root(outputs).permute(2, 0, 1)
        case _:
            return loss.drawn(outputs, draws, generator)


def _digest(hasher: hashlib._Hash, tensor: torch.Tensor) -> None:
    hasher.update(str((tensor.dtype, tuple(tensor.shape))).encode())
    hasher.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())


def digest(model: nn.Module, task: Task) -> str:
    """What a statistic depends on: the weights, the samples, the loss, and the seed that labels are drawn from."""
    hasher = hashlib.sha256(repr((task.loss.key, task.generator.initial_seed())).encode())
    for name, tensor in model.state_dict().items():
        hasher.update(name.encode())
        _digest(hasher, tensor)
    for x, y in task.batches():
        _digest(hasher, x)
        _digest(hasher, y)
    return hasher.hexdigest()


class Statistics:
    """Statistics kept for the length of one ``execute``, or (``keep=False``) not at all."""

    def __init__(self, *, keep: bool = False):
        self._keep = keep
        self._found: dict[tuple[str, Statistic], Any] = {}

    def get(self, model: nn.Module, task: Task, statistic: Statistic) -> Any:
        """The statistic, from memory if these very weights and samples were seen before. Rows are large: handed out once."""
        key = (digest(model, task), statistic) if self._keep else None
        if key in self._found:
            return self._found.pop(key) if isinstance(statistic, Rows) else self._found[key]
        found = sweep(model, task.batches(), (statistic,), loss=task.loss, generator=task.generator)[statistic]
        if key is not None and not isinstance(statistic, Rows):
            self._found[key] = found
        return found

    def gather(self, model: nn.Module, task: Task, wanted: Sequence[Statistic]) -> Iterator[int]:
        """One sweep for all that are wanted and not known yet; yields how many samples are done."""
        key = digest(model, task)
        missing = [s for s in dict.fromkeys(wanted) if (key, s) not in self._found]
        if self._keep and missing:
            found = yield from passing(model, task.batches(), missing, loss=task.loss, generator=task.generator)
            self._found |= {(key, statistic): value for statistic, value in found.items()}

    def clear(self) -> None:
        """Forget everything, when the network changes."""
        self._found.clear()

"""The sweep: all statistics that are wanted of one network and its samples, in one pass over the data."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from importlib import import_module
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from pruneviz.curvature.gradients import mean_gradient
from pruneviz.curvature.hvp import hessian_gradient
from pruneviz.curvature.jacobian import jacobian_singular_values
from pruneviz.curvature.layers import Gatherer, Recorder
from pruneviz.curvature.statistic import (
    Gradient,
    HessianGradient,
    Jacobians,
    Slopes,
    Statistic,
)
from pruneviz.door.loss import CROSS_ENTROPY, Loss, tempered
from pruneviz.door.network import network_of
from pruneviz.door.parameters import named
from pruneviz.door.samples import Samples, forward, joined
from pruneviz.door.untouched import untouched

LIMIT = 2**30  # bytes of activations and slopes at a time, beside the network and what is kept
FEW = 64  # samples that need not be measured before they are taken at once
Batch = tuple[Samples, Tensor]


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
    shared = {s: _gatherer(s, model) for s in wanted if s.gathered_by and _joins(s, len(batches))}
    found: dict[Statistic, Any] = {}
    if shared:
        plain = [s for s in wanted if isinstance(s, Gradient) and (s.mode == "eval" or _modeless(model))]
        gradient = yield from _together(model, batches, shared, bool(plain), loss, generator, limit)
        seen = sum(len(x) for x, _ in batches)
        made = {s: gatherer.found(seen) for s, gatherer in shared.items()} | dict.fromkeys(plain, gradient)
        found = {s: value for s, value in made.items() if value is not None}
    seed = (generator or torch.Generator()).initial_seed() % 2**63
    for statistic in (s for s in wanted if s not in found):
        match statistic:
            case Gradient(mode=mode):
                found[statistic] = mean_gradient(model, batches, loss, mode=mode, seed=seed)
            case HessianGradient(temperature=temperature, mode=mode, checked=checked):
                found[statistic] = hessian_gradient(
                    model, batches, tempered(loss, temperature), mode=mode, checked=checked, seed=seed
                )
            case Jacobians(samples=samples, conv=conv):
                first = islice((one for x, _ in batches for one in x.split(1)), samples)
                found[statistic] = jacobian_singular_values(model, joined(list(first)), conv=conv)
    return found


def _gatherer(statistic: Statistic, model: nn.Module) -> Gatherer:
    module, _, name = statistic.gathered_by.partition(":")
    return getattr(import_module(module), name)(statistic, model)


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
        if (slopes := statistic.slopes) is not None:
            readers.setdefault(slopes, []).append(gatherer)
    network = network_of(model, batches[0][0])
    single = {gatherer: gatherer.single(network) for gatherer in shared.values()}
    seed = ((generator or torch.Generator()).initial_seed() + 1) % 2**63
    labels = {reading: torch.Generator().manual_seed(seed) for reading in readers}
    params = named(model) if gradient else {}
    total = {name: torch.zeros_like(p) for name, p in params.items()}
    seen = 0
    recorder = Recorder(model, network)
    with untouched(model):
        for x, y in _portions(recorder, model, batches, limit, exact=any(kind == "all" for kind, _ in readers)):
            outputs = recorder.forward(model, x)
            for gatherer in shared.values():
                gatherer.outputs(recorder, outputs, y, loss)
                for name in recorder:
                    if gatherer.direct(recorder.product(name)):
                        gatherer.inputs(recorder, name, recorder.use(name).input())
            for (kind, draws), reading in readers.items():
                also = params if kind == "labels" else {}
                names = [n for n in recorder if any(g.direct(recorder.product(n)) for g in reading)]
                slopes = cotangents(loss, outputs, y, kind, draws, labels[kind, draws])
                for several in slopes.split(max(1, limit // 2 // max(1, recorder.bytes * len(x)))):
                    for one in several:
                        here, there = recorder.slopes(one, outputs, names, list(also.values()))
                        for name, slope in zip(names, here, strict=True):
                            for gatherer in (g for g in reading if g.direct(recorder.product(name))):
                                gatherer.slope(recorder, name, slope, len(several))
                        for name, value in zip(also, there, strict=True):
                            total[name] += value
                        del here
                    for gatherer in reading:
                        for name in names:
                            gatherer.slopes_end(recorder, name)
                for gatherer in reading:
                    if wanted := _missing(gatherer, single[gatherer], recorder):
                        together = outputs if network.mixes or not _alike(model, x, outputs) else None
                        for i, found in of_single_samples(model, wanted, x, slopes, limit, together):
                            gatherer.gradients(i, found)
            seen += len(x)
            del outputs
            yield seen
    return {name: value / seen for name, value in total.items()}


def _missing(gatherer: Gatherer, single: Sequence[str], recorder: Recorder) -> list[str]:
    """Of the parameters that a gatherer wants, those that it cannot have from a product: weights with their biases."""
    weights = recorder.network.weights
    had = {n for n in recorder if gatherer.direct(recorder.product(n))}
    had |= {bias for n in had for bias in weights[n].biases}
    return [n for n in single if n not in had]


def of_single_samples(
    model: nn.Module,
    names: Sequence[str],
    x: Samples,
    slopes: Tensor,
    limit: int = LIMIT,
    together: Tensor | None = None,
) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """Gradients sample by sample, for each slope at the outputs [k, n, ...]: sample, name -> [k, *parameter].

    Each sample passes by itself: right for whatever the network does with its weights. Where samples meet, they pass
    ``together``: the outputs [n, ...], with their graph.
    """
    params = named(model)
    chosen = [params[n] for n in names]
    size = sum(p.numel() * p.element_size() for p in chosen)
    for i in range(len(x)):
        outputs = forward(model, x[i : i + 1]) if together is None else together
        parts = [
            _backward(outputs, chosen, some[:, i : i + 1] if together is None else _alone(some, i))
            for some in slopes.split(max(1, limit // 2 // size))
        ]
        yield i, {n: torch.cat(several) for n, several in zip(names, zip(*parts, strict=True), strict=True)}


def _alike(model: nn.Module, x: Samples, outputs: Tensor) -> bool:
    """Whether a sample by itself gives outputs of the same shape: not where code takes away every axis of size one."""
    if len(x) == 1:
        return True
    with torch.no_grad():
        try:
            return forward(model, x[:1]).shape == outputs[:1].shape
        except RuntimeError:
            return False


def _alone(slopes: Tensor, i: int) -> Tensor:
    """The slopes [k, n, ...] of one sample, those of the others zero."""
    found = torch.zeros_like(slopes)
    found[:, i] = slopes[:, i]
    return found


def _backward(outputs: Tensor, chosen: Sequence[Tensor], slopes: Tensor) -> list[Tensor]:
    """Gradients for several slopes at once [k, ...], or one after another where an operation cannot."""
    if not outputs.requires_grad:
        return [p.new_zeros(len(slopes), *p.shape) for p in chosen]
    options: Any = {"retain_graph": True, "allow_unused": True}
    try:
        found = torch.autograd.grad(outputs, chosen, slopes, is_grads_batched=True, **options)
    except RuntimeError:
        each = [torch.autograd.grad(outputs, chosen, slope, **options) for slope in slopes]
        found = [None if gs[0] is None else torch.stack(gs) for gs in zip(*each, strict=True)]
    return [
        p.new_zeros(len(slopes), *p.shape) if g is None else g.to_dense() for p, g in zip(chosen, found, strict=True)
    ]


def _portions(
    recorder: Recorder, model: nn.Module, batches: Sequence[Batch], limit: int, exact: bool
) -> Iterator[Batch]:
    """The batches, in parts whose activations stay within half the limit: about four tensors of each layer's output.

    ``exact``: the slopes of all outputs are there at once, which are many where outputs have positions.
    """
    if recorder.network.mixes:  # another portion would be other samples' company
        yield from batches
        return
    step = None
    outputs = recorder.network.outputs
    slopes = 8 * outputs.numel() ** 2 if exact and len(outputs) > 1 else 0
    for x, y in batches:
        if step is None and (len(x) > FEW or slopes * len(x) > limit // 2):
            recorder.forward(model, x[:1])
            step = max(1, limit // 2 // max(1, 4 * recorder.bytes, slopes))
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
            return loss.root(outputs, y).movedim(-1, 0)
        case _:
            return loss.drawn(outputs, draws, generator, y)

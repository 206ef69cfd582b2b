"""One pruning step: score, choose, repair. What a run does at each stage, and ``pv.score`` and ``pv.prune`` on any network."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from warnings import warn

import torch
from torch import Tensor, nn

from pruneviz.basics.errors import InvalidSetting, PruningWarning, Unsuitable
from pruneviz.curvature.task import Task, generator_for
from pruneviz.door.arrival import HALF, Arrival, enter, listed
from pruneviz.door.loss import CROSS_ENTROPY, Loss
from pruneviz.door.parameters import copied, named
from pruneviz.door.samples import Chosen, Samples, tensors
from pruneviz.methods import method_class
from pruneviz.methods.base import Method
from pruneviz.units.choice import at_the_cut
from pruneviz.units.compact import smaller
from pruneviz.units.cost import Cost, cost
from pruneviz.units.directions import rotated
from pruneviz.units.filters import Filters
from pruneviz.units.masks import Mask, Scores
from pruneviz.units.paths import broken_at
from pruneviz.units.recalibrate import recalibrate_
from pruneviz.units.start import alive_at
from pruneviz.units.weights import COVERED, SKIPPED, known_patterns, left_out, share, unpriced

TIED = 0.01  # share of the units tied at the cut above which it is said


@dataclass(frozen=True)
class Origin:
    """What a pruned network was made by, and of: what figures draw of it. ``digest``: of the weights it started from."""

    method: str
    params: dict[str, Any]
    seed: int
    start: nn.Module
    before: Mask
    scores: Scores
    samples: int
    shape: tuple[int, ...]

    @property
    def digest(self) -> str:
        found = hashlib.sha256()
        for name, tensor in self.start.state_dict().items():
            found.update(name.encode())
            found.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
        return found.hexdigest()


@dataclass(frozen=True)
class Pruned:
    """A pruned copy of a network. ``scores`` is shaped as :func:`score` returns it; ``report``: asked, reached,
    threshold, parameters, flops, per_layer (sparsity of each), empty_layers, connected, broken_at (the layer at which the
    last path from the input ends, None where one reaches the output), covered (share of the matrix weights that the sparsity
    is about), left_out (name -> why), unused, shared, at_the_cut (share of units tied with the last to leave), notes.
    ``sample`` [1, ...]: the form of its inputs; ``origin``: what it was made by.
    EigenDamage's copy holds a :class:`~pruneviz.units.directions.Rotated` in the place of each layer but the last."""

    model: nn.Module
    mask: Mask
    scores: dict[str, Any]
    report: dict[str, Any]
    sample: Samples = field(repr=False)
    origin: Origin | None = field(default=None, repr=False)


def score(
    model: nn.Module,
    x: Any,
    y: Any = None,
    *,
    method: str,
    initial: Mapping[str, Tensor] | None = None,
    seed: int = 0,
    mask: Mapping[str, Tensor] | None = None,
    skip: str | Sequence[str] = (),
    loss: str | Loss | Callable = "cross-entropy",
    outputs: Chosen = None,
    **params: Any,
) -> dict[str, Any]:
    """A method's score of every unit on exactly these samples, higher = keep.

    Weights: parameter name -> tensor like it. Filters: layer -> {0: [out]}. Directions: layer -> {0: [out], 1: [in]}, by
    falling eigenvalue. float32 for a network in half precision. The model is left as it was.

    ``x``: a tensor or array, a mapping of tensors (given by keyword), a tuple of tensors, or batches: pairs of x and y, a
    DataLoader, read once (``y`` is None then). ``loss``: "cross-entropy", "squared", "binary", or for gradient scores a
    function of outputs and targets that gives the mean. ``outputs``: which of the network's outputs is read, by name, number
    or function. ``skip``: layers left alone, by name (``"*.norm1"``); ``mask``: what is there at the start. ``params`` are the
    method's switches. Warns (:class:`~pruneviz.basics.errors.PruningWarning`) where less than 90% of the matrix weights are
    scored. Raises UnknownName, InvalidSetting, Unsuitable.
    """
    at = _setting(model, x, y, method, initial, seed, mask, skip, loss, outputs, params)
    work = at.arrival.model
    if mask is not None:
        work = copied(work)
        Mask(at.task.alive or {}).apply_(work)
    full = at.method.full(work, at.task)
    found = _by_name(at.method.score(work, at.task, full), work)
    _tell(at, full, _seen(at, full))
    return found


def prune(
    model: nn.Module,
    x: Any,
    y: Any = None,
    *,
    method: str,
    sparsity: float,
    initial: Mapping[str, Tensor] | None = None,
    seed: int = 0,
    mask: Mapping[str, Tensor] | None = None,
    skip: str | Sequence[str] = (),
    loss: str | Loss | Callable = "cross-entropy",
    outputs: Chosen = None,
    recalibrate: bool = False,
    **params: Any,
) -> Pruned:
    """One-shot pruning of a copy, without training: exactly the asked fraction of prunable weights is zero afterwards.

    Arguments as of :func:`score`. Whole units: the largest fraction not above it, counted on the compacted network.
    ``recalibrate``: statistics of batch normalisation are estimated again on these samples, after pruning.
    Raises Unreachable beyond the maximum.
    """
    at = _setting(model, x, y, method, initial, seed, mask, skip, loss, outputs, params)
    work = copied(at.arrival.model)
    Mask(at.task.alive or {}).apply_(work)
    work = at.method.frame(work, at.task)
    before = at.method.full(work, at.task)
    scores = at.method.score(work, at.task, before)
    after = remove(at.method, work, at.task, scores, before, sparsity)
    if recalibrate:
        recalibrate_(work, at.task.batches())
    sample = at.arrival.sample
    spent, end = spending(work, sample, after), broken_at(work, after, sample)
    tied = at_the_cut(scores, before, after)
    report = {
        "asked": sparsity,
        "reached": after.sparsity,
        "threshold": threshold(scores, before, after),
        "parameters": spent.parameters,
        "flops": spent.flops,
        "per_layer": after.per_layer(),
        "empty_layers": after.empty_layers,
        "connected": end is None,
        "broken_at": end,
        **_seen(at, after),
        "at_the_cut": tied,
    }
    _tell(at, after, report)
    if tied > TIED:
        warn(
            f"{100 * tied:.0f}% of the units are tied at the cut: their scores are equal, so that chance decides which of them "
            "leave. Score more samples, or another method.",
            PruningWarning,
            stacklevel=2,
        )
    first = next(iter(tensors(sample)))
    origin = Origin(
        method,
        params,
        seed,
        at.arrival.model,
        before,
        scores,
        sum(len(x) for x, _ in at.arrival.batches),
        tuple(first.shape[1:]),
    )
    return Pruned(as_before_(work, model), after, _by_name(scores, work), report, sample, origin)


def spending(model: nn.Module, sample: Samples, mask: Mask) -> Cost:
    """What is left to pay: of rotated layers their smaller pieces, of everything else what the mask keeps."""
    if not rotated(model):
        return cost(model, sample, mask)
    return cost(smaller(model, sample)[0], sample)


def remove(method: Method, model: nn.Module, task: Task, scores: Scores, mask: Mask, target: float) -> Mask:
    """Choose by these scores, move the survivors where the method repairs, zero the rest; in place."""
    chosen = method.choose(model, task, scores, mask, target)
    write_(model, method.repaired(model, task, scores, chosen))
    chosen.apply_(model)
    return chosen


@torch.no_grad()
def write_(model: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Set parameters by name, in place."""
    params = named(model)
    for name, value in values.items():
        params[name].copy_(value)


def controlled(scores: Scores, mask: Mask, control: str, generator: torch.Generator) -> Scores:
    """Scores under a sanity control: inverted, or shuffled among the survivors of each layer."""
    if control == "invert":
        return replace(scores, values={group: -value for group, value in scores.values.items()})
    if control == "shuffle":
        values = {}
        for group, value in scores.values.items():
            alive = mask.units[group].nonzero().flatten()
            order = torch.randperm(len(alive), generator=generator).to(alive.device)
            values[group] = value.index_copy(0, alive, value[alive[order]])
        return replace(scores, values=values)
    return scores


def threshold(scores: Scores, before: Mask, after: Mask) -> float:
    """The highest score among the units that just left: for magnitude the c of |w| < c std. NaN where none left."""
    left = [v[before.units[g] & ~after.units[g]] for g, v in scores.values.items()]
    found = torch.cat(left) if left else torch.empty(0)
    return float(found.max()) if found.numel() else float("nan")


@dataclass(frozen=True)
class _Setting:
    """What one scoring is about."""

    method: Method
    task: Task
    arrival: Arrival


def _setting(
    model: nn.Module,
    x: Any,
    y: Any,
    method: str,
    initial: Mapping[str, Tensor] | None,
    seed: int,
    mask: Mapping[str, Tensor] | None,
    skip: str | Sequence[str],
    loss: str | Loss | Callable,
    outputs: Chosen,
    params: dict[str, Any],
) -> _Setting:
    cls = method_class(method)
    for what, given in (("initial", initial), ("mask", mask)):
        if given is not None and not isinstance(given, Mapping):
            raise InvalidSetting(
                f"{what} is a mapping of parameter names to tensors; found {type(given).__name__}. Give a network's state_dict() "
                "for initial, a Mask for mask."
            )
    skip = () if skip is None else skip
    several: tuple[Any, ...] = tuple(skip) if isinstance(skip, list | tuple | set) else (skip,)
    if not all(isinstance(part, str | int) for part in several):
        raise InvalidSetting(f"skip is a list of layers, by name; found {skip!r}.")
    counts = (
        "skip" in cls.model_fields
    )  # l1-filters: it knows convolutions by number too, and says itself what it doesn't know
    if several and counts:
        params = {"skip": several, **params}
    key = loss.key if isinstance(loss, Loss) else loss
    if "loss" in cls.model_fields and isinstance(key, str) and key != CROSS_ENTROPY.key:
        params = {"loss": key, **params}
    chosen = cls.from_params(params)
    arrival = enter(model, x, y, loss=params.get("loss", loss), outputs=outputs, targets=y is not None or cls.slopes)
    patterns = cls.patterns(map(str, several))
    if not counts:
        known_patterns(arrival.network, patterns)
    samples, answers = sum(len(one) for one, _ in arrival.batches), arrival.network.outputs.numel()
    if said := chosen.beyond(arrival.network, samples, answers):
        raise Unsuitable(said)
    task = Task(
        lambda: arrival.batches,
        generator_for(seed, "score"),
        loss=arrival.loss,
        initial=_fitting(arrival.model, initial),
        device=next(arrival.model.parameters()).device,
        scope=cls.card.scope,
        skip=patterns,
    )
    names = [*arrival.network.weights, *arrival.network.biases()]
    inside = {w.name: w.alive for w in arrival.network.weights.values() if w.alive is not None}
    return _Setting(chosen, replace(task, alive=_there(arrival.model, names, inside, mask)), arrival)


def _there(
    model: nn.Module, names: Sequence[str], inside: Mapping[str, Tensor], mask: Mapping[str, Tensor] | None
) -> dict[str, Tensor]:
    """What is there at the start: not what a mask says is gone, one inside the network or one given, nor what is zero."""
    found = alive_at(model, names, given=mask)
    return {name: keep & inside[name] if name in inside else keep for name, keep in found.items()}


def _fitting(model: nn.Module, initial: Mapping[str, Tensor] | None) -> Mapping[str, Tensor] | None:
    """Initial weights that are this network's. Raises Unsuitable."""
    if initial is None:
        return None
    params = named(model)
    for name, value in initial.items():
        bare = name.removeprefix("module.")
        if name not in params and bare in params:
            raise Unsuitable(
                f"initial has {name!r}, and the network has {bare!r}: it was saved from DataParallel. Take 'module.' off its names."
            )
        if name in params and value.shape != params[name].shape:
            raise Unsuitable(
                f"initial has {name!r} in the shape {list(value.shape)}, and the network in {list(params[name].shape)}. "
                "Give the weights that this very network started from."
            )
    tensors = {name: torch.as_tensor(value) for name, value in initial.items()}
    return {name: value.float() if value.dtype in HALF else value for name, value in tensors.items()}


def _seen(at: _Setting, mask: Mask) -> dict[str, Any]:
    """What of the network the sparsity is about, and what not."""
    network = at.arrival.network
    missing = left_out(network, mask, skip=at.task.skip, slopes=at.method.slopes, kinds=at.method.kinds)
    if isinstance(mask.layout, Filters):
        missing |= {f"{layer}.weight": why for layer, why in mask.layout.stays.items()}
    zero = [n for n in mask if n in (own := named(at.arrival.model)) and not bool(own[n].any())]
    living = (f"Zero from the start, and counted as living: {listed(zero)}.",) if zero else ()
    return {
        "covered": share(network, mask),
        "left_out": missing,
        "unused": network.unused,
        "shared": network.shared,
        "notes": (*at.arrival.notes, *living, *unpriced(network)),
    }


def _tell(at: _Setting, mask: Mask, seen: Mapping[str, Any]) -> None:
    """Warn where the sparsity is about less than it seems, and of what questions the result."""
    counted = share(at.arrival.network, mask, skip=at.task.skip)
    if counted < COVERED:
        said = [f"{name!r} ({why})" for name, why in seen["left_out"].items() if why != SKIPPED]
        more = f" and {len(said) - 6} more" if len(said) > 6 else ""
        warn(
            f"Only {100 * counted:.0f}% of the matrix weights are scored and counted. Left out: {', '.join(said[:6])}{more}.",
            PruningWarning,
            stacklevel=3,
        )
    if at.method.card.unit.turned and (told := at.method.foretell(at.arrival.model)):
        warn(f"{at.method.card.title}: {told}.", PruningWarning, stacklevel=3)
    for doubt in at.arrival.doubts:
        warn(doubt, PruningWarning, stacklevel=3)


@torch.no_grad()
def as_before_(work: nn.Module, model: nn.Module) -> nn.Module:
    """Every tensor of the pruned copy in the precision it came in; what is new in that of the network."""
    known = {
        name: tensor.dtype for name, tensor in [*named(model).items(), *model.named_buffers(remove_duplicate=False)]
    }
    usual = next(model.parameters()).dtype
    if usual == next(work.parameters()).dtype and usual not in HALF:
        return work
    for name, parameter in named(work).items():
        parameter.data = parameter.data.to(known.get(name, usual))
    for prefix, module in work.named_modules():
        for kind, buffer in module.named_buffers(recurse=False):
            name = f"{prefix}.{kind}" if prefix else kind
            if buffer.is_floating_point():
                setattr(module, kind, buffer.to(known.get(name, usual)))
    return work


def _by_name(scores: Scores, model: nn.Module) -> dict[str, Any]:
    """Single weights: parameter name -> tensor like it. Units on an axis: module name -> {axis: [units]}."""
    params = named(model)
    found: dict[str, Any] = {}
    for group, value in scores.values.items():
        if group.members[0].axes:
            found.setdefault(group.layer, {})[group.members[0].axes[0]] = value
        else:
            found[group.name] = value.view_as(params[group.name]).to(params[group.name].dtype)
    return found

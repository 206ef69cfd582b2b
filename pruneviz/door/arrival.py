"""The door: any network, any samples, any targets come in here, and are right, or refused in one sentence."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from pruneviz.basics.errors import Unsuitable
from pruneviz.door.loss import CROSS_ENTROPY, Loss
from pruneviz.door.network import Network, network_of
from pruneviz.door.parameters import copied, named
from pruneviz.door.samples import Chosen, Inputs, Samples, changed, forward, tensors
from pruneviz.door.targets import fit_batches
from pruneviz.door.untouched import untouched

HALF = (torch.float16, torch.bfloat16)
TOGETHER = 64  # samples of a data set in a batch
LABELS = ("labels", "label", "targets", "target", "y")


@dataclass(frozen=True)
class Arrival:
    """A network and samples that fit each other. ``model``: in float32 where it came in half precision, the one given otherwise.

    ``notes``: sentences worth saying; ``doubts``: those of them that question the result.
    """

    model: nn.Module
    batches: list[tuple[Samples, Tensor]]
    loss: Loss
    network: Network
    notes: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()

    @property
    def sample(self) -> Samples:
        return form_of(self.model, self.network, self.batches[0][0])


def enter(
    model: nn.Module,
    x: Any,
    y: Any = None,
    *,
    loss: str | Loss | Callable = "cross-entropy",
    outputs: Chosen = None,
    targets: bool = True,
) -> Arrival:
    """Look at a network and at samples before any work.

    ``x``: a tensor, array, mapping of tensors, tuple of tensors, or batches (pairs of x and y, a DataLoader: read once).
    ``targets``: whether the labels are read at all. Raises: Unsuitable, naming what does not fit and what to do.
    """
    checked(model)
    work = copied(model).float() if any(p.dtype in HALF for p in model.parameters()) else model
    like = next(work.parameters())
    batches = [(fitting(work, one, like, outputs), t) for one, t in batches_of(x, y, work)]
    if not any(len(one) for one, _ in batches):
        raise Unsuitable("There are no samples: x is empty. Give at least one.")
    batches = [(one, t) for one, t in batches if len(one)]
    first = batches[0][0]
    result = tried(work, first[: min(2, len(first))], first)
    doubts: tuple[str, ...] = ()
    if targets:
        chosen, fitted = fit_batches(result, [(len(one), t) for one, t in batches], loss)
        doubts = fitted[0].notes
        parts = [
            (one if f.counted is None else one[f.counted], f.y if f.counted is None else f.y[f.counted])
            for (one, _), f in zip(batches, fitted, strict=True)
        ]
        batches = [(one, t) for one, t in parts if len(one)]
    else:
        chosen = CROSS_ENTROPY
        batches = [(one, torch.zeros(len(one), dtype=torch.long)) for one, _ in batches]
    network = _looked(work, first)
    if not network.weights:
        raise Unsuitable("The network's forward pass reads no weight matrix, so there is nothing to prune.")
    frozen = [w.name for w in network.weights.values() if w.frozen]
    notes = (f"Frozen weights are scored like the others: {listed(frozen)} (requires_grad=False).",) if frozen else ()
    return Arrival(work, batches, chosen, network, doubts + notes, doubts)


def _looked(model: nn.Module, x: Samples) -> Network:
    """What a look finds. Raises Unsuitable where the network runs, and slopes cannot be taken of it."""
    try:
        return network_of(model, x)
    except RuntimeError as error:
        mend = (
            "Use torch.no_grad() in place of torch.inference_mode()."
            if "nference tensor" in str(error)
            else "Its forward pass has to run as it does in training."
        )
        raise Unsuitable(
            f"The network runs, but not where slopes are taken: {_said(error).partition('. ')[0]}. {mend}"
        ) from error


def checked(model: nn.Module) -> None:
    """Raises Unsuitable for modules that cannot be looked into."""
    if not isinstance(model, nn.Module):
        raise Unsuitable(f"A network is a torch.nn.Module; found {type(model).__name__}.")
    name = type(model).__name__
    if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        raise Unsuitable(f"The network is wrapped in {name}, which splits samples over devices. Pass its .module.")
    if isinstance(model, torch.jit.ScriptModule):
        raise Unsuitable(
            "The network is scripted (TorchScript), so its layers can't be watched. Pass the module it was made from."
        )
    if name == "OptimizedModule":
        raise Unsuitable(
            "The network is compiled, so its layers can't be watched. Pass the module it was made from: model._orig_mod."
        )
    for prefix, module in model.named_modules():
        compiled = getattr(module, "_compiled_call_impl", None) or getattr(module.forward, "_is_torch_compile", None)
        if compiled is not None or type(module).__name__ == "OptimizedModule":
            raise Unsuitable(
                f"{f'Layer {prefix!r}' if prefix else 'The network'} is compiled, so it can't be watched. Compile the network "
                "after pruning, not before."
            )
        if isinstance(module, torch.jit.ScriptModule):
            raise Unsuitable(
                f"Layer {prefix!r} is scripted (TorchScript) and can't be watched. Use the module it was made from."
            )
        if "quantized" in type(module).__module__:
            raise Unsuitable(
                f"Layer {prefix!r} ({type(module).__name__}) is quantised: its weights are no numbers to prune. Prune first, then quantise."
            )
    devices = set()
    for label, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if isinstance(tensor, nn.UninitializedParameter | nn.UninitializedBuffer):
            raise Unsuitable(
                f"{label!r} has no shape yet (a lazy layer). Run the network once on a batch, then pass it."
            )
        if tensor.is_meta and tensor.device.type == "meta":
            raise Unsuitable(f"{label!r} is on the meta device and has no numbers. Load the weights first.")
        if tensor.is_quantized:
            raise Unsuitable(f"{label!r} is quantised. Prune first, then quantise.")
        if tensor.is_complex() and isinstance(tensor, nn.Parameter):
            raise Unsuitable(
                f"{label!r} holds complex numbers, which no method here scores. Keep real and imaginary part as two parameters."
            )
        devices.add(tensor.device)
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor.detach()).all()):
            raise Unsuitable(
                f"{label!r} holds NaN or infinity. Train with a lower learning rate, or load another checkpoint."
            )
    if not list(model.parameters()):
        raise Unsuitable("The network has no parameters, so there is nothing to prune.")
    if len(devices) > 1:
        raise Unsuitable(
            f"The network lies on several devices ({', '.join(sorted(map(str, devices)))}). Bring it to one: model.to('cpu')."
        )


def batches_of(x: Any, y: Any, model: nn.Module) -> Iterator[tuple[Any, Any]]:
    """(samples, targets) for each batch of what was given."""
    if isinstance(x, Dataset) and not isinstance(x, Tensor):
        x = DataLoader(x, batch_size=TOGETHER)
    if y is not None and isinstance(x, DataLoader | Iterator):
        raise Unsuitable(
            "x gives batches, and y is given beside it. Let the batches be pairs of samples and targets, and leave out y."
        )
    if y is not None or isinstance(x, Tensor | np.ndarray | Inputs) or _numbers(x):
        yield x, y
    elif isinstance(x, tuple) and len(x) > 1 and all(isinstance(t, Tensor) for t in x) and _takes(model, x):
        yield x, None
    elif isinstance(x, Mapping):
        yield _without_labels(x)
    elif (
        isinstance(x, tuple | list)
        and len(x) == 2
        and isinstance(x[0], Tensor | np.ndarray | Mapping)
        and not isinstance(x[1], tuple | list | Mapping)
    ):
        yield x[0], x[1]
    elif isinstance(x, Iterable) and not isinstance(x, str):
        for batch in x:
            yield _without_labels(batch) if isinstance(batch, Mapping) else _two(batch)
    else:
        raise Unsuitable(
            f"x is a tensor, an array, a mapping of tensors, or batches of x and y; found {type(x).__name__}."
        )


def _two(batch: Any) -> tuple[Any, Any]:
    if isinstance(batch, Tensor | np.ndarray):
        return batch, None
    if isinstance(batch, tuple | list) and 0 < len(batch) <= 2:
        return batch[0], batch[1] if len(batch) == 2 else None
    raise Unsuitable(
        f"A batch is a pair of samples and targets; found {type(batch).__name__} of {len(batch) if hasattr(batch, '__len__') else 1}. "
        "Several inputs go together: ((a, b), y), or a mapping with the targets under 'labels'."
    )


def _numbers(x: Any) -> bool:
    """Whether it is nested lists of numbers."""
    while isinstance(x, list | tuple) and x:
        x = x[0]
    return isinstance(x, int | float | np.number)


def _takes(model: nn.Module, x: tuple[Tensor, ...]) -> bool:
    """Whether several tensors are the network's inputs, and not samples and targets or batches."""
    if len({len(t) if t.dim() else 0 for t in x}) > 1 or not len(x[0]):
        return False
    one = next(model.parameters())
    first = tuple((t.to(one.dtype) if t.is_floating_point() else t).to(one.device)[:1] for t in x)
    return not _runs(model, first[0]) and _runs(model, Inputs(first))


def _without_labels(batch: Mapping[str, Any]) -> tuple[dict[str, Any], Any]:
    label = next((key for key in LABELS if key in batch), None)
    return {k: v for k, v in batch.items() if k != label}, batch[label] if label else None


def fitting(model: nn.Module, x: Any, like: Tensor, outputs: Chosen) -> Samples:
    """Samples as tensors on the network's device, floating-point ones in its dtype. Raises Unsuitable."""

    def tensor(value: Any) -> Tensor:
        try:
            if isinstance(value, list | tuple) and value and all(isinstance(t, Tensor) for t in value):
                value = torch.stack(list(value))
            found = value.to_dense() if isinstance(value, Tensor) else torch.as_tensor(np.asarray(value))
        except (TypeError, ValueError, RuntimeError) as error:
            said = "" if isinstance(error, TypeError) else f" ({_said(error)})"
            raise Unsuitable(
                f"x can't be read as a tensor: it holds {type(value).__name__}{said}. Give a tensor or an array of numbers."
            ) from None
        if found.dim() == 0:
            raise Unsuitable(
                "Samples lie along the first axis of x; found a single number. Settings belong into the network."
            )
        if found.is_complex():
            raise Unsuitable("Samples are real numbers; found complex ones.")
        if found.is_floating_point():
            if not bool(torch.isfinite(found).all()):
                raise Unsuitable("The samples hold NaN or infinity. Leave these out, or fill them in.")
            found = found.to(like.dtype)
        return found.detach().to(like.device)

    def pruned(value: Any) -> Any:
        return {k: tensor(v) for k, v in value.items() if v is not None} if isinstance(value, Mapping) else value

    if isinstance(x, Mapping | tuple) and not any(v is not None for v in (x.values() if isinstance(x, Mapping) else x)):
        raise Unsuitable("There are no samples: x is empty. Give at least one.")
    if isinstance(x, Inputs):
        return x.each(tensor) if outputs is None else replace(x.each(tensor), outputs=outputs)
    if isinstance(x, Mapping):
        found: Samples = Inputs(pruned(x), outputs)
    elif isinstance(x, tuple):
        found = Inputs(tuple(tensor(v) for v in x), outputs)
    else:
        found = tensor(x)
        if outputs is not None:
            found = Inputs(found, outputs)
    if len({len(t) for t in tensors(found)}) > 1:
        raise Unsuitable(
            f"The inputs hold different numbers of samples: {', '.join(str(len(t)) for t in tensors(found))}."
        )
    whole = [t for t in tensors(found) if not t.is_floating_point()]
    if whole and len(found) and not _runs(model, found[:2]):
        for dtype in (like.dtype, torch.long):  # pictures in bytes; token ids in bytes
            numbers = changed(found, lambda t, d=dtype: t if t.is_floating_point() else t.to(d))
            if _runs(model, numbers[:2]):
                return numbers
    return found


def form_of(model: nn.Module, network: Network, x: Samples) -> Samples:
    """The form of the inputs: one sample, or two where the network does not run on one alone."""
    return x[:2] if network.mixes and not _runs(model, x[:1]) else x[:1]


def _runs(model: nn.Module, x: Samples) -> bool:
    try:
        with untouched(model), torch.no_grad():
            forward(model, x)
    except Unsuitable:
        return True
    except Exception:
        return False
    return True


def tried(model: nn.Module, x: Samples, whole: Samples) -> Tensor:
    """The network's outputs for a sample or two of the ``whole`` batch. Raises Unsuitable with the layer at which it stops."""
    with _entered(model) as inside:
        try:
            with untouched(model), torch.no_grad():
                result = forward(model, x)
        except Unsuitable:
            raise
        except Exception as error:
            raise Unsuitable(_stopped(model, x, inside, error, whole)) from error
    if not result.is_floating_point():
        raise Unsuitable(f"The network's outputs are {result.dtype} and have no slope. Choose others with outputs=.")
    if result.dim() == 0 or len(result) != len(x):
        raise Unsuitable(
            f"The network gives {tuple(result.shape)} for {len(x)} samples: outputs must have samples along the first axis. "
            "Choose or turn them with outputs=, e.g. outputs=lambda out: out.transpose(0, 1)."
        )
    if not bool(torch.isfinite(result).all()):
        raise Unsuitable(
            "The network's outputs hold NaN or infinity for these samples. Scale the samples as in training."
        )
    return result


@contextmanager
def _entered(model: nn.Module) -> Iterator[list[str]]:
    """Names of the modules that a forward pass is in, innermost last."""
    inside: list[str] = []

    def leave(module: nn.Module, inputs: Any, output: Any) -> None:
        inside.pop()

    def enter(name: str) -> Callable[..., None]:
        return lambda *_: inside.append(name)

    modules = dict(model.named_modules())
    handles = [module.register_forward_pre_hook(enter(name)) for name, module in modules.items()]
    handles += [module.register_forward_hook(leave) for module in modules.values()]
    try:
        yield inside
    finally:
        for handle in handles:
            handle.remove()


def _length(model: nn.Module, x: Samples) -> int | None:
    """How many results the network gives for these samples; None where it does not run."""
    try:
        with untouched(model), torch.no_grad():
            result = forward(model, x)
    except Exception:
        return None
    return len(result) if result.dim() else 0


def _said(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


def _stopped(model: nn.Module, x: Samples, inside: list[str], error: Exception, whole: Samples) -> str:
    if len(whole) > len(x) and (given := _length(model, whole)) is not None:
        if given != len(whole) and _runs(model, changed(whole, lambda t: t[None])):
            return "x is one sample without an axis of samples. Give x[None], and y likewise."
        return (
            f"The network runs on {len(whole)} samples and not on {len(x)} ({_said(error)}): its code counts on a batch of one "
            "size. Read the size from the tensor: x.flatten(1) or x.view(x.shape[0], -1) in place of a number."
        )
    name = next((n for n in reversed(inside) if n), "")
    where = f"at layer {name!r} ({type(model.get_submodule(name)).__name__})" if name else "in its own forward"
    said = _said(error)
    given = ", ".join(f"{tuple(t.shape)} {str(t.dtype).removeprefix('torch.')}" for t in tensors(x))
    embedding = name and isinstance(model.get_submodule(name), nn.Embedding)
    mend = (
        "An embedding takes whole numbers (token ids) below its number of rows."
        if embedding
        else "Give samples of the shape and type that it was made for."
    )
    return f"The network does not run on these samples ({given}): it stops {where}: {said}. {mend}"


def listed(names: Iterable[str], most: int = 4) -> str:
    """Names in quotes, the first few of many."""
    names = list(names)
    shown = ", ".join(repr(n) for n in names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


def matching(names: Mapping[str, str] | Iterable[str], model: nn.Module) -> None:
    """Raises Unsuitable where a state dict is of another network."""
    known = named(model)
    for name in names:
        if name not in known and name.removeprefix("module.") in known:
            raise Unsuitable(
                f"{name!r} is no parameter of this network, and {name.removeprefix('module.')!r} is: these weights were saved from "
                "DataParallel. Take 'module.' off the names, or save model.module.state_dict()."
            )

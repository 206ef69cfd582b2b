"""Removing for real: a smaller network of the same function, what it costs, and how it is kept."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from pruneviz.basics.errors import PrunevizError, Unsuitable
from pruneviz.curvature.layers import layer_called
from pruneviz.door.exact import Exact, drawn, exactly, flat, place, results
from pruneviz.door.parameters import Layer, copied, named
from pruneviz.door.samples import Samples, changed
from pruneviz.door.untouched import untouched
from pruneviz.units.channels import Channels, trace
from pruneviz.units.cost import BATCHES, Cost, cost, latencies
from pruneviz.units.directions import Rotated, left_whole, plain, replace_, rotated, set_weight_, wrap_

AGREE = 1e-10  # of the largest output, in float64


class Masked(Protocol):
    """A network whose removed parameters are zero, and a sample [1, ...] of its inputs: what ``pv.prune`` gives."""

    @property
    def model(self) -> nn.Module: ...

    @property
    def sample(self) -> Samples: ...


@dataclass(frozen=True)
class Compacted:
    """A network that is really smaller. ``before``, ``after``: what the dense network and this one cost; ``whole``: layers
    of EigenDamage that were left in one piece because three would have been larger."""

    model: nn.Module
    before: Cost
    after: Cost
    whole: tuple[str, ...] = ()
    _dense: nn.Module | None = field(default=None, repr=False, compare=False)
    _sample: Samples | None = field(default=None, repr=False, compare=False)

    @cached_property
    def speedup(self) -> dict[int, float]:
        """Batch size -> latency of the dense network over this one's, measured in turns."""
        assert self._dense is not None
        assert self._sample is not None
        found = {}
        for batch in BATCHES:
            dense, small = latencies([self._dense, self.model], self._sample, batch)
            found[batch] = dense / small
        return found

    def save(self, path: Path | str) -> None:
        """Keep the weights as safetensors; :func:`load` reads them into a network of the same architecture."""
        from safetensors.torch import save_file

        kinds = {name: layer.basis for name, layer in rotated(self.model).items()}
        state, seen = {}, set()
        for name, tensor in self.model.state_dict().items():
            tensor = tensor.detach().cpu().contiguous()
            state[name] = tensor.clone() if tensor.data_ptr() in seen else tensor  # a file has no tied weights
            seen.add(tensor.data_ptr())
        temporary = Path(path).with_suffix(f".{os.getpid()}.tmp")
        save_file(state, temporary, {f"rotated {name}": basis for name, basis in kinds.items()})
        os.replace(temporary, path)


def compact(pruned: Masked) -> Compacted:
    """The pruned network without what is gone: same function, fewer channels and directions.

    A channel goes where nothing reads it any more; so filters and directions leave whole, and of single weights what
    happens to be unread. Checked against the masked network on random inputs in float64.
    Raises: Unsuitable where the two differ, e.g. because the network's code counts its channels in numbers.
    """
    dense = plain(pruned.model)
    small, whole = smaller(pruned.model, pruned.sample)
    usual = next(dense.parameters()).dtype  # a network in half precision was scored in float32
    sample = changed(pruned.sample, lambda t: t.to(usual) if t.is_floating_point() else t)
    return Compacted(small, cost(dense, sample), cost(small, sample), whole, _dense=dense, _sample=sample)


def smaller(model: nn.Module, sample: Samples) -> tuple[nn.Module, tuple[str, ...]]:
    """A compacted copy of a masked network, and the layers that EigenDamage left whole. Worked out and checked in float64;
    every tensor has the precision and the device that it had before. Raises Unsuitable."""
    device = place(model)
    masked = copied(model).to(device, torch.float64)
    small, sample = copied(masked), exactly(sample, device)
    whole = list(left_whole(small))
    for name, layer in rotated(small).items():
        kept_in, kept_out = (int(keep.sum()) for keep in layer.kept())
        pays = layer.pieces(kept_in, kept_out) < layer.core.weight.numel() and kept_in > 0 and kept_out > 0
        replace_(small, name, layer.smaller() if pays else layer.merged())
        whole += [] if pays else [name]
    x = drawn(sample, torch.Generator().manual_seed(0), 4)
    expected = _run(masked, x, "The network does not run in float64, in which the smaller one is checked ({error}).")
    counted = (
        "The smaller network does not run ({error}): this network's code seems to count its channels in numbers. "
        "Read them from the tensors instead, e.g. x.flatten(1) in place of x.view(-1, 512)."
    )
    with _said(counted), Exact():
        while _drop_(small, trace(small, sample)):
            pass
    difference = _difference(expected, _run(small, x, counted))
    if not difference <= AGREE:
        raise Unsuitable(
            f"Removing channels would change this network's function by {difference:.1e} of its largest output, so it was "
            "not done. It treats channels in a way that cannot be followed."
        )
    _return_(small, model)
    return small, tuple(whole)


@contextmanager
def _said(sentence: str) -> Iterator[None]:
    """What a network's code raises, as one sentence."""
    try:
        yield
    except PrunevizError:
        raise
    except Exception as error:
        said = (
            f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no reason given'}"
        )
        raise Unsuitable(sentence.format(error=said)) from None


def _run(model: nn.Module, x: Samples, sentence: str) -> list[Tensor]:
    """All that a network gives, in evaluation mode and float64; the same noise each time where it draws some."""
    with _said(sentence), untouched(model), torch.no_grad(), Exact():
        torch.default_generator.manual_seed(0)
        return [t for t in flat(results(model, changed(x, Tensor.clone))) if t.is_floating_point()]


def _difference(expected: list[Tensor], found: list[Tensor]) -> float:
    """Largest difference of the outputs, as a share of the largest output; infinite where there are others."""
    if [t.shape for t in expected] != [t.shape for t in found]:
        return float("inf")
    most = 0.0
    for a, b in zip(expected, found, strict=True):
        same = (a == b) | (a.isnan() & b.isnan())
        if bool(same.all()):
            continue
        gap = torch.where(same, 0.0, (a - b).abs()).max()
        size = a[a.isfinite()].abs().max() if bool(a.isfinite().any()) else a.new_zeros(())
        most = max(most, float((gap / size.clamp(min=1e-30)).nan_to_num(nan=float("inf"))))
    return most


def _return_(small: nn.Module, model: nn.Module) -> None:
    """Every tensor in the precision and on the device it had in the network; a layer in one piece has its core's."""
    known = {**named(model), **dict(model.named_buffers(remove_duplicate=False))}
    cores = {name: layer.core.weight for name, layer in rotated(model).items()}
    made: dict[int, Tensor] = {}  # one that two layers share stays one
    for prefix, module in small.named_modules():
        for kind, tensor in _tensors(module):
            like = known.get(f"{prefix}.{kind}" if prefix else kind, cores.get(prefix, tensor))
            dtype = like.dtype if tensor.is_floating_point() else tensor.dtype
            if (tensor.device, tensor.dtype) == (like.device, dtype):
                continue
            if id(tensor) not in made:
                value = tensor.detach().to(like.device, dtype)
                made[id(tensor)] = (
                    nn.Parameter(value, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else value
                )
            setattr(module, kind, made[id(tensor)])


@torch.no_grad()
def _drop_(model: nn.Module, channels: Channels) -> bool:
    """Remove, in place, the free channels that no layer reads; one stays in every layer. Whether any was removed."""
    layers = {name: layer_called(name, model) for name in channels.writes}
    read = torch.zeros(len(channels.free), dtype=torch.bool)
    for name, reads in channels.reads.items():
        weight = layers[name].weight.detach()
        used = weight.flatten(2).any(2).any(0) if weight.dim() > 2 else weight.any(0)
        read[reads[used.cpu() if len(used) == len(reads) else torch.ones(len(reads), dtype=torch.bool)]] = True
    gone = channels.free & ~read
    for writes in channels.writes.values():
        if bool(gone[writes].all()):
            gone[writes[0]] = False
    if not bool(gone.any()):
        return False
    for name, layer in layers.items():
        rows, columns = ~gone[channels.writes[name]], ~gone[channels.reads[name]]
        if bool(rows.all()) and bool(columns.all()):
            continue
        device = layer.weight.device
        weight = layer.weight[rows.to(device)][:, columns.to(device)]
        set_weight_(layer, weight, layer.bias[rows.to(device)] if layer.bias is not None else None)
    for name, scaled in channels.scales.items():
        keep = ~gone[scaled]
        if not bool(keep.all()):
            norm = model.get_submodule(name)
            assert isinstance(norm, nn.modules.batchnorm._NormBase)
            for kind, tensor in [*norm.named_parameters(recurse=False), *norm.named_buffers(recurse=False)]:
                if tensor.dim() == 1:
                    cut = tensor.detach()[keep.to(tensor.device)].clone()
                    setattr(
                        norm, kind, nn.Parameter(cut, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else cut
                    )
            norm.num_features = int(keep.sum())
    return True


def load(path: Path | str, model: nn.Module) -> nn.Module:
    """A saved compacted network, from its weights and a dense network of the same architecture (which is left as it is).

    Raises: Unsuitable where names do not fit.
    """
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        state: Mapping[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        kinds = file.metadata() or {}
    found = copied(model)
    known = dict(found.named_modules())
    wanted = {name.removeprefix("rotated "): basis for name, basis in kinds.items() if name.startswith("rotated ")}
    if unknown := [name for name in wanted if not isinstance(known.get(name), Layer)]:
        raise Unsuitable(
            f"{path} holds layers that this network lacks ({unknown[0]!r}). Build the network it was made from."
        )
    wrap_(found, wanted)  # pyright: ignore[reportArgumentType]
    for name, module in found.named_modules():
        own = {kind: state[f"{name}.{kind}"] for kind, _ in _tensors(module) if f"{name}.{kind}" in state}
        if "weight" in own and isinstance(module, Layer):
            if own["weight"].dim() != module.weight.dim():
                raise Unsuitable(f"{path} holds another kind of layer as {name!r}. Build the network it was made from.")
            set_weight_(module, own["weight"], own.get("bias"))
        elif isinstance(module, nn.modules.batchnorm._NormBase):
            for kind, value in own.items():
                setattr(module, kind, nn.Parameter(value) if kind in ("weight", "bias") else value)
            module.num_features = len(own.get("running_mean", own.get("weight", ())))
        elif isinstance(module, Rotated):
            module.inputs, module.outputs = own["inputs"], own["outputs"]
    try:
        found.load_state_dict(dict(state))
    except RuntimeError as error:
        raise Unsuitable(f"{path} does not fit this network: {error}. Build the network it was made from.") from None
    return found


def _tensors(module: nn.Module) -> list[tuple[str, Tensor]]:
    return [(n, t) for n, t in [*module._parameters.items(), *module._buffers.items()] if t is not None]

"""A layer in the eigenbasis of its Kronecker factors: three layers in its place, whose directions can be removed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from pruneviz.curvature.kronecker import KroneckerFactors, spectral
from pruneviz.door.parameters import Convolution, Layer, copied
from pruneviz.records import metrics
from pruneviz.records.arrays import Cut
from pruneviz.records.units import Unit
from pruneviz.units.filters import SIDE
from pruneviz.units.masks import Group, Layout, Mask, Slot
from pruneviz.units.weights import called, prunable

Basis = Literal["channels", "patches"]

# The part of a rotated layer that has an attribute of the layer it stands for; "": the one with the kernel
_WHERE = {"in_features": "before", "in_channels": "before", "out_features": "after", "out_channels": "after"}
_WHERE |= dict.fromkeys(("kernel_size", "stride", "padding", "dilation", "padding_mode"), "")


class Rotated(nn.Module):
    r"""``after(core(before(x)))``: equal to the layer it replaces as long as nothing is removed (Wang et al. 2019, section 4).

    Linear: :math:`Q_A^\top`, :math:`Q_S^\top W Q_A`, :math:`Q_S`. Conv2d, basis "channels": a 1 x 1 convolution over input
    channels, a core with the layer's kernel, stride and padding, a 1 x 1 convolution over output channels; "patches": a
    convolution with the layer's kernel that gives the patch's coordinates, a 1 x 1 core, a 1 x 1 convolution. ``before`` and
    ``core`` have no bias, so padding with zeros stays what it was; ``after`` carries the layer's own. With groups each
    group has its own basis, and directions are counted within a group.

    ``inputs`` [in], ``outputs`` [out]: eigenvalues of A and S along the directions, descending, when the basis was taken.
    """

    inputs: Tensor
    outputs: Tensor
    before: Layer
    core: Layer
    after: Layer

    def __init__(self, layer: Layer, basis: Basis = "channels"):
        super().__init__()
        self.basis: Basis = basis if isinstance(layer, Convolution) else "channels"
        like = {"dtype": layer.weight.dtype, "device": layer.weight.device}
        if isinstance(layer, nn.Linear):
            n, out = layer.in_features, layer.out_features
            self.before = _linear(n, n, bias=False, **like)
            self.core = _linear(n, out, bias=False, **like)
            self.after = _linear(out, out, bias=layer.bias is not None, **like)
            eye = [torch.eye(k, **like) for k in (n, out)]
            weights = (eye[0], layer.weight, eye[1])
        else:
            g, out = layer.groups, layer.out_channels
            kernel = {name: getattr(layer, name) for name in ("stride", "padding", "dilation", "padding_mode")}
            side = layer.weight.shape[1]
            n = side if self.basis == "channels" else layer.weight[0].numel()
            wide, point = (1, layer.kernel_size) if self.basis == "channels" else (layer.kernel_size, 1)
            outer, inner = ({}, kernel) if self.basis == "channels" else (kernel, {})
            kind = nn.Conv1d if isinstance(layer, nn.Conv1d) else nn.Conv2d
            self.before = _conv(kind, layer.in_channels, n * g, wide, groups=g, bias=False, **outer, **like)
            self.core = _conv(kind, n * g, out, point, groups=g, bias=False, **inner, **like)
            self.after = _conv(kind, out, out, 1, groups=g, bias=layer.bias is not None, **like)
            eye = [torch.eye(k, **like) for k in (n, out // g)]
            weights = (eye[0].repeat(g, 1), layer.weight, eye[1].repeat(g, 1))
        with torch.no_grad():
            for part, weight in zip((self.before, self.core, self.after), weights, strict=True):
                part.weight.copy_(weight.reshape(part.weight.shape))
            if layer.bias is not None and self.after.bias is not None:
                self.after.bias.copy_(layer.bias)
        self.register_buffer("inputs", torch.zeros(n, **like))
        self.register_buffer("outputs", torch.zeros(len(self.core.weight) // self.groups, **like))

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.core(self.before(x)))

    @property
    def weight(self) -> Tensor:
        """The three multiplied out, with their gradient, for code that reads the layer's weight: no parameter, not to be set."""
        return self._product()

    @property
    def bias(self) -> Tensor | None:
        return self.after.bias

    @property
    def groups(self) -> int:
        return self.core.groups if isinstance(self.core, Convolution) else 1

    def __getattr__(self, name: str) -> Any:
        if name in _WHERE:
            outer = "core" if self.basis == "channels" else "before"
            return getattr(super().__getattr__(_WHERE[name] or outer), name)
        return super().__getattr__(name)

    @torch.no_grad()
    def turn_(self, factors: KroneckerFactors) -> None:
        """Turn into the eigenbasis of the core's factors, in place; directions already removed stay removed."""
        A, S = (t if t.dim() == 3 else t[None] for t in (factors.A, factors.S))
        core = self.core.weight.reshape(self.groups, -1, *self.core.weight.shape[1:])  # [g, out, in, k, k]
        flat = core.flatten(3) if core.dim() > 3 else core[..., None]  # [g, out, in, d]
        offsets = A.shape[-1] // flat.shape[2]  # A over patches, averaged over the kernel's offsets
        A = A.unflatten(1, (-1, offsets)).unflatten(3, (-1, offsets)).diagonal(dim1=2, dim2=4).mean(-1)
        kept_in, kept_out = flat.any(3).any(1).any(0), flat.any(3).any(2).any(0)
        (a, Q_A), (s, Q_S) = _within(A, kept_in), _within(S, kept_out)
        before = Q_A.mT @ self.before.weight.reshape(self.groups, len(a), -1)
        core = torch.einsum("gop,goid,giq->gpqd", Q_S, flat, Q_A)
        after = self.after.weight.reshape(self.groups, -1, len(s)) @ Q_S
        for part, value in ((self.before, before), (self.core, core), (self.after, after)):
            part.weight.copy_(value.reshape(part.weight.shape))
        self.inputs.copy_(a)
        self.outputs.copy_(s)

    def kept(self) -> tuple[Tensor, Tensor]:
        """Directions that are not removed: bool [in], bool [out]."""
        flat = self.core.weight.detach().reshape(
            self.groups, -1, self.core.weight.shape[1], self.core.weight[0, 0].numel()
        )
        into = self.before.weight.detach().reshape(self.groups, flat.shape[2], -1)
        out = self.after.weight.detach().reshape(self.groups, -1, flat.shape[1])
        return flat.any(3).any(1).any(0) & into.any(2).any(0), flat.any(3).any(2).any(0) & out.any(1).any(0)

    def pieces(self, kept_in: int, kept_out: int) -> int:
        """Weights of the three layers with so many directions in each group."""
        a, c, s = (part.weight.numel() for part in (self.before, self.core, self.after))
        n, out = len(self.inputs), len(self.outputs)
        return a * kept_in // n + c * kept_in * kept_out // (n * out) + s * kept_out // out

    @torch.no_grad()
    def smaller(self) -> Rotated:
        """A copy without the removed directions."""
        found = deepcopy(self)
        keep_in, keep_out = self.kept()
        rows_in, rows_out = keep_in.repeat(self.groups), keep_out.repeat(self.groups)
        weights = (
            self.before.weight[rows_in],
            self.core.weight[rows_out][:, keep_in],
            self.after.weight[:, keep_out],
        )
        for part, weight in zip((found.before, found.core, found.after), weights, strict=True):
            set_weight_(part, weight)
        found.inputs, found.outputs = self.inputs[keep_in], self.outputs[keep_out]
        return found

    def _product(self) -> Tensor:
        """[out, in / groups, ...], of the three weights."""
        g = self.groups
        before = self.before.weight.reshape(g, -1, *self.before.weight.shape[1:])  # [g, q, in, ...]
        core = self.core.weight.reshape(g, -1, *self.core.weight.shape[1:])  # [g, p, q, ...]
        after = self.after.weight.reshape(g, -1, self.after.weight.shape[1])  # [g, o, p]
        left = torch.einsum("gop,gpq...->goq...", after, core)
        if isinstance(self.core, nn.Linear):
            weight = left @ before
        elif self.basis == "channels":
            weight = torch.einsum("goq...,gqi->goi...", left, before.flatten(3)[..., 0])
        else:
            weight = torch.einsum("goq,gqi...->goi...", left.flatten(3)[..., 0], before)
        return weight.flatten(0, 1)

    @torch.no_grad()
    def merged(self) -> Layer:
        """The three layers multiplied into one of the original's shape."""
        weight = self._product()
        options = {"bias": self.bias is not None, "dtype": weight.dtype, "device": weight.device}
        if isinstance(self.core, nn.Linear):
            layer = _linear(weight.shape[1], len(weight), **options)
        else:
            kernel = {name: getattr(self, name) for name in ("stride", "padding", "dilation", "padding_mode", "groups")}
            kind = nn.Conv1d if isinstance(self.core, nn.Conv1d) else nn.Conv2d
            layer = _conv(kind, self.in_channels, len(weight), self.kernel_size, **kernel, **options)
        layer.weight.copy_(weight)
        if layer.bias is not None and self.bias is not None:
            layer.bias.copy_(self.bias)
        layer.train(self.training)
        return layer


def _linear(*sizes: Any, device: torch.device, **options: Any) -> nn.Linear:
    """A layer that is about to be filled: it takes no random numbers."""
    with torch.random.fork_rng(devices=[]):
        return nn.Linear(*sizes, **options).to(device)


def _conv(kind: type[Convolution], *sizes: Any, device: torch.device, **options: Any) -> Convolution:
    with torch.random.fork_rng(devices=[]):
        return kind(*sizes, **options).to(device)


def _within(matrix: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues [n], descending, and eigenvectors [g, n, n] on the kept coordinates; the others in their places, unturned.

    With groups the eigenvalues are their means: directions of equal rank leave together.
    """
    n = len(kept)
    at = kept.nonzero().flatten()
    values, vectors = spectral(matrix[:, at][:, :, at])
    Q = torch.eye(n, dtype=matrix.dtype, device=matrix.device).repeat(len(matrix), 1, 1)
    Q[:, at[:, None], at] = vectors.flip(2).to(Q)
    found = torch.zeros(n, dtype=matrix.dtype, device=matrix.device)
    found[at] = values.flip(1).mean(0).to(found)
    return found, Q


def set_weight_(part: Layer, weight: Tensor, bias: Tensor | None = None) -> None:
    """Give a layer a weight of another size, in place; its groups stay."""
    part.weight = nn.Parameter(weight.detach().clone(), requires_grad=part.weight.requires_grad)
    if bias is not None:
        part.bias = nn.Parameter(bias.detach().clone(), requires_grad=part.weight.requires_grad)
    if isinstance(part, nn.Linear):
        part.out_features, part.in_features = weight.shape
    else:
        part.out_channels, part.in_channels = len(weight), weight.shape[1] * part.groups


LARGE = 4096  # side of a basis that is made whether it can pay or not


def sides(layer: Layer, basis: Basis) -> tuple[int, int]:
    """Directions of a layer's inputs and of its outputs, in each group."""
    groups = layer.groups if isinstance(layer, Convolution) else 1
    into = layer.weight[0].numel() if basis == "patches" else layer.weight.shape[1]
    return into, len(layer.weight) // groups


def too_large(layer: Layer, basis: Basis = "channels") -> bool:
    """Whether a layer's basis is beyond 4,096 and could not pay: three pieces are no smaller even with the most removed."""
    n, out = sides(layer, basis)
    groups = len(layer.weight) // out
    left_in, left_out = (size - int(SIDE * size + 1e-9) for size in (n, out))
    pieces = groups * (n * left_in + out * left_out) + layer.weight.numel() * left_in * left_out // (n * out)
    return max(n, out) > LARGE and pieces >= layer.weight.numel()


def left_whole(model: nn.Module) -> tuple[str, ...]:
    """Layers of a rotated network that were not turned because their basis would be too large."""
    layers = rotated(model)
    parts = {id(part) for layer in layers.values() for part in layer.children()}
    own = [(n, m) for n, m in model.named_modules() if isinstance(m, Layer) and id(m) not in parts]
    return tuple(n for n, m in own if too_large(m)) if layers else ()


def rotated(model: nn.Module) -> dict[str, Rotated]:
    """The rotated layers of a network, by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, Rotated)}


def wrap_(model: nn.Module, layers: Mapping[str, Basis]) -> None:
    """Put a rotated layer in the place of each one named, unturned as yet; in place."""
    for name, basis in layers.items():
        layer = model.get_submodule(name)
        assert isinstance(layer, Layer)
        replace_(model, name, Rotated(layer, basis).train(layer.training))


def replace_(model: nn.Module, name: str, by: nn.Module) -> None:
    """Another module in the place of the one named."""
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, by)


def plain(model: nn.Module) -> nn.Module:
    """The same function with every rotated layer multiplied out; the model itself where there is none."""
    layers = rotated(model)
    if not layers:
        return model
    found = copied(model)
    for name, layer in layers.items():
        replace_(found, name, layer.merged())
    return found


class Directions(Layout):
    """Directions of both eigenbases of every rotated layer as units. ``counted``: "compacted", or the "core" alone.

    Compacted, a layer counts its three pieces, or itself where these would be larger: it is left alone then. ``alive``:
    which entries of the network's own weights are there at the start, by parameter name. Of layers that are not rotated
    the others are gone in every mask and every count; of rotated ones, whose zeros are whole rows and columns
    (:func:`~pruneviz.units.start.whole_units`: a rotation fills all other zeros), these directions are gone from the start.
    ``skip``: patterns of layers that are not counted.
    """

    unit = Unit.EIGENBASIS

    def __init__(
        self,
        model: nn.Module,
        counted: Literal["compacted", "core"] = "compacted",
        *,
        alive: Mapping[str, Tensor] | None = None,
        skip: Sequence[str] = (),
    ):
        self.layers, self.counted = rotated(model), counted
        alive = alive or {}
        known = {name for name in prunable(model) if not any(called(name, pattern) for pattern in skip)}
        self._params = {n: p for n, p in model.named_parameters() if n in known}
        inside = {f"{name}.{part}.weight" for name in self.layers for part in ("before", "core", "after")}
        others = {name: p for name, p in self._params.items() if name not in inside}
        self._alive = {name: alive[name].to(p.device) for name, p in others.items() if name in alive}
        self._others = sum(
            p.numel() - int((~self._alive[n]).sum()) if n in alive else p.numel() for n, p in others.items()
        )
        self.size = sum(p.numel() for p in [*others.values(), *(layer.core.weight for layer in self.layers.values())])
        self.groups = tuple(
            Group(
                f"{name} {side}", (Slot(f"{name}.core.weight", (axis,)), Slot(f"{name}.{other}.weight", (1 - axis,))), n
            )
            for name, layer in self.layers.items()
            for side, axis, other, n in (
                ("out", 0, "after", len(layer.outputs)),
                ("in", 1, "before", len(layer.inputs)),
            )
        )
        sparse = {
            name
            for name in self.layers
            for there in (alive.get(f"{name}.weight"), alive.get(f"{name}.core.weight"))
            if there is not None and not bool(there.all())
        }
        kept = {f"{n} {side}": k for n in sparse for side, k in zip(("in", "out"), self.layers[n].kept(), strict=True)}
        self._start = {
            group: kept[group.name] if group.name in kept else torch.ones(group.size, dtype=torch.bool)
            for group in self.groups
        }
        self._whole = {
            name: int(alive[f"{name}.weight"].sum()) if f"{name}.weight" in alive else layer.core.weight.numel()
            for name, layer in self.layers.items()
        }

    def full(self) -> Mask:
        return self.mask({group: keep.clone() for group, keep in self._start.items()})

    def may_leave(self, group: Group) -> Tensor:
        return torch.ones(group.size, dtype=torch.bool, device=self._params[group.members[0].param].device)

    def most(self, group: Group) -> int:
        return int(SIDE * group.size + 1e-9)

    def left(self, units: Mapping[Group, Tensor], counted: str | None = None) -> int:
        """Prunable weights that are left, counted as asked."""
        kept = {group.name: int(keep.sum()) for group, keep in units.items()}
        total = self._others
        for name, layer in self.layers.items():
            kept_in, kept_out = kept[f"{name} in"], kept[f"{name} out"]
            whole = layer.core.weight.numel()
            if (counted or self.counted) == "core":
                total += whole * kept_in * kept_out // (len(layer.inputs) * len(layer.outputs))
            else:
                total += min(layer.pieces(kept_in, kept_out), self._whole[name])
        return total

    def reached(self, units: Mapping[Group, Tensor]) -> dict[str, float]:
        """By both counts: rotations included, and the cores alone."""
        counts = {metrics.REACHED_COMPACTED: "compacted", metrics.REACHED_CORE: "core"}
        return {name: 1 - self.left(units, counted) / self.size for name, counted in counts.items()}

    def cut(self, units: Mapping[Group, Tensor]) -> Cut:
        """Which directions are kept, in the basis that is cut."""
        kept = {group.name: keep.cpu().numpy().astype(np.uint8) for group, keep in units.items()}
        return Cut(
            layers=tuple(self.layers),
            A=tuple(layer.inputs.float().cpu().numpy() for layer in self.layers.values()),
            S=tuple(layer.outputs.float().cpu().numpy() for layer in self.layers.values()),
            keptA=tuple(kept[f"{name} in"] for name in self.layers),
            keptS=tuple(kept[f"{name} out"] for name in self.layers),
        )

    def paying(self, units: Mapping[Group, Tensor]) -> dict[Group, Tensor]:
        """The same units, with all directions that were there kept in layers whose three pieces would not be smaller."""
        kept = {group.name: int(keep.sum()) for group, keep in units.items()}
        found = dict(units)
        for group in units:
            layer = self.layers[group.layer]
            pieces = layer.pieces(kept[f"{group.layer} in"], kept[f"{group.layer} out"])
            if pieces >= self._whole[group.layer]:
                found[group] = self._start[group].to(units[group].device)
        return found

    def mask(self, units: Mapping[Group, Tensor]) -> Mask:
        params = {name: torch.ones_like(p, dtype=torch.bool) for name, p in self._params.items()} | self._alive
        on_device = {}
        for group, keep in units.items():
            device = self._params[group.members[0].param].device
            on_device[group] = keep.to(device)
            for slot in group.members:
                (axis,) = slot.axes
                shape = [1] * params[slot.param].dim()
                shape[axis] = -1
                along = on_device[group].repeat(params[slot.param].shape[axis] // group.size)
                params[slot.param] &= along.view(shape)
        return Mask(params, on_device, size=self.size, left=self.left(units), layout=self)

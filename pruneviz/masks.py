"""Units, scores, masks, and the exact choice by rank."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import floor
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pruneviz.errors import InvalidSetting, Unsuitable


@dataclass(frozen=True)
class Slot:
    """Where a unit lives in a parameter: ``axes`` () single weights, (0,) output units, (1,) input units."""

    param: str
    axes: tuple[int, ...] = ()


@dataclass(frozen=True)
class Group:
    """Units that leave together: row 3 of a core and column 3 of what reads it. A weight tensor is a group of one slot.

    ``name``: of the parameter for single weights; of the layer for its filters; "layer out" and "layer in" for directions.
    """

    name: str
    members: tuple[Slot, ...]
    size: int

    @property
    def layer(self) -> str:
        """The layer that the units are of, without the side."""
        return self.name.partition(" ")[0]

    @classmethod
    def weights(cls, name: str, tensor: Tensor) -> Group:
        """The single weights of one parameter."""
        return cls(name, (Slot(name),), tensor.numel())


@dataclass(frozen=True)
class Scores:
    """One value per unit of each group, flat, higher = keep.

    ``plan`` is what a method found along the way and reads again when it chooses and repairs (OBS: its inverse Hessian).
    """

    values: Mapping[Group, Tensor]
    plan: Any = None

    def __post_init__(self):
        for group, value in self.values.items():
            if not bool(torch.isfinite(value).all()):
                raise Unsuitable(
                    f"The scores of {group.name!r} are not all finite. Check the network's weights and the data for "
                    "infinities or NaN, or train with a lower learning rate."
                )

    @classmethod
    def of_weights(cls, tensors: Mapping[str, Tensor], plan: Any = None) -> Scores:
        """Scores shaped like the parameters they rank."""
        return cls({Group.weights(name, value): value.detach().flatten() for name, value in tensors.items()}, plan)


class Layout(Protocol):
    """How the units of a structured method lie in the network: what leaves with each, and how many weights are left."""

    @property
    def groups(self) -> tuple[Group, ...]: ...

    def may_leave(self, group: Group) -> Tensor:
        """Which units can be removed at all: bool [size]."""
        ...

    def most(self, group: Group) -> int:
        """How many of them may go; the others stay, so that no layer is cut through."""
        ...

    def left(self, units: Mapping[Group, Tensor]) -> int:
        """Prunable weights that are left where these units are kept."""
        ...

    def mask(self, units: Mapping[Group, Tensor]) -> Mask:
        """The mask that keeps these units."""
        ...


class Mask(Mapping[str, Tensor]):
    """Parameter name -> bool tensor, True = kept, for every prunable parameter.

    ``units`` keeps the choice unit by unit: group -> bool [size]. For units larger than a weight there is a ``layout``;
    ``coupled`` holds what else is zero then (biases and normalisation of removed filters), and ``size`` and ``left`` count
    the prunable weights of the dense and of the compacted network, where these are not just the mask's entries.
    """

    def __init__(
        self,
        params: Mapping[str, Tensor],
        units: Mapping[Group, Tensor] | None = None,
        *,
        coupled: Mapping[str, Tensor] | None = None,
        size: int | None = None,
        left: int | None = None,
        layout: Layout | None = None,
    ):
        self._params = {name: keep.bool() for name, keep in params.items()}
        self.units = dict(units) if units else {Group.weights(n, k): k.flatten() for n, k in self._params.items()}
        self.coupled = {name: keep.bool() for name, keep in (coupled or {}).items()}
        self.layout = layout
        self._size, self._left = size, left

    @classmethod
    def full(cls, model: nn.Module, names: Iterable[str]) -> Mask:
        """Every single weight kept."""
        params = dict(model.named_parameters())
        return cls({name: torch.ones_like(params[name], dtype=torch.bool) for name in names})

    def keeping(self, units: Mapping[Group, Tensor]) -> Mask:
        """The mask of the same network that keeps these units."""
        if self.layout is not None:
            return self.layout.mask(units)
        return Mask({group.name: keep.view(self[group.name].shape) for group, keep in units.items()}, units)

    def may_leave(self, group: Group) -> Tensor:
        """Which of a group's units are there and can be removed: bool [size]."""
        kept = self.units[group]
        return kept if self.layout is None else kept & self.layout.may_leave(group)

    def __getitem__(self, name: str) -> Tensor:
        return self._params[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._params)

    def __len__(self) -> int:
        return len(self._params)

    @property
    def size(self) -> int:
        """Number of prunable weights of the dense network."""
        return self._size if self._size is not None else sum(keep.numel() for keep in self._params.values())

    @property
    def removed(self) -> int:
        """Number of them that are gone."""
        left = self._left if self._left is not None else sum(int(keep.sum()) for keep in self._params.values())
        return self.size - left

    @property
    def sparsity(self) -> float:
        """Fraction of the prunable parameters that is gone."""
        return self.removed / self.size

    def per_layer(self) -> dict[str, float]:
        """Parameter name -> fraction of it that is gone."""
        return {name: 1 - int(keep.sum()) / keep.numel() for name, keep in self._params.items()}

    @property
    def empty_layers(self) -> tuple[str, ...]:
        """Parameters that lost everything."""
        return tuple(name for name, keep in self._params.items() if not keep.any())

    @torch.no_grad()
    def apply_(self, model: nn.Module) -> None:
        """Set every pruned parameter of the model to zero, and what is coupled to them."""
        params = dict(model.named_parameters())
        for name, keep in self.everything.items():
            params[name].mul_(keep)

    @property
    def everything(self) -> dict[str, Tensor]:
        """Parameter name -> bool tensor, biases and normalisation of removed filters included."""
        return self._params | self.coupled

    def to(self, device: torch.device | str) -> Mask:
        """The same mask on another device."""
        return Mask(
            {n: k.to(device) for n, k in self._params.items()},
            {g: k.to(device) for g, k in self.units.items()},
            coupled={n: k.to(device) for n, k in self.coupled.items()},
            size=self._size,
            left=self._left,
            layout=self.layout,
        )


def prunable(model: nn.Module, *, biases: bool = False) -> tuple[str, ...]:
    """Names of the weights (and biases) of Linear and Conv2d layers, in forward registration order."""
    names = []
    for prefix, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            for kind, parameter in module.named_parameters(recurse=False):
                if kind == "weight" or (biases and kind == "bias" and parameter is not None):
                    names.append(f"{prefix}.{kind}" if prefix else kind)
    if not names:
        raise Unsuitable("The network has no Linear or Conv2d layer, so there is nothing to prune.")
    return tuple(names)


def count(target: float, size: int) -> int:
    """How many of ``size`` units a sparsity of ``target`` removes: the nearest whole number, halves up, in exact arithmetic."""
    if not 0 <= target < 1:
        raise InvalidSetting(f"A sparsity is the fraction removed, at least 0 and below 1; found {target}.")
    return floor(Fraction(repr(float(target))) * size + Fraction(1, 2))


def apportion(total: int, shares: list[float], lows: list[int], highs: list[int]) -> list[int]:
    """Whole numbers that add up to ``total``, each within its bounds and as near its share as they allow (largest remainder)."""
    parts = [min(max(floor(share), low), high) for share, low, high in zip(shares, lows, highs, strict=True)]
    while (missing := total - sum(parts)) != 0:
        step = 1 if missing > 0 else -1
        free = [i for i, n in enumerate(parts) if (n < highs[i] if step > 0 else n > lows[i])]
        nearest = max(free, key=lambda i: (step * (shares[i] - parts[i]), -i))
        parts[nearest] += step
    return parts


def remove_lowest(value: Tensor, kept: Tensor, k: int) -> Tensor:
    """``kept`` without its ``k`` lowest values; ties go by position, earliest first. Shapes: [n], [n] bool -> [n] bool."""
    alive = kept.nonzero().flatten()
    order = torch.argsort(value[alive], stable=True)
    result = kept.clone()
    result[alive[order[:k]]] = False
    return result


def select(scores: Scores, mask: Mask, target: float, *, scope: str = "global") -> Mask:
    """The mask at sparsity ``target``: units of lowest score leave, exactly as many as asked, never one that left before.

    ``scope`` "global" ranks all layers together; "layer" removes the same fraction of each layer (the counts add up to
    the global count by largest remainder).

    Raises: InvalidSetting, where more is gone already than the target removes.
    """
    groups = list(scores.values)
    kept = [mask.units[group] for group in groups]
    sizes = [group.size for group in groups]
    total = count(target, sum(sizes))
    gone = [int((~k).sum()) for k in kept]
    if sum(gone) > total:
        raise InvalidSetting(
            f"Asked for sparsity {target:g}, but {sum(gone) / sum(sizes):.4g} is pruned already and a mask only shrinks. "
            "List sparsities in rising order."
        )
    if scope == "layer":
        counts = apportion(total, [float(target) * size for size in sizes], gone, sizes)
        chosen = [
            remove_lowest(scores.values[group], k, n - g)
            for group, k, n, g in zip(groups, kept, counts, gone, strict=True)
        ]
    elif scope == "global":
        flat = torch.cat([scores.values[group] for group in groups])
        chosen = list(remove_lowest(flat, torch.cat(kept), total - sum(gone)).split(sizes))
    else:
        raise InvalidSetting(f"Scope {scope!r} is not known here; use 'global' or 'layer'.")
    return mask.keeping(dict(zip(groups, chosen, strict=True)))


def connected(model: nn.Module, mask: Mask, sample: Tensor) -> bool:
    """Whether any path leads from an input to an output through surviving weights. ``sample``: [1, ...], its values unread."""
    return broken_at(model, mask, sample) is None


def broken_at(model: nn.Module, mask: Mask, sample: Tensor) -> str | None:
    """The Linear or Conv2d layer at which all paths from the input end; None where one reaches an output.

    In a chain of layers it is the first whose output no path reaches. Where branches are summed it is the last, in forward
    order, that paths enter and none leaves: a dead branch beside a living one is not where they end.

    The network runs once on ones, every layer's weight its mask and no bias, activations and normalisation as identity:
    each number then counts paths (set back to 0 or 1 at each layer) and is zero exactly where none arrives.
    """
    layers: dict[nn.Module, str] = {m: n for n, m in model.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)}
    ran: list[tuple[str, bool, bool]] = []  # layer, whether paths enter, whether any leaves

    def enter(module: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
        return (inputs[0] > 0).to(inputs[0].dtype)

    def leave(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        reached = output > 0.5  # sums of zeros and ones, whatever the convolution's algorithm rounds
        ran.append((layers[module], bool((inputs[0] > 0.5).any()), bool(reached.any())))
        return reached.to(output.dtype)

    values = {}
    for name, parameter in model.named_parameters():
        kept = mask[name].to(parameter) if name in mask else torch.ones_like(parameter)
        values[name] = torch.zeros_like(parameter) if name.endswith("bias") else kept
    ones = torch.ones_like(sample, dtype=next(model.parameters()).dtype)
    modes = {module: module.training for module in model.modules()}
    hooks = [m.register_forward_pre_hook(enter) for m in layers] + [m.register_forward_hook(leave) for m in layers]
    try:
        with torch.no_grad(), _Passage():
            outputs = torch.func.functional_call(model.eval(), values, (ones,))
    finally:
        for hook in hooks:
            hook.remove()
        for module, training in modes.items():
            module.training = training
    if bool((outputs > 0).any()):
        return None
    ends = [name for name, entered, left in ran if entered and not left]
    return (ends or [name for name, _, left in ran if not left] or [ran[-1][0]])[-1]


class _Passage(TorchFunctionMode):
    """Activations and normalisation let everything pass: their first argument comes out as it went in."""

    PASS = re.compile(
        "(relu6?|threshold|leaky_relu|prelu|rrelu|elu|selu|celu|gelu|silu|mish|hard(tanh|swish|sigmoid|shrink)|sigmoid|logsigmoid"
        "|tanh|tanhshrink|softshrink|softplus|softsign|softm(ax|in)|log_softmax|erf|(alpha_|feature_|feature_alpha_)?dropout[123]?d?"
        "|(batch|group|layer|instance|rms|local_response)_norm|normalize)_?"
    )

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if self.PASS.fullmatch(getattr(func, "__name__", "")):
            return args[0] if args else (kwargs or {})["input"]
        return func(*args, **(kwargs or {}))

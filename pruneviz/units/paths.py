"""Whether outputs can still depend on inputs through the weights that are left, and where they stop to."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pruneviz.basics.errors import PrunevizError
from pruneviz.door.activations import Does, does
from pruneviz.door.exact import differ, exactly, flat, pair, place, widened
from pruneviz.door.parameters import named
from pruneviz.door.samples import Samples, forward
from pruneviz.door.untouched import untouched
from pruneviz.units.masks import Mask
from pruneviz.units.start import partly_zero

DRAWS = 4  # of random weights, before a network is said to be cut through


class _Call(NamedTuple):
    """Whether any input of a call differs between two runs, any output, and its first output (attention gives its weights too)."""

    entered: bool
    left: bool
    first: bool


def connected(model: nn.Module, mask: Mask, sample: Samples) -> bool:
    """Whether an output can depend on an input through surviving weights. ``sample``: [1, ...]."""
    return broken_at(model, mask, sample) is None


def broken_at(model: nn.Module, mask: Mask, sample: Samples) -> str | None:
    """The layer at which all paths from the input end; None where one reaches an output. Layers own a parameter of the mask.

    In a chain of layers it is the first whose output no path reaches. Where branches are summed it is the last, in forward
    order, that paths enter and none leaves: a dead branch beside a living one is not where they end.

    The network runs in float64 on two inputs of the sample's form, with random weights where the mask keeps them: what
    differs between the two depends on the input. Activations, normalisation by channel and dropout let everything pass;
    whatever else the network computes is computed. At each layer differences are brought back to about 1, so that none
    fades on a long way; only the network's form counts, not its weights, and of the sample only which whole numbers it has.
    None also where the network's code does not run on such numbers.
    """
    layers = _layers(model, mask)
    seen: dict[tuple[str, int], _Call] = {}  # nth call of a layer -> whether paths enter, whether any leaves
    with _aside(model):
        for draw in range(DRAWS):
            try:
                reached, calls = _two_runs(model, mask, sample, layers, draw)
            except PrunevizError:
                raise
            except Exception:  # any code may meet numbers that it was not written for
                return None
            if reached:
                return None
            for call, now in calls.items():
                before = seen.get(call, _Call(False, False, False))
                seen[call] = _Call(*(a or b for a, b in zip(before, now, strict=True)))
    return _end(mask, layers, seen)


def _layers(model: nn.Module, mask: Mask) -> dict[nn.Module, str]:
    """Modules that own a parameter of the mask, by name; a parametrized layer is named, not its parametrization."""
    params = named(model)
    masked = {id(params[name]) for name in mask}
    found: dict[nn.Module, str] = {}
    for path, module in model.named_modules():
        if any(id(p) in masked for p in module._parameters.values()):
            name = f".{path}".partition(".parametrizations.")[0][1:]
            found[model.get_submodule(name)] = name
    return found


def _end(mask: Mask, layers: Mapping[nn.Module, str], seen: Mapping[tuple[str, int], _Call]) -> str:
    """Of a network whose outputs depend on nothing: the layer where that begins."""
    called = {name for name, _ in seen}
    emptied = {name.rpartition(".")[0] for name in mask.empty_layers}
    unseen = [name for name in layers.values() if name not in called and name in emptied]  # weights read without a call
    ends = [name for (name, _), call in seen.items() if call.entered and not call.left]
    ends = ends or [name for (name, _), call in seen.items() if call.entered and not call.first]
    ends += [name for name in unseen if any(_inside(name, end) for end in ends)]
    inner = [name for name in ends if not any(_inside(other, name) for other in ends)]
    dark = [name for (name, _), call in seen.items() if not call.left]
    return (inner or unseen[:1] or dark or list(called) or list(layers.values()))[-1]


def _inside(name: str, outer: str) -> bool:
    return name != outer and name.startswith(f"{outer}." if outer else "")


@contextmanager
def _aside(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, no gradients, no fused attention that cannot be looked into, no warnings; all as before afterwards."""
    fused = torch.backends.mha.get_fastpath_enabled()
    with untouched(model), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            yield
        finally:
            torch.backends.mha.set_fastpath_enabled(fused)


def _two_runs(
    model: nn.Module, mask: Mask, sample: Samples, layers: Mapping[nn.Module, str], draw: int
) -> tuple[bool, dict[tuple[str, int], _Call]]:
    """Whether any output of two runs differs, and for each call of a layer whether its inputs do, and its outputs."""
    generator = torch.Generator().manual_seed(draw)
    device = place(model)
    values = _values(model, mask, generator, device)
    whole, watch = _Whole(model), _Watch(layers)
    outputs = []
    with watch.attached():
        for x in pair(exactly(sample, device), generator, draw):
            torch.default_generator.manual_seed(draw)  # the same noise in both, for networks that draw some
            if device.type == "cuda":
                torch.cuda.default_generators[device.index or 0].manual_seed(draw)
            watch.begin()
            with watch.mode:
                outputs.append(torch.func.functional_call(whole, values, (x,)))
    return bool(differ(*outputs).any()), watch.told()


def _values(model: nn.Module, mask: Mask, generator: torch.Generator, device: torch.device) -> dict[str, Tensor]:
    """Random parameters where the mask, or a tensor that is partly zero, keeps them, and the buffers; in float64, of :class:`_Whole`."""
    params = named(model)
    keeps = {id(params[name]): keep for name, keep in mask.items()}
    found = {}
    for name, p in model.named_parameters():
        if p.is_floating_point():
            keep = keeps.get(id(p))
            if keep is None:
                keep = p.detach() != 0 if partly_zero(p) else torch.ones_like(p, dtype=torch.bool)
            fan = int(keep.sum()) / len(p) if p.dim() > 1 and len(p) else 1
            reach = (3 / max(fan, 1)) ** 0.5  # of variance 1 / fan
            value = torch.empty(p.shape, dtype=torch.float64).uniform_(-reach, reach, generator=generator)
            found[f"model.{name}"] = value.to(device).mul_(keep.to(device))
    for name, b in model.named_buffers():
        found[f"model.{name}"] = b.detach().to(device, torch.float64 if b.is_floating_point() else b.dtype).clone()
    return found


class _Whole(nn.Module):
    """A network that takes samples of any form."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, x: Samples) -> Tensor:
        return forward(self.model, x)


class _Watch:
    """What enters and leaves each layer in two runs. In the second, differences are raised to about 1, and rounding dropped."""

    def __init__(self, layers: Mapping[nn.Module, str]):
        self.layers, self.mode = layers, _Passage()
        self.runs: list[list[tuple[str, list[Tensor], list[Tensor]]]] = []  # layer, inputs, outputs, call by call
        self.entered: list[list[Tensor]] = []  # inputs of the layers that run now

    @contextmanager
    def attached(self) -> Iterator[None]:
        hooks = [m.register_forward_pre_hook(self.enter, with_kwargs=True) for m in self.layers]
        hooks += [m.register_forward_hook(self.leave) for m in self.layers]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def begin(self) -> None:
        self.runs.append([])

    def enter(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        with self.mode.paused():
            self.entered.append([t.clone() for t in flat((args, kwargs))])

    def leave(self, module: nn.Module, args: tuple, output: Any) -> Any:
        with self.mode.paused():
            outputs, now = list(flat(output)), self.runs[-1]
            now.append((self.layers[module], self.entered.pop(), outputs))
            others = outputs
            if len(self.runs) == 2 and len(self.runs[0]) >= len(now):
                first = self.runs[0][len(now) - 1][2]
                alike = [t.shape for t in first] == [t.shape for t in outputs]
                others = first if alike else outputs
            each = iter(others)
            return _mapped(output, lambda t: _steadied(t, next(each)))

    def told(self) -> dict[tuple[str, int], _Call]:
        """Layer and number of the call -> what differs between the runs."""
        found: dict[tuple[str, int], _Call] = {}
        counts: dict[str, int] = {}
        for (name, inputs, outputs), (_, others, results) in zip(*self.runs, strict=False):
            counts[name] = counts.get(name, 0) + 1
            found[name, counts[name]] = _Call(
                _any(inputs, others), _any(outputs, results), _any(outputs[:1], results[:1])
            )
        return found


def _any(first: list[Tensor], second: list[Tensor]) -> bool:
    return len(first) != len(second) or any(bool(differ(a, b).any()) for a, b in zip(first, second, strict=True))


def _steadied(t: Tensor, first: Tensor) -> Tensor:
    """Numbers drawn towards 1 in size, signs kept; where they differ from the first run's, the difference is. 0 stays 0."""
    if not t.is_floating_point():
        return t
    base = torch.copysign(first.abs().sqrt().log1p(), first).nan_to_num()
    gap = (t - first).nan_to_num()
    return torch.where(differ(first, t), base + torch.copysign(gap.abs().pow(0.25).log1p(), gap), base)


def _mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same results with every tensor changed; what is of a class of its own stays as it is."""
    if isinstance(value, Tensor):
        return change(value)
    if type(value) in (list, tuple):
        return type(value)(_mapped(item, change) for item in value)
    if type(value) is dict:
        return {key: _mapped(item, change) for key, item in value.items()}
    return value


_PASS = "clamp clamp_min clamp_max clip sign round floor ceil"  # flat in places, where what comes in would not show
_SHAPED = (
    "sigmoid hardsigmoid softplus logsigmoid"  # activations that are not 0 at 0: they let a constant through as another
)
_HALVES = "log log2 log10 log1p sqrt rsqrt pow __pow__ float_power"  # not defined for all numbers


class _Passage(TorchFunctionMode):
    """Functions as they are, in float64, but those that are flat or undefined in places: paths pass there as anywhere else.

    Activations and clamps give what they are given, and so does normalisation by channel, with its shift; a maximum of
    neighbours is their mean, of two tensors a weighted sum.
    """

    def __init__(self):
        super().__init__()
        self._paused = False

    @contextmanager
    def paused(self) -> Iterator[None]:
        """As if there were none: for what is computed beside the network."""
        self._paused = True
        try:
            yield
        finally:
            self._paused = False

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if self._paused:
            return func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        name = name if name.endswith("__") else name.rstrip("_")
        first = args[0] if args else kwargs.get("input")
        if isinstance(first, Tensor) and first.is_floating_point():
            instead = _instead(func, name, first, args, kwargs)
            if instead is not None:
                return instead
        return widened(func(*args, **kwargs))


def _instead(func: Callable, name: str, x: Tensor, args: tuple, kwargs: dict) -> Tensor | None:
    """What a function gives here; None where it gives what it always does."""
    if name in ("sigmoid", "hardsigmoid"):
        return torch.sigmoid(x)
    if name in _SHAPED.split():
        return None
    if does(func) is Does.ACTIVATES or "dropout" in name or name in _PASS.split():
        return x
    if does(func) is Does.NORMALISES:
        shift = kwargs.get("bias", args[4] if len(args) > 4 else None)
        return x if shift is None else x + shift.view(-1, *[1] * (x.dim() - 2))
    if name in _HALVES.split():
        return func(x.abs(), *args[1:], **{key: value for key, value in kwargs.items() if key != "input"})
    if name in ("maximum", "minimum", "max", "min", "fmax", "fmin"):
        second = kwargs.get("other", args[1] if len(args) > 1 else None)
        return x + 0.6 * second if isinstance(second, Tensor) and second.is_floating_point() else None
    if "max_pool" in name:
        return _mean_pool(name, x, *args[1:], **{key: value for key, value in kwargs.items() if key != "input"})
    return None


def _mean_pool(
    name: str, x: Tensor, size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor | None:  # fmt: skip
    """Means in place of maxima, where there are such; with dilation or indices None."""
    if "adaptive" in name:
        return None if stride is True else getattr(F, name.replace("max", "avg").removesuffix("_with_indices"))(x, size)
    if return_indices or name.endswith("indices") or name not in ("max_pool1d", "max_pool2d", "max_pool3d"):
        return None
    if dilation not in (1, (1, 1), (1, 1, 1), [1, 1], (1,)):
        return None
    return getattr(F, name.replace("max", "avg"))(x, size, stride or size, padding, ceil_mode)

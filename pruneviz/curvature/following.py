"""What follows a layer: its output is followed through all that works on single numbers, to whatever mixes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from pruneviz.curvature.parts import Base, End, Part, Use, draw, like_, same, tensors_in, together
from pruneviz.door.activations import Does, does
from pruneviz.door.traced import arguments, names

_SINGLE = (Does.ACTIVATES, Does.COMPUTES, Does.PASSES, Does.MERGES)  # a number to a number, in its place
_SINGLE_TOO = names("where masked_fill remainder fmod max min __rdiv__ __pow__ __rpow__ __neg__ _prelu_kernel")
# numbers to other places, each to one at most
_MOVES = names(
    "view view_as reshape reshape_as ravel flatten unflatten permute transpose swapaxes swapdims movedim moveaxis squeeze "
    "unsqueeze t T mT H mH roll flip pixel_shuffle pixel_unshuffle channel_shuffle chunk split split_with_sizes tensor_split "
    "unbind narrow select __getitem__"
)
_BESIDE = names("cat concat concatenate stack hstack vstack")
_CUTS = names("detach data")
_GETS = names("T mT H mH data real")  # properties that are tensors
_FUNCTION = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")


class Follower(TorchFunctionMode):
    """Watches one forward pass. ``uses``: the layers' uses in order; ``followed``: kinds of layer whose outputs are followed;

    ``through``: past a detach too; ``shaken``: the number of a use whose output is changed, to see whether anybody reads it.
    """

    def __init__(self, model: nn.Module, followed: tuple[type, ...], *, through: bool = False, shaken: int = -1):
        super().__init__()
        self.uses: list[Use] = []
        self._model, self._followed, self._through, self._shaken = model, followed, through, shaken
        self._modules = {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)}
        self._shapes = {n: m.weight.shape for n, m in self._modules.items()}
        self._owners: dict[int, list[str]] = {}
        for name, module in self._modules.items():
            if isinstance(module.weight, nn.Parameter):
                self._owners.setdefault(id(module.weight), []).append(name)
        self._inside: list[tuple[str, Tensor | None, int]] = []  # modules being called, their inputs, uses before
        self._of: dict[int, Part] = {}
        self._seen: dict[int, Tensor] = {}  # every tensor that was seen: no id is used twice
        self._data: set[int] = set()  # what comes from the samples
        self._sums: dict[int, frozenset[Any]] = {}  # ends of which a tensor is a sum or a mean
        self._hooks: list[Any] = []

    def watch(self, samples: tuple[Tensor, ...]) -> Follower:
        """Ready for a pass over these samples."""
        for tensor in samples:
            self._keep(tensor)
            self._data.add(id(tensor))
        return self

    def __enter__(self) -> Self:
        for name, module in self._modules.items():
            self._hooks.append(module.register_forward_pre_hook(self._enter(name), with_kwargs=True))
            self._hooks.append(module.register_forward_hook(self._leave))
        self._hooks.append(self._model.register_forward_hook(self._finish))
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        for hook in self._hooks:
            hook.remove()
        super().__exit__(*error)

    def _enter(self, name: str) -> Callable[..., None]:
        def enter(module: nn.Module, args: tuple, kwargs: dict) -> None:
            self._inside.append((name, next(tensors_in((args, kwargs)), None), len(self.uses)))

        return enter

    def _leave(self, module: nn.Module, args: tuple, output: Any) -> None:
        name, x, before = self._inside.pop()
        for use in (u for u in self.uses[before:] if u.layer == name):
            use.whole = use.output is output
            use.entered = None if x is None else x.detach()

    def _finish(self, module: nn.Module, args: tuple, output: Any) -> None:
        plain = isinstance(output, Tensor | list | tuple | dict)
        for tensor in tensors_in(output if plain else getattr(output, "__dict__", ())):
            self._meet(tensor)
            self._end(tensor)

    def _keep(self, tensor: Tensor) -> None:
        self._seen[id(tensor)] = tensor

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        name, kind = getattr(func, "__name__", ""), does(func)
        if name == "__get__":
            name = getattr(getattr(func, "__self__", None), "__name__", "")
            if name not in _GETS:
                return func(*args, **kwargs)
            kind = Does.PASSES
        elif kind is Does.ASKS and name != "type":
            return func(*args, **kwargs)
        given = list(tensors_in((args, kwargs)))
        for tensor in given:
            if id(tensor) not in self._seen:
                self._meet(tensor)
        if name in ("linear", "conv2d") and (layer := self._layer(args, kwargs)) is not None:
            for tensor in given:
                self._end(tensor)
            return self._own(layer, args, kwargs, func(*args, **kwargs))
        owned = {id(t): t for t in given if id(t) in self._of}
        if not owned:
            result = func(*args, **kwargs)
            self._pass(name, kind, given, result)
            return result
        call = Call(func, name.rstrip("_") if not name.endswith("__") else name, kind, args, kwargs)
        cut = {k: kept for k, t in owned.items() if not t.requires_grad and (kept := self._of[k].kept) is not None}
        if cut:
            args, kwargs = replaced(cut, args), dict(replaced(cut, kwargs))
        edges = {key: get_gradient_edge(cut.get(key, t)) for key, t in owned.items()}
        versions = {key: t._version for key, t in owned.items()}
        tells = torch.is_grad_enabled()
        first = next(iter(owned.values()))
        with torch.enable_grad():  # a network's own no_grad or not
            if call.name in _CUTS:
                self._of[id(first)].use.cut = True
            if name == "detach_":
                result = first
            elif call.name in _CUTS and self._through:
                result = first.view_as(first)
            elif call.name in _BESIDE:  # a tensor set beside what is made of it: each by itself
                call.pieces = {key: t.view_as(t) for key, t in owned.items()}
                result = func(*replaced(call.pieces, args), **kwargs)
            else:
                result = func(*args, **kwargs)
            self._after(call, given, owned, edges, versions, result)
            for tensor in tensors_in(result) if not tells else ():
                if (part := self._of.get(id(tensor))) is not None:
                    part.kept = tensor.view_as(tensor)
        return result

    def _layer(self, args: tuple, kwargs: dict) -> str | None:
        """The layer whose weight a function is given: by itself, or by its module, which may have computed it."""
        weight = arguments(args, kwargs)[1]
        name, _, before = self._inside[-1] if self._inside else ("", None, 0)
        if (owners := self._owners.get(id(weight))) is not None:
            return name if self._inside and name in owners else owners[0]
        if self._inside and len(self.uses) == before and weight.shape == self._shapes[name]:
            return name
        return None

    def _own(self, layer: str, args: tuple, kwargs: dict, output: Tensor) -> Tensor:
        x, weight, _ = arguments(args, kwargs)
        rest = dict(zip(_FUNCTION, args, strict=False)) | kwargs
        use = Use(layer, weight.detach(), x.detach(), {k: rest[k] for k in _FUNCTION[3:] if k in rest}, output)
        self.uses.append(use)
        if len(self.uses) - 1 == self._shaken:
            use.output = output = output + 1 + output.detach().abs().max()
        elif isinstance(self._modules[layer], self._followed):
            if not output.requires_grad:
                with torch.enable_grad():  # what works in place may not work on a leaf
                    use.output = output = output.detach().requires_grad_() * 1
            base = Base(get_gradient_edge(output), torch.empty_like(output, device="meta"))
            use.bases.append(base)
            self._of[id(output)] = Part(use, base, None, output._version)
        self._keep(output)
        self._data.add(id(output))
        return output

    def _pass(self, name: str, kind: Does | None, given: list[Tensor], result: Any) -> None:
        """A function that reads no layer's output."""
        made = given[:1] if name == "__setitem__" else list(tensors_in(result))
        for tensor in made:
            self._keep(tensor)
        if any(id(t) in self._data for t in given) and not _constant(name):
            self._data.update(id(t) for t in made)
            sums = frozenset().union(*(self._sums[id(t)] for t in given if id(t) in self._sums))
            if sums:
                self._sums.update((id(t), sums) for t in made)

    def _after(
        self, call: Call, given: list[Tensor], owned: dict[int, Tensor], edges: dict[int, GradientEdge],
        versions: dict[int, int], result: Any,
    ) -> None:  # fmt: skip
        """What a function makes of layers' outputs: parts of one of them, constants, or a mixture before which they end."""
        parts = {key: self._of[key] for key in owned}
        made = list({id(t): t for t in tensors_in(result)}.values())
        for tensor in made:
            self._keep(tensor)
        first = next(iter(parts.values()))
        others = [t for t in given if id(t) in self._data and id(t) not in owned]
        for part in parts.values():
            part.use.read = True
        changes = any(t._version != versions[key] for key, t in owned.items())
        if call.name == "__setitem__" and len(owned) == 1 and not others and changes:
            return
        if _constant(call.name) or (made and not any(t.requires_grad for t in made)):
            self._data.difference_update(id(t) for t in made)  # signs, sizes, places: constants, as far as slopes go
            return
        alone = not others and len({id(part.use) for part in parts.values()}) == 1
        if alone and len(made) == 1 and id(made[0]) in owned and not changes:
            return  # the very tensor
        if alone and self._follow(call, first, parts, owned, edges, versions, made):
            return
        measured = call.kind is Does.REDUCES or (
            call.kind is None and all(t.numel() < min(o.numel() for o in owned.values()) for t in made)
        )
        for key, tensor in owned.items():
            end = self._end(tensor, edges[key], versions[key], measured)
            for sum_ in others:
                self._normalised(end, self._sums.get(id(sum_), frozenset()))
        if measured:
            keys = frozenset((edge.node, edge.output_nr) for edge in edges.values())
            self._sums.update((id(t), keys) for t in made)
        self._data.update(id(t) for t in (given[:1] if call.name == "__setitem__" else made))
        for key, tensor in owned.items():
            if tensor._version != versions[key]:  # what it was is overwritten, in every view of it
                storage = tensor.untyped_storage().data_ptr()
                for other in [k for k in self._of if self._seen[k].untyped_storage().data_ptr() == storage]:
                    self._data.add(other)
                    del self._of[other]

    def _follow(
        self, call: Call, first: Part, parts: dict[int, Part], owned: dict[int, Tensor],
        edges: dict[int, GradientEdge], versions: dict[int, int], made: list[Tensor],
    ) -> bool:  # fmt: skip
        """Whether all that is made is parts of the same layer's output, which are then kept."""
        above = frozenset(parts.values()).union(*(p.above for p in parts.values()))
        if call.name in _MOVES:
            places = call.moved(owned, first) if len(owned) == 1 else None
            if places is None or len(places) != len(made):
                return False
            ((key, tensor),) = owned.items()
            origin = self._origin(first, edges[key], tensor, versions[key])
            if any(place.numel() < tensor.numel() for place in places):
                first.use.sliced.append(End(first, edges[key], like_(tensor), places=None))
            for tensor, place in zip(made, places, strict=True):
                self._of[id(tensor)] = Part(first.use, first.base, place, tensor._version, above, origin)
            return True
        if call.name in _BESIDE and len(made) == 1 and len(owned) == len(call.given()):
            pieces = [End(parts[k], get_gradient_edge(t), like_(t), places=None) for k, t in call.pieces.items()]
            base = Base(get_gradient_edge(made[0]), like_(made[0]), pieces)
            first.use.bases.append(base)
            self._of[id(made[0])] = Part(first.use, base, None, made[0]._version, above)
            return True
        if len(made) != 1 or not made[0].is_floating_point() or not together(list(parts.values())):
            return False
        if any(t.shape != made[0].shape for t in owned.values()) or not call.single(made[0], edges):
            return False
        origin = None
        if call.kind is Does.PASSES and "dropout" not in call.name:
            ((key, tensor),) = owned.items()
            origin = self._origin(first, edges[key], tensor, versions[key])
        self._of[id(made[0])] = Part(first.use, first.base, first.place, made[0]._version, above, origin)
        return True

    @staticmethod
    def _origin(part: Part, edge: GradientEdge, tensor: Tensor, version: int) -> End:
        """The tensor that first had a tensor's numbers."""
        kept = part.origin is not None and part.version == version
        return part.origin if kept and part.origin is not None else End(part, edge, like_(tensor))

    def _end(
        self, tensor: Tensor, edge: GradientEdge | None = None, version: int | None = None, measured: bool = False
    ) -> End | None:
        """Something else reads this tensor: if it is made of a layer's output, it is followed no further."""
        part = self._of.get(id(tensor))
        if part is None:
            return None
        part.use.read = True
        kept = tensor if tensor.requires_grad or part.kept is None else part.kept
        edge, version = edge or get_gradient_edge(kept), tensor._version if version is None else version
        origin = self._origin(part, edge, tensor, version)
        end = part.use.ends.setdefault((origin.edge.node, origin.edge.output_nr), origin)
        end.measured &= measured
        if origin.part is part or part.place is None or part.place.numel() == origin.like.numel():
            end.places = None
        elif end.places is not None:
            end.places.append(part.place)
        return end

    def _normalised(self, end: End | None, sums: frozenset[Any]) -> None:
        """A layer's output beside sums of its own, as in a normalisation by hand: it is followed to there, not to the sums."""
        ends = end.part.use.ends if end is not None else {}
        for key in sums:
            other = ends.get(key)
            if end is not None and other is not None and other.measured and end.part in other.part.above:
                del ends[key]

    def _meet(self, tensor: Tensor) -> None:
        """A tensor made by something that isn't seen (a scripted function): autograd tells of what."""
        if id(tensor) in self._seen:
            return
        self._keep(tensor)
        if tensor.grad_fn is None:
            return
        known = {(t.grad_fn, t.output_nr): t for t in self._seen.values() if t.grad_fn is not None and t is not tensor}
        found: dict[int, Tensor] = {}
        waiting, visited = [tensor.grad_fn], {tensor.grad_fn}
        while waiting:
            for node, number in waiting.pop().next_functions:
                if node is None or node in visited:
                    continue
                if (source := known.get((node, number))) is not None:
                    found[id(source)] = source
                else:
                    visited.add(node)
                    waiting.append(node)
        if any(id(t) in self._data for t in found.values()):
            self._data.add(id(tensor))
        owned = {key: t for key, t in found.items() if key in self._of}
        if not owned:
            return
        edges = {key: get_gradient_edge(t) for key, t in owned.items()}
        call = Call(None, "", None, tuple(found.values()), {})
        self._after(call, list(found.values()), owned, edges, {key: t._version for key, t in owned.items()}, tensor)


@dataclass
class Call:
    """A function, called on tensors made of layers' outputs."""

    func: Callable | None
    name: str
    kind: Does | None
    args: tuple
    kwargs: dict
    pieces: dict[int, Tensor] = field(default_factory=dict)

    def given(self) -> set[int]:
        return {id(t) for t in tensors_in((self.args, self.kwargs))}

    def moved(self, owned: dict[int, Tensor], part: Part) -> list[Tensor] | None:
        """Where the numbers of each tensor made come from; None where one goes to several places."""
        (key,) = owned
        at = part.places()
        at = at.view_as(at)  # what works in place leaves that of the part as it is
        args, kwargs = replaced({key: at}, self.args), replaced({key: at}, self.kwargs)
        assert self.func is not None
        try:
            places = list(tensors_in(self.func(*args, **kwargs)))
        except RuntimeError:  # not with whole numbers
            return None
        if self.name == "__getitem__" and any(
            isinstance(v, Tensor | list) for v in (args[1] if isinstance(args[1], tuple) else args[1:])
        ):
            return places if all(len(p.unique()) == p.numel() for p in places) else None
        return places

    def single(self, made: Tensor, edges: dict[int, GradientEdge]) -> bool:
        """Whether each number that comes out is made of the one in its place, and of constants: known, or tried."""
        if self.kind in _SINGLE or self.name in _SINGLE_TOO:
            return True
        if self.kind is Does.NORMALISES:
            return self._fixed()
        if self.kind is not None:
            return False
        out = get_gradient_edge(made)
        ones, v = torch.ones_like(made), draw(made)
        for edge in edges.values():
            try:
                one, other = (torch.autograd.grad([out], [edge], [g], retain_graph=True, allow_unused=True)[0]
                              for g in (ones, v))  # fmt: skip
            except RuntimeError:
                return True  # the slope says why
            if one is not None and other is not None and not same(other, one * v, one):
                return False
        return True

    def _fixed(self) -> bool:
        """Whether a normalisation uses the statistics that it has kept: then it is a line for each channel."""
        flag = "training" if self.name == "batch_norm" else "use_input_stats"
        return not (self.args[5] if len(self.args) > 5 else self.kwargs.get(flag, flag != "training"))


def replaced(others: dict[int, Tensor], value: Any) -> Any:
    """A function's arguments with other tensors in the places of these."""
    return tree_map(lambda v: others.get(id(v), v) if isinstance(v, Tensor) else v, value)


def _constant(name: str) -> bool:
    """Whether a function asks a tensor for its shape alone."""
    return name.endswith("_like") or name.startswith("new_")

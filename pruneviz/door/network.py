"""What a network is, found by running it: the weights it reads, how, and which rows belong to which sample."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from pruneviz.door.samples import Samples, changed, forward, tensors, turned
from pruneviz.door.traced import Call, Calls, Operations, Reads, owners, watched
from pruneviz.door.untouched import untouched

SOME = 32  # samples looked at where two leave weights unread, as experts that others are sent to
FIRST = 0  # samples are the first axis, or folded into it one after another


@dataclass(frozen=True)
class Weight:
    """A weight that the forward pass reads. ``layer``: the module it is of, "" for the network itself.

    ``call``: the function through which alone it is read, once (linear, conv1d, conv2d), "" otherwise. ``inner``: between
    rows of neighbouring samples in what it multiplies (0: samples come first; None: it cannot be told). ``slope``: whether
    the loss's slope reaches it. ``stays``: whether zeros of it are zeros in use. ``alive``: where a mask is part of the
    network (``torch.nn.utils.prune``), what it keeps.
    """

    name: str
    layer: str
    kind: str
    shape: torch.Size
    uses: int
    shared_with: tuple[str, ...]
    biases: tuple[str, ...]
    flops: int
    call: str = ""
    inner: int | None = FIRST
    slope: bool = True
    stays: bool = True
    frozen: bool = False
    alive: Tensor | None = field(default=None, repr=False)
    why: str = ""  # the fast forms do not hold

    @property
    def size(self) -> int:
        return self.shape.numel()

    @property
    def factors(self) -> bool:
        """Whether it has Kronecker factors."""
        return bool(self.call) and self.inner is not None


@dataclass(frozen=True)
class Network:
    """All that one look at a network finds. ``weights``: name -> weight, in the order of the forward pass."""

    weights: dict[str, Weight]
    by_number: dict[str, int]  # tensors of several axes that are added or multiplied entry by entry: name -> size
    unused: tuple[str, ...]
    outputs: torch.Size  # of one sample
    integers: bool  # whether the outputs are
    flops: int  # of one sample's forward pass
    uncounted: tuple[str, ...]
    mixes: bool  # samples meet in evaluation mode

    def counted(self, *, embeddings: bool = False) -> dict[str, Weight]:
        """The weights that sparsity counts: all that multiply, and lookup tables where asked for."""
        return {n: w for n, w in self.weights.items() if embeddings or w.kind != "embedding"}

    @property
    def shared(self) -> dict[str, tuple[str, ...]]:
        """Weights that have several names -> the others."""
        return {w.name: w.shared_with for w in self.weights.values() if w.shared_with}

    def biases(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(bias for w in self.counted().values() for bias in w.biases))


_KNOWN: WeakKeyDictionary[nn.Module, tuple[Any, Network]] = WeakKeyDictionary()


def network_of(model: nn.Module, x: Samples) -> Network:
    """What :func:`look` finds, kept as long as the model has these parameters and takes samples of this form."""
    key = (
        tuple((id(p), p.shape, p.requires_grad) for p in model.parameters()),
        tuple((t.shape[1:], t.dtype, t.device) for t in tensors(x)),
        getattr(x, "outputs", None),
        tuple((id(b), b._version) for name, b in model.named_buffers() if name.endswith("_mask")),
    )
    known = _KNOWN.get(model)
    if known is None or known[0] != key:
        known = _KNOWN[model] = key, look(model, x)
    return known[1]


def look(model: nn.Module, x: Samples) -> Network:
    """Run the network on two samples and see: one watched pass, and two in which one of the samples is another.

    Raises: Unsuitable where it reads no weight.
    """
    pair = _pair(x)
    output, seen, reached = _watch(model, pair)
    inner, mixes = _rows(model, pair, seen, output)
    if len(x) > len(pair) and any(key not in seen.order and p.dim() > 1 for key, p in seen.params.items()):
        several = x[:SOME]
        more = _watch(model, several)
        if len(more[1].order) > len(seen.order):  # samples take different ways: no row is always the same sample's
            pair, (output, seen, reached), inner = several, more, {}
    return _Found(model, pair, seen, reached, {} if mixes else inner).network(output, mixes)


def _watch(model: nn.Module, x: Samples) -> tuple[Tensor, Operations, set[int]]:
    with untouched(model):
        output, seen = watched(model, lambda: forward(model, x), tensors(x))
        return output, seen, _reached(model, output)


class _Found:
    """From what was seen to what it means."""

    def __init__(
        self, model: nn.Module, pair: Samples, seen: Operations, reached: set[int], inner: dict[int, int | None]
    ):
        self.model, self.pair, self.seen, self.reached, self.inner = model, pair, seen, reached, inner
        self.names: dict[int, list[tuple[str, nn.Module, str]]] = {}
        for name, module, prefix, parameter in owners(model):
            self.names.setdefault(id(parameter), []).append((name, module, prefix))

    def network(self, output: Tensor, mixes: bool) -> Network:
        weights, by_number, unused = {}, {}, []
        for key in self._order():
            reads, parameter = self.seen.reads[key], self.seen.params[key]
            name, module, prefix = self._named(key, reads)
            if parameter.dim() < 2 or not reads.operations:
                if key not in self.seen.order and not reads.computed and key not in self.reached:
                    unused.append(name)
                elif parameter.dim() > 1 and parameter.numel() > max(parameter.shape):
                    by_number[name] = parameter.numel()
                continue
            if self._computed(reads) and not self._stands_for(key, reads):
                continue
            layer = _layer(module, prefix)
            weights[name] = self._weight(key, reads, name, self.model.get_submodule(layer), layer)
        return Network(
            weights, by_number, tuple(unused), output.shape[1:], not output.is_floating_point(),
            self.seen.flops // len(self.pair), tuple(sorted(self.seen.uncounted)), mixes,
        )  # fmt: skip

    def _order(self) -> list[int]:
        """Parameters as the forward pass comes to them; those it never reads at the end."""
        first = {key: i for i, key in enumerate(self.seen.order)}  # a dict keeps the order
        return sorted(self.seen.params, key=lambda key: first.get(key, len(first)))

    def _named(self, key: int, reads: Reads) -> tuple[str, nn.Module, str]:
        """The name it counts under: of a table that is also a matrix, the matrix's."""
        found = self.names[key]
        return next((n for n in found if not (reads.matrix and isinstance(n[1], nn.Embedding))), found[0])

    @staticmethod
    def _computed(reads: Reads) -> bool:
        """Whether something computed from it is multiplied in its place."""
        return bool(reads.computed) and not reads.direct

    def _stands_for(self, key: int, reads: Reads) -> bool:
        """Whether it, and not a scale beside it, is the weight that something is computed from."""
        sources = [k for k, r in self.seen.reads.items() if any(a is b for a in r.computed for b in reads.computed)]
        size = self.seen.params[key].numel()
        return size == max(self.seen.params[k].numel() for k in sources)

    def _weight(self, key: int, reads: Reads, name: str, module: nn.Module, prefix: str) -> Weight:
        parameter = self.seen.params[key]
        calls = [c for i, c in enumerate(self.seen.calls.made) if c.weight == key]
        numbers = {i for i, c in enumerate(self.seen.calls.made) if c.weight == key}
        others = tuple(n for n, *_ in self.names[key] if n != name)
        call, inner, why = "", None, ""
        if self._computed(reads):
            why = "what is multiplied is computed from it"
        elif len(calls) > 1 or (reads.lookup is False and len(reads.operations) > max(1, len(calls)) and others):
            why = f"it is used {max(len(calls), len(reads.operations))} times in one forward pass"
        elif reads.computed or reads.by_number:
            why = "the forward pass computes something else from it as well"
        elif calls and any(
            number not in numbers for number in reads.calls
        ):  # turned round in another call, as a tied decoder's
            why = f"it is used {len(reads.operations)} times in one forward pass"
        elif not calls:
            inside = "an attention" if "Quantizable" in type(module).__name__ else type(module).__name__
            why = f"it is read inside {inside}, not by a call of linear or a convolution"
            if "conv" in (kind := _kind(module, reads)):
                why = f"it is a {kind}, not one along one or two axes"
        else:
            call, inner = calls[0].function, self.inner.get(next(iter(numbers)), None)
            if inner is None:
                why = "which rows of its input belong to which sample cannot be told"
        alive, stays = self._in_use(key, reads) if self._computed(reads) else (None, True)
        return Weight(
            name=name, layer=prefix, kind=_kind(module, reads), shape=parameter.shape,
            uses=max(len(calls), len(set(reads.calls)), 1), shared_with=others, biases=self._biases(calls, module, prefix),
            flops=reads.flops // len(self.pair), call=call, inner=inner, slope=key in self.reached, stays=stays,
            frozen=not parameter.requires_grad, alive=alive, why=why,
        )  # fmt: skip

    def _biases(self, calls: list[Call], module: nn.Module, prefix: str) -> tuple[str, ...]:
        given = [self.names[c.bias][0][0] for c in calls if c.bias in self.names]
        if calls:
            return tuple(dict.fromkeys(given))
        own = module.named_parameters(recurse=False)
        return tuple(
            f"{prefix}.{k}" if prefix else k for k, p in own if p.dim() == 1 and k.startswith(("bias", "in_proj_b"))
        )

    def _in_use(self, key: int, reads: Reads) -> tuple[Tensor | None, bool]:
        """What a mask inside the network keeps, and whether zeros of the parameter are zeros of what is multiplied."""
        parameter, used = self.seen.params[key], _as(reads.computed[-1], self.seen.params[key])
        if used is None:
            return None, False
        zero = torch.rand(parameter.shape, generator=torch.Generator().manual_seed(0)).to(parameter.device) < 0.5
        kept = parameter.detach().clone()
        try:
            with torch.no_grad(), untouched(self.model), torch.no_grad():
                fill = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)).to(parameter)
                parameter.copy_(
                    torch.where(kept == 0, fill * kept.abs().mean(), kept)
                )  # what is zero anyway shows nothing
                parameter[zero] = 0
                _, again = watched(self.model, lambda: forward(self.model, self.pair), tensors(self.pair))
                now = _as(again.reads[key].computed[-1], parameter)
        finally:
            with torch.no_grad():
                parameter.copy_(kept)
        stays = now is not None and bool((now[zero] == 0).all())
        dead = (used == 0) & (kept != 0)
        return (~dead if bool(dead.any()) else None), stays


def _as(used: Tensor, parameter: Tensor) -> Tensor | None:
    """A computed weight in the parameter's shape."""
    used = used.detach()
    if used.shape == parameter.shape:
        return used
    return used.mT if used.dim() == 2 and used.mT.shape == parameter.shape else None


def _layer(module: nn.Module, prefix: str) -> str:
    """The layer that a parameter is of: not the parametrization inside it."""
    if isinstance(module, nn.utils.parametrize.ParametrizationList):
        return f".{prefix}".rpartition(".parametrizations")[0].removeprefix(".")
    return prefix


def _kind(module: nn.Module, reads: Reads) -> str:
    kinds: dict[type[nn.Module] | tuple[type[nn.Module], ...], str] = {
        nn.Linear: "linear", nn.Conv1d: "conv1d", nn.Conv2d: "conv2d", nn.Conv3d: "conv3d",
        (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d): "transposed convolution",
        nn.MultiheadAttention: "attention", nn.RNNBase: "recurrent",
    }  # fmt: skip
    if reads.lookup:
        return "embedding"
    for types, kind in kinds.items():
        if isinstance(module, types):
            return kind
    return "convolution" if any("conv" in op for op in reads.operations) else "matrix"


def _reached(model: nn.Module, output: Tensor) -> set[int]:
    """Ids of the parameters that a slope at the outputs comes back to."""
    if not output.requires_grad:
        return set()
    params = list(model.parameters())
    try:
        found = torch.autograd.grad(output.sum(), params, allow_unused=True)
    except RuntimeError:  # an operation in place on what the slope reads: whoever takes it says so
        return {id(p) for p in params}
    return {id(p) for p, g in zip(params, found, strict=True) if g is not None}


# which rows belong to which sample


def _pair(x: Samples) -> Samples:
    """Two samples that differ; of a single one, it and itself turned round."""
    if len(x) > 1:
        return x[:2]
    return changed(x, lambda t: torch.cat([t, turned(t)]))


def _other(pair: Samples, place: int) -> Samples:
    """The pair with one sample changed: the other one's numbers in another order, and a little larger."""

    def change(t: Tensor) -> Tensor:
        t = t.clone()
        rolled = t[1 - place].flatten().roll(1).view_as(t[place])
        t[place] = rolled * 1.25 + 0.125 if t.is_floating_point() else rolled
        return t

    return changed(pair, change)


def _rows(model: nn.Module, pair: Samples, seen: Operations, output: Tensor) -> tuple[dict[int, int | None], bool]:
    """Call -> how far rows of neighbouring samples are apart, and whether samples meet in the outputs."""
    differing: list[list[Tensor | None]] = []
    outputs = []
    with untouched(model), torch.no_grad():
        with Calls() as calls:  # once more: what is compared comes from the same kernels
            base = forward(model, pair)
        plain = calls.made if len(calls.made) == len(seen.calls.made) else []
        for place in (0, 1):
            with Calls() as calls:
                outputs.append(forward(model, _other(pair, place)))
            same = len(calls.made) == len(plain)
            differing.append(
                [_differ(a, b) if same else None for a, b in zip(plain, calls.made if same else plain, strict=True)]
            )
    inner = {i: _spacing(call, differing[0][i], differing[1][i]) for i, call in enumerate(plain)}
    meet = any(len(o) != 2 or (bool((o[1 - place] != base[1 - place]).any()) and not _near(o[1 - place], base[1 - place]))
               for place, o in enumerate(outputs))  # fmt: skip
    return inner, meet or len(output) != 2


def _near(a: Tensor, b: Tensor) -> bool:
    return a.is_floating_point() and bool(torch.allclose(a, b, rtol=1e-3, atol=1e-6 * float(b.abs().max()) + 1e-12))


def _differ(a: Call, b: Call) -> Tensor | None:
    """Which rows of a call's input are others: bool [rows]; of an image its rows are the images."""
    if a.input.shape != b.input.shape:
        return None
    flat = (lambda t: t.reshape(-1, t.shape[-1])) if a.function == "linear" else (lambda t: t.flatten(1))
    x, y = flat(a.input), flat(b.input)
    if not x.numel():  # an expert that no sample goes to
        return x.new_zeros(len(x), dtype=torch.bool)
    return (x - y).abs().amax(1) > 1e-6 * x.abs().amax()  # beyond rounding


def _spacing(call: Call, first: Tensor | None, second: Tensor | None) -> int | None:
    """0 where the samples come first, else rows between neighbours; None where no such order fits what changed."""
    if first is None or second is None or len(first) % 2 or bool((first & second).any()):
        return None
    rows = len(first)
    lead = call.input.shape[:-1] if call.function == "linear" else call.input.shape[:1]
    of_axes = [int(torch.tensor(lead[i + 1 :]).prod()) for i, size in enumerate(lead) if size == 2]
    smaller = [d for d in range(1, rows // 2 + 1) if (rows // 2) % d == 0]
    for inner in dict.fromkeys([rows // 2, *of_axes, *smaller]):
        mine = (torch.arange(rows, device=first.device) // inner) % 2
        if not bool((first & (mine != 0)).any() or (second & (mine != 1)).any()):
            return FIRST if inner == rows // 2 else inner
    return None

"""Single weights as units: which of a network's weights a method counts, and what it leaves out and why."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase

from torch import nn

from pruneviz.basics.errors import Unsuitable
from pruneviz.door.network import Network, Weight
from pruneviz.door.parameters import Layer

SKIPPED = "left alone, as asked"
COVERED = 0.9  # share of the matrix weights below which a sparsity is about less than it seems


def prunable(model: nn.Module, *, biases: bool = False) -> tuple[str, ...]:
    """Names of the weights (and biases) of Linear and convolution layers, in registration order: of a network that is not looked into."""
    names = []
    for prefix, module in model.named_modules():
        if isinstance(module, Layer):
            for kind, parameter in module.named_parameters(recurse=False):
                if kind == "weight" or (biases and kind == "bias" and parameter is not None):
                    names.append(f"{prefix}.{kind}" if prefix else kind)
    if not names:
        raise Unsuitable("The network has no Linear, Conv1d or Conv2d layer, so there is nothing to prune.")
    return tuple(names)


def counted(
    network: Network,
    *,
    skip: Sequence[str] = (),
    slopes: bool = True,
    kinds: Sequence[str] = (),
    embeddings: bool = False,
    biases: bool = False,
) -> tuple[str, ...]:
    """Names of the weights that are scored, in forward order. ``slopes``: the score reads them; ``kinds``: these alone.

    Raises: Unsuitable for a weight whose zeros would not be zeros in use, and where nothing is left.
    """
    found = []
    for weight in network.counted(embeddings=embeddings).values():
        if skips(skip, weight) or (slopes and not weight.slope) or (kinds and weight.kind not in kinds):
            continue
        if not weight.stays:
            raise Unsuitable(
                f"{weight.name!r} can't be pruned: what the network multiplies is computed from it, and zeros of it are not "
                f"zeros there. Leave it alone with skip=({weight.layer or weight.name!r},)."
            )
        found += [weight.name, *(weight.biases if biases else ())]
    if not found:
        reasons = left_out(network, (), skip=skip, slopes=slopes, kinds=kinds)
        said = "; ".join(f"{name!r}: {why}" for name, why in list(reasons.items())[:4])
        raise Unsuitable(f"No weight is left to score. {said or 'The network reads none.'}")
    return tuple(dict.fromkeys(found))


def counted_names(network: Network) -> tuple[str, ...]:
    """Names of all weights that some method can score."""
    return tuple(w.name for w in network.counted().values() if w.stays)


def skips(patterns: Iterable[str], weight: Weight) -> bool:
    """Whether a weight, or the layer it is of, has one of these names (``*`` stands for anything)."""
    names = (weight.layer, weight.name, *weight.shared_with, *(n.rpartition(".")[0] for n in weight.shared_with))
    return any(called(name, pattern) for pattern in patterns for name in names)


def called(name: str, pattern: str) -> bool:
    """Whether a layer or parameter is called so, or is inside what is (``*`` stands for anything)."""
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")


def known_patterns(network: Network, patterns: Sequence[str]) -> None:
    """Raises Unsuitable for a pattern that no layer has."""
    for pattern in patterns:
        if not any(skips((pattern,), weight) for weight in network.weights.values()):
            layers = list(dict.fromkeys(w.layer or w.name for w in network.weights.values()))
            near = get_close_matches(pattern, layers, n=1, cutoff=0.4)
            mend = f"Did you mean {near[0]!r}?" if near else f"There are {', '.join(map(repr, layers[:8]))}."
            raise Unsuitable(f"skip names {pattern!r}, and no layer with weights is called so. {mend}")


def left_out(
    network: Network,
    names: Iterable[str],
    *,
    skip: Sequence[str] = (),
    slopes: bool = False,
    kinds: Sequence[str] = (),
) -> dict[str, str]:
    """Every tensor of several axes that the forward pass reads and ``names`` lacks -> why."""
    names, found = set(names), {}
    for weight in network.weights.values():
        if weight.name in names or f"{weight.layer}.core.weight" in names:
            continue
        if skips(skip, weight):
            why = SKIPPED
        elif weight.kind == "embedding":
            why = "a lookup table; embeddings=True counts it"
        elif not weight.stays:
            why = "what is multiplied is computed from it, and zeros do not stay zero"
        elif slopes and not weight.slope:
            why = "no slope of the loss reaches it (no_grad, or detached)"
        elif kinds and weight.kind not in kinds:
            why = f"{weight.kind}: this method reads {', '.join(kinds)} only"
        else:
            why = weight.why or "not scored by this method"
        found[weight.name] = why
    return found | dict.fromkeys(network.by_number, "used entry by entry, not as a matrix")


def share(network: Network, names: Iterable[str], *, skip: Sequence[str] = ()) -> float:
    """Of all entries of weights that multiply, or are looked up, those that ``names`` count; what was to be skipped aside."""
    names = set(names)
    meant = [w for w in network.weights.values() if not skips(skip, w)]
    have = sum(w.size for w in meant if w.name in names or f"{w.layer}.core.weight" in names)
    return have / max(1, sum(w.size for w in meant))


def unpriced(network: Network) -> tuple[str, ...]:
    """A sentence where the network's operations cannot be counted."""
    known = not network.uncounted
    return () if known else (f"FLOPs are not known: nobody says what {', '.join(network.uncounted)} costs.",)

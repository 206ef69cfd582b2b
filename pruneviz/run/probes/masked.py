"""What a mask looks like: the same sampled weights in every run of a network, each layer in blocks, the first layer as images."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from pruneviz.records.arrays import WHOLE, Kept, Ranking
from pruneviz.units.directions import plain, rotated
from pruneviz.units.masks import Mask, Scores, Slot

SAMPLE = 20_000  # weights of a network that masks and scores are compared on: all of a smaller one
BLOCKS = 32  # rows and columns of a layer's matrix that are told apart
IMAGES, PIXELS = 24, 1600  # units of the first layer that are shown, and their weights: four units of a large one


def sampled(size: int) -> np.ndarray:
    """Places [<= 20,000] in ``size`` weights, rising: multiples of a number near ``size`` over the golden ratio, modulo ``size``.

    They follow from ``size`` alone, and lie so evenly (low discrepancy) that each layer has its share to within a dozen.
    """
    if size <= SAMPLE:
        return np.arange(size)
    step = round(size * (5**0.5 - 1) / 2)
    while np.gcd(step, size) != 1:
        step += 1
    return np.sort(np.arange(SAMPLE, dtype=np.int64) * step % size)


def ranked(model: nn.Module, scores: Scores, mask: Mask, sample: Tensor) -> Ranking:
    """Before anything leaves: how the score orders the sampled weights, and the first layer's weights, where it reads images."""
    weights = _images(plain(model), sample)
    if rotated(model):
        return Ranking(layers=tuple(rotated(model)), weights=weights)
    score = {group.members[0]: values.detach().cpu().double().numpy() for group, values in scores.values.items()}
    places, at = _places(mask), 0
    values, counts = [], []
    for name, keep in mask.items():
        own = places[np.searchsorted(places, at) : np.searchsorted(places, at + keep.numel())] - at
        single, filters = score.get(Slot(name)), score.get(Slot(name, (0,)))
        one = single[own] if single is not None else filters[own // keep[0].numel()] if filters is not None else None
        values.append(np.full(len(own), np.nan) if one is None else one)
        counts.append(len(own))
        at += keep.numel()
    flat = np.concatenate(values)
    known = np.isfinite(flat)
    order = np.zeros(len(flat), np.uint16)
    order[known] = np.unique(flat[known], return_inverse=True)[1] + 1
    return Ranking(layers=_layers(mask), order=order, counts=np.array(counts, np.int32), weights=weights)


def masked(model: nn.Module, mask: Mask, sample: Tensor) -> Kept:
    """What is left of the weights, layer by layer, trained again."""
    turned = rotated(model)
    own = {f"{name}.core.weight": name for name in turned}
    inside = {f"{name}.{part}.weight" for name in turned for part in ("before", "after")}
    layers = {own.get(name, name.removesuffix(".weight")): keep for name, keep in mask.items() if name not in inside}
    flat = [keep.flatten(1).cpu().double() for keep in layers.values()]
    means = [blocked(blocked(one, 0, torch.mean), 1, torch.mean) for one in flat]
    weights, kept, pixels = _images(plain(model), sample), None, None
    if not turned:
        bits = torch.cat([keep.flatten() for keep in mask.values()]).cpu().numpy()
        kept = np.packbits(bits[_places(mask)])
        first = next(iter(layers.values()))
        if weights is not None and first.dim() == 2:
            pixels = (WHOLE * first.cpu().double().mean(0)).round().byte().view(sample.shape[1:]).numpy()
    return Kept(
        layers=tuple(layers),
        density=tuple((WHOLE * mean).round().byte().numpy() for mean in means),
        shape=tuple(np.array(one.shape) for one in flat),
        kept=kept,
        weights=weights,
        pixels=pixels,
    )


def _layers(mask: Mask) -> tuple[str, ...]:
    return tuple(name.removesuffix(".weight") for name in mask)


def _places(mask: Mapping[str, Tensor]) -> np.ndarray:
    return sampled(sum(keep.numel() for keep in mask.values()))


def _images(model: nn.Module, sample: Tensor) -> np.ndarray | None:
    """The first layer's weights as images, where it reads some."""
    layer = next(module for module in model.modules() if isinstance(module, nn.Linear | nn.Conv2d))
    weight = layer.weight.detach()
    weight = weight[: min(IMAGES, max(4, PIXELS // weight[0].numel()))]
    shape = tuple(weight.shape[1:]) if isinstance(layer, nn.Conv2d) else tuple(sample.shape[1:])
    if len(shape) != 3 or min(shape[1:]) < 2 or int(np.prod(shape)) != weight[0].numel():
        return None
    return weight.reshape(-1, *shape).half().cpu().numpy()


def blocked(values: Tensor, axis: int, of: Callable[[Tensor, int], Tensor]) -> Tensor:
    """Sums or means ``of`` at most 32 blocks of neighbours along an axis."""
    parts = values.tensor_split(min(BLOCKS, values.shape[axis]), axis)
    return torch.stack([of(part, axis) for part in parts], axis)

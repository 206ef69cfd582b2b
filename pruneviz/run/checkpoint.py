"""A network and its mask as plain arrays, and back."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy

import numpy as np
import torch
from torch import Tensor, nn

from pruneviz.records.arrays import Network
from pruneviz.run.dense import state_of
from pruneviz.units.masks import Mask


def packed(model: nn.Module, mask: Mask) -> dict[str, np.ndarray]:
    """Weights and bit-packed mask as plain arrays: ``weight/<name>``, ``mask/<name>``; units larger than a weight ``unit/<group>``."""

    def bits(keep: Tensor) -> np.ndarray:
        return np.packbits(keep.cpu().flatten().numpy())

    found = {f"weight/{name}": tensor.numpy() for name, tensor in state_of(model).items()}
    found |= {f"mask/{name}": bits(keep) for name, keep in mask.items()}
    units = mask.units if mask.layout is not None else {}
    return found | {f"unit/{group.name}": bits(keep) for group, keep in units.items()}


def thinned(stored: Mapping[str, np.ndarray]) -> Network:
    """What :func:`packed` gives, or plain weights by name, as little as it takes to run a network of single weights."""
    weights = {name.removeprefix("weight/"): value for name, value in stored.items() if not name.startswith("mask/")}
    layers = [name.removesuffix(".weight") for name in weights if name.endswith(".weight")]
    found: dict[str, list[np.ndarray | None]] = {"weights": [], "kept": [], "shape": [], "bias": []}
    for layer in layers:
        value = weights[f"{layer}.weight"]
        whole = np.packbits(np.ones(value.size, bool))
        kept = stored.get(f"mask/{layer}.weight", whole)
        found["weights"].append(value.flatten()[np.unpackbits(kept, count=value.size).astype(bool)])
        found["kept"].append(kept)
        found["shape"].append(np.array(value.shape))
        found["bias"].append(weights.get(f"{layer}.bias"))
    return Network(layers=tuple(layers), **{name: tuple(values) for name, values in found.items()})


def restore_(model: nn.Module, stored: dict[str, np.ndarray], mask: Mask) -> Mask:
    """The inverse of :func:`packed`: loads the weights in place and returns the mask."""

    def read(key: str, keep: Tensor) -> Tensor:
        flat = np.unpackbits(stored[key], count=keep.numel()).astype(bool)
        return torch.from_numpy(flat).view(keep.shape).to(keep.device)

    weights = {k.removeprefix("weight/"): torch.from_numpy(v) for k, v in stored.items() if k.startswith("weight/")}
    model.load_state_dict(deepcopy(weights))
    if mask.layout is not None:
        return mask.keeping({group: read(f"unit/{group.name}", keep) for group, keep in mask.units.items()})
    return Mask({name: read(f"mask/{name}", keep) for name, keep in mask.items()})

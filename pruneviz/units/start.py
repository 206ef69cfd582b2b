"""A network that is sparse already: what is gone from the start, and stays gone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from pruneviz.door.parameters import named
from pruneviz.units.masks import Mask, matched

PARTLY = 0.01  # of a tensor's entries: from here on its zeros were put there, and are not chance


def partly_zero(tensor: Tensor) -> bool:
    """Whether 1% or more of the entries are exactly zero, and not all: a tensor that is zero throughout has yet to learn."""
    zeros = int((tensor == 0).sum())
    return PARTLY * tensor.numel() <= zeros < tensor.numel()


@torch.no_grad()
def alive_at(model: nn.Module, names: Iterable[str], *, given: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """Parameter name -> which of its entries are there, bool like it, on its device.

    The zeros of a partly zero tensor are gone; in a tensor without zeros, or zero throughout, all entries are there. What
    ``given`` (a mask, or bool tensors by parameter name) says is gone is gone too; its other parameters are passed over.

    Raises: Unsuitable, where ``given`` has a name that the model has not, or another shape.
    """
    params, names = named(model), list(names)
    found = {
        n: params[n] != 0 if partly_zero(params[n]) else torch.ones_like(params[n], dtype=torch.bool) for n in names
    }
    everything = given.everything if isinstance(given, Mask) else given or {}
    for name, (_, keep) in matched(model, everything).items():
        if name in found:
            found[name] &= keep
    return found


def whole_units(alive: Tensor, groups: int = 1) -> bool:
    """Whether what is gone of a weight [out, in, ...] are whole outputs and whole inputs, the same ones in each of its groups."""
    each = alive.reshape(groups, -1, alive.shape[1], alive[0, 0].numel())
    out, into = each.flatten(2).any(2).any(0), each.any(3).any(1).any(0)
    return bool((each == (out[:, None] & into)[..., None]).all())

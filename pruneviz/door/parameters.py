"""A network's parameters by every name they have, and copies of networks."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from torch import Tensor, nn

Convolution = nn.Conv1d | nn.Conv2d  # whose filters can leave
Layer = nn.Linear | Convolution  # that has Kronecker factors


def named(model: nn.Module) -> dict[str, nn.Parameter]:
    """Every parameter under every name it has: one that two layers share is there twice (``named_parameters`` gives its first)."""
    return dict(model.named_parameters(remove_duplicate=False))


def copied(model: nn.Module) -> nn.Module:
    """A copy that shares nothing with the model, also where a module keeps a tensor it has computed (``torch.nn.utils.prune``)."""
    memo: dict[int, Any] = {}
    for module in model.modules():
        for value in vars(module).values():
            if isinstance(value, Tensor) and not value.is_leaf:
                memo[id(value)] = value.detach().clone()
    return deepcopy(model, memo)

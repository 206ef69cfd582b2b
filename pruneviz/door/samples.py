"""Samples in the form that a network takes them in, and the one tensor of what it gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from pruneviz.basics.errors import Unsuitable

Chosen = str | int | Callable[[Any], Tensor] | None  # which of a network's outputs is read; None: the only one


@dataclass(frozen=True)
class Inputs:
    """Samples that are more than one tensor, or whose network gives more than one: used like a tensor whose first axis is samples.

    ``values``: a tensor, a tuple of tensors, or name -> tensor (given by keyword); ``outputs``: what of the result is read.
    """

    values: Tensor | tuple[Tensor, ...] | Mapping[str, Tensor]
    outputs: Chosen = None

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        if isinstance(self.values, Tensor):
            return (self.values,)
        return tuple(self.values.values() if isinstance(self.values, Mapping) else self.values)

    def each(self, change: Callable[[Tensor], Tensor]) -> Inputs:
        """The same with every tensor changed."""
        values = self.values
        if isinstance(values, Tensor):
            return replace(self, values=change(values))
        if isinstance(values, Mapping):
            return replace(self, values={name: change(value) for name, value in values.items()})
        return replace(self, values=tuple(change(value) for value in values))

    def __len__(self) -> int:
        return len(self.tensors[0])

    def __getitem__(self, which: slice | Tensor) -> Inputs:
        return self.each(lambda value: value[which])

    def split(self, size: int) -> Iterator[Inputs]:
        for first in range(0, len(self), size):
            yield self[first : first + size]


Samples = Tensor | Inputs


def forward(model: nn.Module, x: Samples) -> Tensor:
    """What the network makes of the samples: the one tensor that is read. Raises Unsuitable where it is not clear which."""
    if not isinstance(x, Inputs):
        return one(model(x), None)
    if isinstance(x.values, Mapping):
        return one(model(**x.values), x.outputs)
    return one(model(*x.values) if isinstance(x.values, tuple) else model(x.values), x.outputs)


def answered(model: nn.Module, x: Samples) -> Tensor:
    """The same, in training mode too. Raises Unsuitable for a single sample in batch normalisation, and for NaN or infinity."""
    try:
        outputs = forward(model, x)
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise Unsuitable(
            "Batch normalisation in training mode needs several samples in a batch, and one batch holds a single one. Give "
            "more samples, leave out the last batch (drop_last=True), or use bn_mode='eval'."
        ) from error
    if not bool(torch.isfinite(outputs.detach()).all()):
        wrong = int((~torch.isfinite(outputs.detach())).flatten(1).any(1).nonzero()[0]) if outputs.dim() > 1 else 0
        raise Unsuitable(
            f"The network's outputs hold NaN or infinity, first for sample {wrong} of its batch. Scale the samples as in "
            "training, or leave these out."
        )
    return outputs


def changed(x: Samples, change: Callable[[Tensor], Tensor]) -> Samples:
    """The samples with every tensor changed."""
    return x.each(change) if isinstance(x, Inputs) else change(x)


def turned(t: Tensor) -> Tensor:
    """Each sample with its numbers in the opposite order."""
    return t.flatten(1).flip(1).view_as(t) if t.dim() > 1 else t


def tensors(x: Samples) -> tuple[Tensor, ...]:
    """All tensors of these samples."""
    return x.tensors if isinstance(x, Inputs) else (x,)


def joined(several: list[Samples]) -> Samples:
    """Samples one after another."""
    first = several[0]
    if not isinstance(first, Inputs):
        return torch.cat([x for x in several if isinstance(x, Tensor)])
    parts = [iter(tensors(x)) for x in several]
    return first.each(lambda _: torch.cat([next(part) for part in parts]))


def one(result: Any, chosen: Chosen) -> Tensor:
    """The tensor chosen of a network's outputs; of a tuple or mapping without a choice "logits", or the only tensor."""
    if callable(chosen):
        found = chosen(result)
    elif chosen is not None:
        found = _picked(result, chosen)
    elif isinstance(result, Tensor):
        return result
    else:
        found = _only(result)
    if isinstance(found, Tensor):
        return found
    raise Unsuitable(f"outputs={chosen!r} gives {type(found).__name__}, and a tensor is needed. {_mend(result)}")


def _picked(result: Any, chosen: str | int) -> Any:
    try:
        return getattr(result, chosen) if isinstance(chosen, str) and hasattr(result, chosen) else result[chosen]
    except (KeyError, IndexError, TypeError, AttributeError):
        raise Unsuitable(f"The network's outputs have no {chosen!r}. {_mend(result)}") from None


def _only(result: Any) -> Tensor:
    if isinstance(result, Mapping) and isinstance(logits := result.get("logits"), Tensor):
        return logits
    if isinstance(logits := getattr(result, "logits", None), Tensor):
        return logits
    values = result.values() if isinstance(result, Mapping) else result if isinstance(result, list | tuple) else ()
    distinct = {id(value): value for value in values if isinstance(value, Tensor)}
    if len(distinct) == 1:
        return next(iter(distinct.values()))
    raise Unsuitable(f"It is not clear which of the network's outputs is meant. {_mend(result)}")


def _mend(result: Any) -> str:
    if isinstance(result, Mapping):
        return f"It gives {', '.join(map(repr, result))}; say which, e.g. outputs={next(iter(result), 'logits')!r}."
    if isinstance(result, list | tuple):
        return f"It gives {len(result)} things; say which, e.g. outputs=0."
    return f"It gives {type(result).__name__}; pass outputs=a function that takes the tensor out of it."

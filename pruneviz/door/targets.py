"""Targets as people have them, brought into the form that a loss reads, or refused in one sentence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pruneviz.basics.errors import UnknownName, Unsuitable
from pruneviz.door.loss import (
    BINARY,
    CROSS_ENTROPY,
    IGNORED,
    LOSSES,
    SQUARED,
    CrossEntropy,
    Custom,
    Loss,
    probability,
)

ONE = 1e-3  # how far from 1 probabilities may add up
NO_LABEL = "Every label is -100, which means that none is counted. Give labels for some samples."


@dataclass(frozen=True)
class Fitted:
    """``y`` as ``loss`` reads it; ``counted`` [n]: which samples have a label at all, None: every one; ``notes``: sentences."""

    loss: Loss
    y: Tensor
    counted: Tensor | None = None
    notes: tuple[str, ...] = ()


def fit(outputs: Tensor, y: Any, loss: str | Loss | Callable, *, n: int) -> Fitted:
    """The loss for outputs of this shape, and targets for ``n`` samples in its form, on the outputs' device.

    ``outputs``: of the first sample or two. ``y``: a tensor, an array or a list; class numbers [n], [n, 1] or one a
    position, class probabilities like the outputs, or numbers (squared, binary). Raises: Unsuitable where they do not fit,
    UnknownName for a loss.
    """
    found = _fitted(outputs, y, _loss(loss), n)
    if found.counted is not None and not bool(found.counted.any()):
        raise Unsuitable(NO_LABEL)
    return found


def fit_batches(
    outputs: Tensor, targets: Sequence[tuple[int, Any]], loss: str | Loss | Callable
) -> tuple[Loss, list[Fitted]]:
    """The same for targets in batches, of so many samples each: some may hold no label that counts, but not all.

    Raises: as :func:`fit`, and Unsuitable where batches disagree on what their targets are.
    """
    chosen = _loss(loss)
    found = [_fitted(outputs, y, chosen, n) for n, y in targets]
    if all(f.counted is not None and not bool(f.counted.any()) for f in found):
        raise Unsuitable(NO_LABEL)
    first = found[0]
    for f in found:
        if f.loss != first.loss or f.y.is_floating_point() != first.y.is_floating_point():
            raise Unsuitable(
                f"Batches hold different kinds of targets: {_said(first.y)} and {_said(f.y)}. Give one kind to all."
            )
    return first.loss, found


def _loss(loss: str | Loss | Callable) -> Loss:
    if isinstance(loss, Loss):
        return loss
    if isinstance(loss, str):
        if loss not in LOSSES:
            raise UnknownName("loss", loss, LOSSES)
        return LOSSES[loss]
    if isinstance(loss, type):
        raise Unsuitable(f"loss is a class; give an instance: {loss.__name__}().")
    if callable(loss):
        return Custom(loss)
    raise Unsuitable(
        f"loss is one of {', '.join(LOSSES)}, or a function of outputs and targets; found {type(loss).__name__}."
    )


def _fitted(outputs: Tensor, y: Any, loss: Loss, n: int) -> Fitted:
    found = _tensor(y, loss)
    if len(found) != n:
        raise Unsuitable(f"There are {n:,} samples and {len(found):,} targets. Give one target for each sample.")
    if n == 0:
        raise Unsuitable("There are no samples: x is empty. Give at least one.")
    if found.is_floating_point():
        if not bool(torch.isfinite(found).all()):
            raise Unsuitable("The targets hold NaN or infinity. Leave these samples out.")
        found = found.to(outputs.dtype)  # before the device, which may have no float64
    elif found.dtype != torch.bool:
        found = found.long()
    if isinstance(loss, CrossEntropy):
        fitted = _classes(outputs, found, -1 if loss.axis == -1 else None)
    else:
        fitted = Fitted(loss, found) if isinstance(loss, Custom) else _numbers(outputs, found, loss)
    counted = fitted.counted
    if counted is not None:
        counted = None if bool(counted.all()) else counted.to(outputs.device)
    return replace(fitted, y=fitted.y.to(outputs.device), counted=counted)


def _tensor(y: Any, loss: Loss) -> Tensor:
    if y is None:
        raise Unsuitable(f"This needs targets: give y, one for each sample (loss {loss.key}).")
    try:
        if isinstance(y, list | tuple) and y and all(isinstance(one, Tensor) for one in y):
            y = torch.stack(list(y))
        if isinstance(y, Tensor):
            found = y.detach().to_dense()
        else:
            numbers = np.array(y)  # a copy: torch warns of arrays that it may not write to
            if numbers.dtype == object and numbers.ndim:  # a column of a table
                numbers = np.array(numbers.tolist())
            if numbers.dtype.kind not in "biufc":
                raise TypeError(f"it holds {type(y).__name__ if not numbers.ndim else type(numbers.flat[0]).__name__}")
            found = torch.from_numpy(numbers.astype(numbers.dtype.newbyteorder("="), copy=False))
    except (TypeError, ValueError, RuntimeError) as error:
        raise Unsuitable(
            f"y can't be read as numbers ({_first(error)}). Give class numbers 0, 1, … or numbers to predict."
        ) from None
    if found.is_complex():
        raise Unsuitable("The targets are complex numbers. Give real ones.")
    if found.dim() == 0:
        raise Unsuitable("y is a single number. Give one target for each sample, along the first axis.")
    return found


def _first(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


def _said(y: Tensor) -> str:
    """Type and shape, for a sentence."""
    return f"{str(y.dtype).removeprefix('torch.')} {list(y.shape)}"


def _shape(tensor: Tensor) -> str:
    return f"[{', '.join(['n', *map(str, tensor.shape[1:])])}]"


def _wide(shape: Sequence[int]) -> list[int]:
    """A shape without axes of size one."""
    return [size for size in shape if size != 1]


def _numbers(outputs: Tensor, y: Tensor, loss: Loss) -> Fitted:
    """Targets of squared or binary error: like the outputs, or class numbers for [n, classes]."""
    if _wide(y.shape[1:]) == _wide(outputs.shape[1:]):
        found = y.to(outputs.dtype).reshape(len(y), *outputs.shape[1:])
    elif y[0].numel() == 1 and outputs.dim() == 2 and not y.is_floating_point():
        labels = _in_range(y.long().reshape(-1), outputs.shape[1])
        return Fitted(loss, labels, labels != IGNORED)
    else:
        raise Unsuitable(
            f"Targets of loss={loss.key!r} have the outputs' shape {_shape(outputs)}; found {_shape(y)}. Bring y to that "
            "shape, or read other outputs with outputs=."
        )
    if loss is BINARY and bool(((found < 0) | (found > 1)).any()):
        raise Unsuitable(
            f"Targets of loss='binary' are 0 and 1, or between; found {float(found.min()):g} to {float(found.max()):g}. "
            f"Use loss={SQUARED.key!r} for other numbers."
        )
    return Fitted(loss, found)


def _classes(outputs: Tensor, y: Tensor, preferred: int | None) -> Fitted:
    """Labels and the axis that they number, or class probabilities."""
    if outputs.dim() < 2:
        raise Unsuitable(
            "Outputs [n] have no axis of classes. Use loss='squared' for a number to predict, loss='binary' for the logit of "
            "yes or no, or outputs=lambda out: out[:, None] for the probability of class 1."
        )
    one_hot = y.shape[1:] == outputs.shape[1:] and outputs[0].numel() > 1
    if y.is_floating_point() or one_hot:
        return _probabilities(outputs, y, preferred)
    axis, places = _axis(outputs, y, preferred)
    single = outputs.dim() == 2 and outputs.shape[1] == 1
    if single:
        probability(outputs)
    elif outputs.shape[axis] == 1:
        raise Unsuitable(
            f"Outputs {_shape(outputs)} have a single class. For one logit a position use loss={BINARY.key!r}."
        )
    labels = _in_range(y.long().reshape(len(y), *places), 2 if single else outputs.shape[axis])
    counted = (labels != IGNORED).reshape(len(labels), -1).any(1)
    return Fitted(_along(outputs, axis), labels, counted, _notices(outputs, axis))


def _along(outputs: Tensor, axis: int) -> CrossEntropy:
    return CrossEntropy(axis) if outputs.dim() > 2 else CROSS_ENTROPY


def _axis(outputs: Tensor, y: Tensor, preferred: int | None) -> tuple[int, tuple[int, ...]]:
    """The axis of the classes, 1 or the last, and the shape of a sample's labels. Raises Unsuitable."""
    inner, shape = tuple(y.shape[1:]), tuple(outputs.shape[1:])
    places = {1: shape[1:]} if outputs.dim() == 2 else {1: shape[1:], -1: shape[:-1]}
    fits = [axis for axis, found in places.items() if found == inner]
    fits = fits or [axis for axis, found in places.items() if _wide(found) == _wide(inner)]
    if preferred in fits:
        fits = [preferred]
    if len(fits) > 1:
        raise Unsuitable(_asks(outputs, y))
    if fits:
        return fits[0], places[fits[0]]
    raise Unsuitable(
        f"Targets {_shape(y)} do not fit outputs {_shape(outputs)}: cross-entropy takes one label a sample for [n, classes], one "
        "a position for [n, classes, …] or [n, …, classes], or probabilities like the outputs. For numbers to predict use "
        "loss='squared', for several yes/no loss='binary'."
    )


def _asks(outputs: Tensor, y: Tensor) -> str:
    return (
        f"Outputs {_shape(outputs)} with targets {_shape(y)}: the classes may lie along axis 1 or the last. Say which: give "
        "y[..., None], and outputs=lambda out: out[..., None] for axis 1, or outputs=lambda out: out.movedim(-1, 1)[..., None] "
        "for the last."
    )


def _in_range(labels: Tensor, classes: int) -> Tensor:
    known = labels[labels != IGNORED]
    wrong = known[(known < 0) | (known >= classes)]
    if not len(wrong):
        return labels
    if int(known.min()) > 0 and int(known.max()) == classes:
        mend = "Labels count from 0: subtract 1."
    else:
        mend = f"Labels are 0 to {classes - 1}; -100 marks what is to be left out."
    raise Unsuitable(f"The label {int(wrong[0])} is no class: the network has {classes} classes (outputs). {mend}")


def _probabilities(outputs: Tensor, y: Tensor, preferred: int | None) -> Fitted:
    """Class probabilities, or a sentence."""
    inside = bool(((y >= 0) & (y <= 1 + ONE)).all())
    if outputs.dim() == 2 and outputs.shape[1] == 1 and y[0].numel() == 1 and bool(((y >= 0) & (y <= 1)).all()):
        probability(outputs)
        return Fitted(CROSS_ENTROPY, y.reshape(-1))
    if inside and y.shape[1:] == outputs.shape[1:]:
        axes = (1,) if outputs.dim() == 2 else (1, -1)
        found = [axis for axis in axes if outputs.shape[axis] > 1 and _add_up(y, axis)]
        if preferred in found:
            found = [preferred]
        if len(found) > 1:
            raise Unsuitable(_asks(outputs, y))
        if found:
            return Fitted(_along(outputs, found[0]), y.to(outputs.dtype), None, _notices(outputs, found[0]))
    whole = bool((y == y.round()).all()) if y.is_floating_point() else False
    mend = "class numbers are integers, y.long()" if whole else "class numbers are integers"
    raise Unsuitable(
        f"The targets ({str(y.dtype).removeprefix('torch.')}, {_shape(y)}) are neither class numbers nor class probabilities, "
        f"which cross-entropy takes. Use loss='squared' for numbers to predict, loss='binary' for several yes/no; {mend}."
    )


def _add_up(values: Tensor, axis: int) -> bool:
    return bool(((values.to(torch.float32).sum(axis) - 1).abs() < ONE).all())


def _notices(outputs: Tensor, axis: int) -> tuple[str, ...]:
    """A softmax before cross-entropy, which takes the softmax itself."""
    inside = bool(((outputs >= 0) & (outputs <= 1)).all())
    if outputs.shape[axis] < 2 or not inside or not _add_up(outputs, axis):
        return ()
    return (
        "The outputs look like probabilities (they add up to 1), and cross-entropy takes logits: leave out the softmax at the end.",
    )

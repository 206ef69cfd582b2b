"""The one list of what functions do to the tensors that pass through them. Whoever follows a forward pass asks it."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from typing import Any


class Does(Enum):
    """What a function does with its first argument. One that is not listed is unknown: it is named, never taken for one of these."""

    ACTIVATES = auto()  # a number to a number, between layers
    COMPUTES = auto()  # a number to a number, as arithmetic
    PASSES = auto()  # the same numbers: copies, casts, dropout in evaluation mode
    NORMALISES = auto()  # each channel by itself
    RESCALES = auto()  # numbers by others of their sample: layer normalisation, softmax
    MOVES = auto()  # numbers to other places
    MERGES = auto()  # several tensors, place by place
    POOLS = auto()  # neighbours of one channel
    REDUCES = auto()  # many numbers to one
    ASKS = auto()  # nothing: it reads a property


_LISTED = {
    Does.ACTIVATES: "relu relu6 leaky_relu prelu rrelu elu selu celu gelu silu mish hardtanh hardswish hardsigmoid hardshrink "
    "tanh tanhshrink sigmoid logsigmoid softplus softsign softshrink threshold",
    Does.COMPUTES: "erf exp expm1 log log1p abs neg square sqrt rsqrt reciprocal pow clamp clamp_min clamp_max clip sin cos",
    Does.PASSES: "dropout dropout1d dropout2d dropout3d alpha_dropout feature_dropout feature_alpha_dropout clone contiguous "
    "detach to float double half bfloat16 type_as requires_grad",
    Does.NORMALISES: "batch_norm instance_norm",
    Does.RESCALES: "layer_norm group_norm rms_norm local_response_norm normalize softmax softmin log_softmax",
    Does.MOVES: "view reshape flatten unflatten permute transpose swapaxes swapdims movedim moveaxis squeeze unsqueeze expand "
    "expand_as repeat tile cat concat concatenate stack chunk split split_with_sizes tensor_split unbind narrow select "
    "__getitem__ pad constant_pad_nd t",
    Does.MERGES: "add sub mul div true_divide rsub maximum minimum __add__ __radd__ __iadd__ __sub__ __rsub__ __isub__ __mul__ "
    "__rmul__ __imul__ __truediv__ __itruediv__",
    Does.POOLS: "max_pool1d max_pool2d avg_pool1d avg_pool2d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_max_pool1d "
    "adaptive_max_pool2d lp_pool2d interpolate upsample",
    Does.REDUCES: "mean sum amax amin max min",
    Does.ASKS: "__get__ size dim numel item shape __len__ is_floating_point stride storage_offset type",
}
_WHAT = {name: does for does, names in _LISTED.items() for name in names.split()}


def does(function: Callable[..., Any]) -> Does | None:
    """What a function does, by its name, working in place or not; None where it is unknown."""
    name = getattr(function, "__name__", "")
    return _WHAT.get(name if name.endswith("__") else name.rstrip("_"))

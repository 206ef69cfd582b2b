"""Weights of one's own: a file's header looked at before anything is read, names fitted to a network's, and then loaded whole."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pruneviz.basics.errors import DataUnavailable, Unsuitable

if TYPE_CHECKING:
    from torch import Tensor, nn

LARGEST_HEADER = 100_000_000
BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "U16": 2, "I16": 2, "F16": 2, "BF16": 2, "U32": 4, "I32": 4, "F32": 4,
    "U64": 8, "I64": 8, "F64": 8,
}  # fmt: skip
_NESTED = ("state_dict", "model_state_dict", "model_state", "model", "net", "module")
_MANY = 3  # names told in a sentence
V = TypeVar("V")


def header(path: Path | str) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Tensor name -> (dtype, shape) of a safetensors file, whose length fits what it says. Raises DataUnavailable."""
    path = Path(path)
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
            length = int.from_bytes(start, "little")
            if len(start) < 8 or not 2 <= length <= min(LARGEST_HEADER, size - 8):
                raise DataUnavailable(_none(path, start))
            text = file.read(length)
        said = json.loads(text)
    except OSError as error:
        raise DataUnavailable(f"{path} cannot be read ({error.strerror}). Name a file of weights.") from None
    except (ValueError, RecursionError):
        raise DataUnavailable(_none(path, b"")) from None
    if not isinstance(said, dict):
        raise DataUnavailable(_none(path, b""))
    found: dict[str, tuple[str, tuple[int, ...]]] = {}
    spans: list[tuple[int, int]] = []
    for name, entry in said.items():
        if name == "__metadata__":
            continue
        try:
            dtype, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
            count = 1
            for side in shape:
                if type(side) is not int or side < 0:
                    raise ValueError
                count *= side
            if type(begin) is not int or type(end) is not int or end - begin != count * BYTES[dtype] or begin < 0:
                raise ValueError
        except (KeyError, TypeError, ValueError):
            raise DataUnavailable(
                f"{path.name}: what it says of {name[:80]!r} does not fit its bytes. Save the weights again."
            ) from None
        found[name] = (dtype, shape)
        spans.append((begin, end))
    spans.sort()
    if any(a[1] > b[0] for a, b in pairwise(spans)) or max((e for _, e in spans), default=0) != size - 8 - length:
        raise DataUnavailable(
            f"{path.name} is cut short or damaged: its tensors do not fill it. Save the weights again."
        )
    if not found:
        raise DataUnavailable(f"{path.name} holds no tensors. Save a network's state_dict().")
    return found


def _none(path: Path, start: bytes) -> str:
    pickled = start[:2] in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
    mend = (
        "It is a pickle under another name: load it where it is trusted and save it by safetensors.torch.save_file."
        if pickled
        else "Save the weights by safetensors.torch.save_file(net.state_dict(), FILE)."
    )
    return f"{path.name} is no safetensors file. {mend}"


def fitted(where: str, given: Mapping[str, V], wanted: Mapping[str, tuple[int, ...]], shape_of: Any) -> dict[str, V]:
    """Given tensors under the network's names: as they are, or without or with one beginning that all share (``module.``).

    Raises Unsuitable, in one sentence, where names or shapes do not fit.
    """
    named = renamed(given, wanted)
    missing = [name for name in wanted if name not in named and not name.endswith("num_batches_tracked")]
    extra = [name for name in named if name not in wanted and not name.endswith("num_batches_tracked")]
    if missing or extra:
        parts = [f"lacks {_few(missing)}"] if missing else []
        parts += [f"holds {_few(extra)}, which the network has not"] if extra else []
        raise Unsuitable(f"{where} {' and '.join(parts)}. Give the weights of this very network.")
    for name, shape in wanted.items():
        if name in named and tuple(shape_of(named[name])) != tuple(shape):
            raise Unsuitable(
                f"{where} has {name!r} in the shape {list(shape_of(named[name]))}, and the network in {list(shape)}. "
                "Give the weights of this very network, or the data that it was made for."
            )
    return {name: named[name] for name in wanted if name in named}


def renamed(given: Mapping[str, V], wanted: Mapping[str, Any]) -> dict[str, V]:
    """The names that fit best: beginnings such as ``module.`` are taken off, or put before, where that fits more of them."""
    best, most = dict(given), sum(name in wanted for name in given)
    first = next(iter(wanted), "")
    starts = {name[: -len(first)] for name in given if first and name.endswith("." + first)}
    for start in sorted(starts):
        cut = {name.removeprefix(start): value for name, value in given.items()}
        if len(cut) == len(given) and (fits := sum(name in wanted for name in cut)) > most:
            best, most = cut, fits
    for name in list(given)[:1]:
        for start in sorted({known[: -len(name)] for known in wanted if known.endswith("." + name)}):
            longer = {start + key: value for key, value in given.items()}
            if (fits := sum(key in wanted for key in longer)) > most:
                best, most = longer, fits
    return best


def _few(names: list[str]) -> str:
    more = f" and {len(names) - _MANY} more" if len(names) > _MANY else ""
    return ", ".join(map(repr, names[:_MANY])) + more


def shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Name -> shape of everything that a network's state holds."""
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def load(path: Path | str, model: nn.Module) -> None:
    """Load a file of weights into a network, all of them or none: .safetensors, or .pt and .pth read without their code.

    Raises DataUnavailable or Unsuitable in one sentence; the network is then as it was.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        said = header(path)
        fitted(path.name, said, shapes(model), lambda entry: entry[1])  # before anything is read
        from safetensors.torch import load_file

        given = load_file(path)
    else:
        given = unpickled(path)
    tensors = fitted(path.name, given, shapes(model), lambda tensor: tensor.shape)
    own = model.state_dict()
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise Unsuitable(f"{path.name}: {name!r} holds NaN or infinite numbers. Give weights that are finite.")
        if tensor.is_floating_point() != own[name].is_floating_point():
            raise Unsuitable(
                f"{path.name}: {name!r} is {tensor.dtype}, and the network has {own[name].dtype}. Save it unquantised."
            )
    model.load_state_dict({name: tensor.to(own[name].dtype) for name, tensor in tensors.items()}, strict=False)


def unpickled(path: Path) -> dict[str, Tensor]:
    """The state dict in a .pt or .pth, as it is or under one of the usual names."""
    import pickle
    import zipfile

    import torch

    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise DataUnavailable(f"{path} cannot be read ({error.strerror}). Name a file of weights.") from None
    except (
        pickle.UnpicklingError,
        RuntimeError,
        EOFError,
        ValueError,
        KeyError,
        zipfile.BadZipFile,
        AttributeError,
        IndexError,
    ):
        raise DataUnavailable(
            f"{path.name} holds more than weights, or is damaged, and is not unpickled. Save the state alone: "
            "torch.save(net.state_dict(), FILE), or better by safetensors."
        ) from None
    for name in _NESTED:
        if isinstance(found, Mapping) and isinstance(found.get(name), Mapping):
            found = found[name]
    if not isinstance(found, Mapping) or not found or not all(isinstance(v, torch.Tensor) for v in found.values()):
        raise DataUnavailable(f"{path.name} holds no state dict of tensors. Save torch.save(net.state_dict(), FILE).")
    return {str(name): tensor for name, tensor in found.items()}

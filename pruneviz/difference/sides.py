"""The two things that are compared, each as named tensors: a file, a state dict or a module."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from pruneviz.basics.errors import DataUnavailable, InvalidSetting
from pruneviz.basics.tensors import KINDS, File, Values

_NESTED = ("state_dict", "model_state_dict", "model", "module", "net", "network", "weights")
_PT = (".pt", ".pth", ".bin", ".ckpt")
_TORCH = {
    "torch.float64": "F64", "torch.float32": "F32", "torch.float16": "F16", "torch.bfloat16": "BF16", "torch.int64": "I64",
    "torch.int32": "I32", "torch.int16": "I16", "torch.int8": "I8", "torch.uint8": "U8", "torch.bool": "BOOL", "torch.uint16": "U16",
    "torch.uint32": "U32", "torch.uint64": "U64", "torch.float8_e4m3fn": "F8_E4M3", "torch.float8_e5m2": "F8_E5M2",
}  # fmt: skip
_NUMPY = {
    np.dtype(stored): kind for kind, stored in KINDS.items() if kind not in ("BF16", "F8_E4M3", "F8_E5M2", "BOOL")
}


@dataclass(frozen=True)
class Side:
    """Named tensors. ``label`` is what sentences call them; ``notes`` say what was read otherwise than it stands."""

    label: str
    tensors: Mapping[str, Values] = field(repr=False)
    notes: tuple[str, ...] = ()


def side(given: Any, label: str) -> Side:
    """A path (.safetensors, or .pt read with weights_only), an opened :class:`File`, a module, or a mapping of tensors or arrays.

    A weight that torch keeps apart from its mask is read as their product. Raises DataUnavailable, InvalidSetting.
    """
    if isinstance(given, str | Path):
        path = Path(given).expanduser()
        found = _pickled(path) if path.suffix.lower() in _PT else _of_file(File.open(path))
        label = path.name
    elif isinstance(given, File):
        found, label = _of_file(given), given.name
    else:
        state: Any = given
        if not isinstance(given, Mapping):
            network = (
                given if hasattr(given, "state_dict") else getattr(given, "model", given)
            )  # of pv.prune and pv.compact
            state = network.state_dict() if hasattr(network, "state_dict") else given
        if not isinstance(state, Mapping):
            raise InvalidSetting(
                f"diff compares files, state dicts and modules; found {type(given).__name__}. Give a path, or net.state_dict()."
            )
        found = _of_state(state, label)
    tensors, multiplied = _multiplied(found)
    if not tensors:
        raise DataUnavailable(f"{label} holds no tensors. Give a network's state_dict().")
    notes = tuple(
        f"{label}: {count:,} weights are read as {how} keeps them, times their masks."
        for how, count in multiplied.items()
    )
    return Side(label, tensors, notes)


def _of_file(file: File) -> dict[str, Values]:
    """In the order that people count in: a file has its tensors by size or by letter."""
    return {name: file.values(name) for name in sorted(file.entries, key=_counted)}


def _counted(name: str) -> list[tuple[bool, int, str]]:
    return [
        (part.isdigit(), int(part) if part.isdigit() else 0, part) for part in re.split(r"([0-9]{1,9})", name) if part
    ]


def _of_state(state: Mapping[Any, Any], label: str) -> dict[str, Values]:
    """What is no tensor (``_extra_state``, numbers) is left out."""
    found = {str(name): value for name, value in state.items() if hasattr(value, "shape") and hasattr(value, "dtype")}
    return {name: _values(value, f"{label}: {name!r}") for name, value in found.items()}


def _values(value: Any, what: str) -> Values:
    """An array, or a torch tensor of any layout, as it is stored."""
    if isinstance(value, np.ndarray | np.generic):
        array = np.asarray(value)
        kind = "BOOL" if array.dtype == bool else _NUMPY.get(array.dtype.newbyteorder("<"), "")
        raw = np.ascontiguousarray(array.view(np.uint8) if kind == "BOOL" else array)
    else:
        if getattr(value, "is_meta", False):
            raise DataUnavailable(f"{what} is on the meta device and has no numbers. Load the weights first.")
        value = value.detach()
        if value.is_quantized:
            value = value.dequantize()
        value = (value if str(value.layout) == "torch.strided" else value.to_dense()).cpu().contiguous()
        kind = _TORCH.get(str(value.dtype), "")
        raw = _stored(value, kind) if kind else np.empty(0)
    if not kind:
        raise DataUnavailable(f"{what} holds {value.dtype}, which is not compared. Convert it to float32 first.")
    return Values(kind, tuple(value.shape), raw)


def _stored(tensor: Any, kind: str) -> np.ndarray:
    """The bytes of a torch tensor in numpy's words, of which it has none for bfloat16 and float8."""
    if kind in ("BF16", "F8_E4M3", "F8_E5M2", "BOOL"):
        import torch

        tensor = tensor.view(torch.int16 if kind == "BF16" else torch.uint8)
    return tensor.numpy().view(KINDS[kind])


def _pickled(path: Path) -> dict[str, Values]:
    """A file of torch.save: data only, no code. Raises DataUnavailable in one sentence."""
    import torch

    try:
        if zipfile.is_zipfile(
            path
        ):  # torch.save compresses nothing: what is compressed is no file of its, and may be a bomb
            with zipfile.ZipFile(path) as archive:
                packed = [one for one in archive.infolist() if one.compress_type != zipfile.ZIP_STORED]
            if packed:
                raise DataUnavailable(
                    f"{path.name} is a compressed archive, which torch.save does not write. Unpack it first."
                )
        state = torch.load(path, map_location="cpu", weights_only=True)
    except DataUnavailable:
        raise
    except OSError as error:
        raise DataUnavailable(
            f"{path} cannot be read ({error.strerror or error}). Name a file of weights that is there."
        ) from None
    except Exception as error:  # whatever a damaged or hostile file makes torch raise
        why = "Weights only" in str(error) or "weights_only" in str(error)
        raise DataUnavailable(
            f"{path.name} holds more than tensors, which would run as code, and is not read. Save net.state_dict() alone."
            if why
            else f"{path.name} is no file of torch.save, or is damaged ({type(error).__name__}). Save the state_dict() again."
        ) from None
    for name in _NESTED:
        if isinstance(state, Mapping) and isinstance(state.get(name), Mapping):
            state = state[name]
            break
    return _of_state(state if isinstance(state, Mapping) else {"tensor": state}, path.name)


def _multiplied(found: Mapping[str, Values]) -> tuple[dict[str, Values], dict[str, int]]:
    """Weights that stand beside their masks, as their product under the weight's own name; how many of which kind."""
    taken, masks, counts = dict[str, str](), dict[str, str](), dict[str, int]()
    for name, original, mask, how in _pairs(found):
        if found[original].shape == found[mask].shape and name not in found:
            taken[original], masks[mask] = name, original
            counts[how] = counts.get(how, 0) + 1
    times = {original: found[mask] for mask, original in masks.items()}
    tensors = {
        taken.get(key, key): replace(tensor, times=times[key]) if key in taken else tensor
        for key, tensor in found.items()
        if key not in masks
    }
    return tensors, counts


def _pairs(found: Mapping[str, Values]) -> Iterator[tuple[str, str, str, str]]:
    for name in found:
        if name.endswith("_orig") and (mask := f"{name[:-5]}_mask") in found:
            yield name[:-5], name, mask, "torch.nn.utils.prune"
        head, between, tail = name.rpartition("parametrizations.")
        own = tail.removesuffix(".original")
        if between and own != tail and (mask := f"{head}parametrizations.{own}.0.mask") in found:
            yield head + own, name, mask, "torch.ao.pruning"


# names


def renamed(first: Mapping[str, Values], second: Mapping[str, Values]) -> tuple[dict[str, str], str, str]:
    """Name in ``second`` -> name in ``first``, and the beginnings that names of either side have and the other's lack.

    Names match as they are or, where that fits more of them, without one beginning such as ``module.``; the one that
    fits most, if no other fits as many.
    """
    same = {name: name for name in second if name in first}
    left_a, left_b = [n for n in first if n not in same], [n for n in second if n not in same]
    begin_a, found_a = _beginning(left_a, set(left_b))
    begin_b, found_b = _beginning(left_b, set(left_a))
    if max(found_a, found_b) == 0 and not same:  # both are wrapped, each in something else
        cut_a, cut_b = _shared(left_a), _shared(left_b)
        rest = {name.removeprefix(cut_a): name for name in left_a}
        pairs = {name: rest[name.removeprefix(cut_b)] for name in left_b if name.removeprefix(cut_b) in rest}
        return pairs, cut_a if pairs else "", cut_b if pairs else ""
    if found_a >= found_b and found_a:
        rest = {name.removeprefix(begin_a): name for name in left_a if name.startswith(begin_a)}
        return same | {name: rest[name] for name in left_b if name in rest}, begin_a, ""
    if found_b:
        rest = {name.removeprefix(begin_b): name for name in left_b if name.startswith(begin_b)}
        return same | {rest[name]: name for name in left_a if name in rest}, "", begin_b
    return same, "", ""


def _beginning(long: list[str], short: set[str]) -> tuple[str, int]:
    """The beginning without which most long names are among the short ones, and how many; none where two fit as many."""
    counts: dict[str, int] = {}
    for name in long:
        for at in (i + 1 for i, letter in enumerate(name) if letter == "."):
            if name[at:] in short:
                counts[name[:at]] = counts.get(name[:at], 0) + 1
    most = max(counts.values(), default=0)
    best = [begin for begin, count in counts.items() if count == most]
    return (best[0], most) if len(best) == 1 and 2 * most >= len(short) else ("", 0)


def _shared(names: list[str]) -> str:
    """The longest beginning of whole parts, ``a.b.``, that all names have."""
    parts = [name.split(".")[:-1] for name in names]
    shared = []
    for level in zip(*parts, strict=False):
        if len(set(level)) > 1:
            break
        shared.append(level[0])
    return "".join(f"{part}." for part in shared)

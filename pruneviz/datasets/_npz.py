"""Samples from an .npz file: x and y, optionally x_val, y_val, x_test, y_test and classes. Nothing in it is unpickled."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np

from pruneviz.basics.errors import DataUnavailable
from pruneviz.datasets._given import Found, Limits, Part, completed, numbered, scaled

KNOWN = ("x", "y", "x_val", "y_val", "x_test", "y_test", "classes")
_PARTS = {"train": ("x", "y"), "val": ("x_val", "y_val"), "test": ("x_test", "y_test")}


def read(path: Path | str, limits: Limits | None = None) -> Found:
    """Own samples: floats as they are, bytes scaled to 0..1, whole numbers as tokens; missing parts split off. Raises
    DataUnavailable in one sentence; sizes are checked before anything is unpacked."""
    path = Path(path)
    where = path.name
    arrays = _arrays(path, limits or Limits())
    if "x" not in arrays or "y" not in arrays:
        raise DataUnavailable(
            f"{where} holds {', '.join(sorted(arrays)) or 'nothing'}, and must hold x and y (and may hold {', '.join(KNOWN[2:])})."
        )
    said: list[str] = []
    if extra := sorted(set(arrays) - set(KNOWN)):
        said.append(f"Left aside: {', '.join(extra)}.")
    parts: dict[str, Part] = {}
    for name, (x_name, y_name) in _PARTS.items():
        if (x_name in arrays) != (y_name in arrays):
            there, gone = (x_name, y_name) if x_name in arrays else (y_name, x_name)
            raise DataUnavailable(f"{where} holds {there} and no {gone}. Give both, or neither.")
        if x_name in arrays:
            x, y = arrays[x_name], arrays[y_name]
            if x.ndim < 2:
                raise DataUnavailable(
                    f"{where}: {x_name} has shape {list(x.shape)}. Give samples along the first axis: [n, …]."
                )
            if len(x) != len(y):
                raise DataUnavailable(
                    f"{where}: {x_name} has {len(x)} samples and {y_name} {len(y)}. Give one label for each."
                )
            parts[name] = (_channels(scaled(where, x, said, x_name), said, bytes_=x.dtype == np.uint8), y)
    if not len(parts["train"][1]):
        raise DataUnavailable(f"{where}: x holds no samples. Give at least a few of each class.")
    parts, classes = _labelled(where, parts, arrays.get("classes"), said)
    return completed(where, parts, classes, said)


def _labelled(
    where: str, parts: dict[str, Part], named: np.ndarray | None, said: list[str]
) -> tuple[dict[str, Part], tuple[str, ...]]:
    """All labels numbered alike, and the classes' names."""
    try:
        together = np.concatenate([y for _, y in parts.values()])
    except ValueError:
        raise DataUnavailable(
            f"{where}: labels of different parts have different shapes. Give all of them in one form."
        ) from None
    y, names = numbered(where, together)
    classes = names or tuple(map(str, range(int(y.max()) + 1)))
    if names and together.ndim == 1 and together.dtype.kind not in "US":
        said.append(
            f"The labels {', '.join(names[:6])}{'…' if names[6:] else ''} are counted as classes 0 to {len(names) - 1}."
        )
    if named is not None:
        if named.dtype.kind not in "US" or named.ndim != 1 or len(named) < len(classes):
            raise DataUnavailable(
                f"{where}: classes is a list of {len(classes)} names; found {named.dtype} of shape {list(named.shape)}."
            )
        if not names or together.ndim == 2:
            classes = tuple(map(str, named))
    ends = np.cumsum([len(own) for _, own in parts.values()])[:-1]
    pieces = np.split(y, ends)
    return {name: (x, piece) for (name, (x, _)), piece in zip(parts.items(), pieces, strict=True)}, classes


def _channels(x: np.ndarray, said: list[str], *, bytes_: bool) -> np.ndarray:
    """Images as [n, channels, rows, columns]: bytes or squares [n, rows, columns] get one channel, channels that come last go first."""
    if x.ndim == 3 and x.dtype.kind == "f" and min(x.shape[1:]) > 4 and (bytes_ or x.shape[1] == x.shape[2]):
        told, x = "Samples [rows, columns] are read as images of one channel.", x[:, None]
    elif x.ndim == 4 and x.shape[3] in (1, 3, 4) and x.shape[1] not in (1, 3, 4):
        told, x = "Channels came last and are put first.", np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    else:
        return x
    if told not in said:
        said.append(told)
    return x


def _arrays(path: Path, limits: Limits) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise DataUnavailable(f"{path} is no file. Name an .npz with arrays x and y.")
    try:
        with zipfile.ZipFile(path) as whole:
            return _checked(path.name, whole, limits)
    except zipfile.BadZipFile:
        raise DataUnavailable(f"{path.name} is no .npz file. Write it by numpy.savez(FILE, x=…, y=…).") from None
    except (OSError, zlib.error, NotImplementedError, RuntimeError, EOFError) as error:
        raise DataUnavailable(f"{path.name} cannot be read ({error}). Write it again by numpy.savez.") from None


def _checked(where: str, whole: zipfile.ZipFile, limits: Limits) -> dict[str, np.ndarray]:
    members = [m for m in whole.infolist() if m.filename.endswith(".npy")]
    if len(members) > 64:
        raise DataUnavailable(f"{where} holds {len(members)} arrays; at most 64 are read. Give x and y in one file.")
    total = sum(m.file_size for m in members)
    if total > limits.bytes_in_all or any(m.file_size > limits.bytes_a_file for m in members):
        raise DataUnavailable(
            f"{where} unpacks to {total / 2**20:,.0f} MB; at most {limits.bytes_a_file / 2**20:,.0f} MB an array and "
            f"{limits.bytes_in_all / 2**20:,.0f} MB in all are read. Give fewer or smaller samples."
        )
    found: dict[str, np.ndarray] = {}
    for member in members:
        name = member.filename.removesuffix(".npy")
        with whole.open(member) as file:
            try:
                version = np.lib.format.read_magic(file)
                read_header = (
                    np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                )
                shape, fortran, dtype = read_header(file)
            except ValueError as error:
                raise DataUnavailable(f"{where}: {name} is no array ({error}). Write it by numpy.savez.") from None
            if dtype.hasobject:
                raise DataUnavailable(
                    f"{where}: {name} holds Python objects, which would have to be unpickled. Give numbers: np.asarray(x, dtype=float)."
                )
            count = int(np.prod(shape, dtype=object)) * dtype.itemsize
            content = file.read(count + 1) if count <= member.file_size else b""
            if len(content) != count:
                raise DataUnavailable(
                    f"{where}: {name} says that it has shape {list(shape)}, and its bytes do not. Write the file again."
                )
            found[name] = np.frombuffer(content, dtype).reshape(shape, order="F" if fortran else "C")
    return found

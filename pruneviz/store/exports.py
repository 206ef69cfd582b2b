"""Finished runs as plain folders that anyone can keep: written, and read with nothing taken on trust."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from pruneviz.basics.errors import NoSuchRun, PrunevizError, StoreError
from pruneviz.plan.config import RunConfig
from pruneviz.plan.identity import check
from pruneviz.records.base import Recorded
from pruneviz.records.stages import Stage
from pruneviz.store.archive import Run, carried, checked, manifest, sha256_of, write_whole
from pruneviz.store.rows import EMPTY_ROW, HISTORY, METRICS, TAG

KEPT = ("device", "started", "finished", "code", "warnings", "tag")  # of a run's row
NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,89}(\.[0-9]{1,9})?")  # of a file: saliency-0.9, weights-round-003
LARGEST = 200_000_000  # bytes of a run.json or a manifest
KINDS = {"BOOL", "U8", "I8", "U16", "I16", "U32", "I32", "U64", "I64", "F16", "F32", "F64"}  # of arrays that numpy has


def write_export(run: Run, to: Path, *, weights: bool) -> Path:
    """Copy a finished run as a plain folder ``to/<id>``: run.json, safetensors, manifest."""
    if run.state != "succeeded":
        raise StoreError(f"Run {run.id} is {run.state}; only finished runs are exported. Wait for it, or resume it.")
    target = to / run.id
    copy_files(run, target, [name for name in run.files if weights or not name.startswith("weights-")])
    content = {
        "id": run.id,
        "config": {key: value for key, value in json.loads(run.row["config"]).items() if key != "places"},
        "about": run.about.model_dump(mode="json"),
        "identity": json.loads(run.row["identity"]),
        "row": {key: run.row[key] for key in KEPT},
        "metrics": run.metrics[METRICS[3:]].values.tolist(),
        "history": run.history[HISTORY[1:]].values.tolist(),
    }
    write_whole(target / "run.json", _written(content).encode())
    return target


def _written(content: dict[str, Any]) -> str:
    """JSON that a person can read, a line for each row of numbers: a fifth of the bytes that a line for each number takes."""
    rows = {name: value for name, value in content.items() if name in ("metrics", "history")}
    head = json.dumps({name: value for name, value in content.items() if name not in rows}, indent=1)
    line = json.JSONEncoder(separators=(",", ":")).encode
    parts = [f' "{name}": [\n  ' + ",\n  ".join(map(line, value)) + "\n ]" for name, value in rows.items()]
    return head.removesuffix("\n}") + ",\n" + ",\n".join(parts) + "\n}"


def copy_files(run: Run, target: Path, names: list[str]) -> None:
    """Copy a run's arrays and a complete manifest of them, the manifest last."""
    target.mkdir(parents=True, exist_ok=True)
    for name in names:
        shutil.copyfile(run.folder / f"{name}.safetensors", target / f"{name}.safetensors")
    files = {name: run.files[name] for name in names}
    write_whole(target / "manifest.json", json.dumps({"files": files, "complete": True}, indent=0).encode())


def add_record(folder: Path, record: Recorded, sparsity: float = 0.0, stage: Stage | None = None) -> None:
    """One more record beside an exported run's others, and its line in the manifest."""
    name, (arrays, meta) = record.name(sparsity, stage), record.write()
    path = folder / f"{name}.safetensors"
    save_file({key: np.ascontiguousarray(value) for key, value in arrays.items()}, path, meta)
    entry = {"sha256": sha256_of(path), "bytes": path.stat().st_size, **meta}
    content = {"files": manifest(folder)["files"] | {name: entry}, "complete": True}
    write_whole(folder / "manifest.json", json.dumps(content, indent=0).encode())


# reading


def read_export(folder: Path) -> Run:
    """An exported run, as it says that it is. Raises StoreError in one sentence."""
    import pandas as pd

    content = _json(folder / "run.json")
    try:
        content["config"].pop("places", None)  # of another machine: nothing here is opened by a stranger's word
        id_, config = checked(content["id"]), RunConfig.stored(content["config"])
        metrics = pd.DataFrame(_table(content["metrics"], _share, _word, _word, _word, _value), columns=METRICS[3:])
        history = pd.DataFrame(_table(content["history"], _word, _epoch, _word, _value), columns=HISTORY[1:])
        words = carried(content.get("about"), config)
        config.model_dump_json()  # nested more deeply than pages can show, it fails here
        said = json.dumps(content["config"], allow_nan=False)  # as it was written, so that the id can always be checked
        texts = {"about": words.model_dump_json(), "identity": json.dumps(content.get("identity"))}
        row = {**EMPTY_ROW, **_row(content["row"]), **texts, "id": id_, "config": said}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError, NoSuchRun) as error:
        raise StoreError(f"{folder / 'run.json'} is not an exported run ({_why(error)}). Export it again.") from None
    metrics = metrics.assign(run=id_, method=config.method, seed=config.seed).reindex(columns=METRICS)
    history = history.assign(run=id_).reindex(columns=HISTORY)
    tables = {"metrics": metrics, "history": history}
    return Run(id_, config, words, "succeeded", row, folder, tables.__getitem__, "samples")


def read_exports(folder: Path) -> list[Run]:
    """The exported runs in a folder (or the one it is), everything about them verified before anything is written.

    Raises StoreError: a name, file, number or checksum that is not as `export` writes it, an id that is not its configuration's.
    """
    if not folder.is_dir():
        raise StoreError(f"There is no folder {folder}. Name one that `pruneviz export` made.")
    several = (Path(entry.path) for entry in _inside(folder))
    inside = [folder] if _holds(folder) else sorted(path for path in several if _holds(path))
    if not inside:
        raise StoreError(f"{folder} holds no exported run. Name a folder that `pruneviz export` made.")
    runs = [_verified(path) for path in inside]
    twice = [run.id for i, run in enumerate(runs) if run.id in {other.id for other in runs[:i]}]
    if twice:
        raise StoreError(f"{folder} holds run {twice[0]} twice. Import one of them by its own folder.")
    return runs


def _holds(path: Path) -> bool:
    return path.is_dir() and os.path.lexists(path / "run.json")


def _inside(folder: Path) -> list[os.DirEntry[str]]:
    try:
        return list(os.scandir(folder))
    except OSError as error:
        raise StoreError(f"The folder {folder} cannot be read ({error.strerror}). Allow it to be read.") from None


def _verified(folder: Path) -> Run:
    if folder.is_symlink():
        raise StoreError(f"{folder} is a link. Import the folder that it leads to by its own name.")
    for entry in _inside(folder):
        if not entry.is_file(follow_symlinks=False):
            kind = "a link" if entry.is_symlink() else "no plain file"
            raise StoreError(
                f"{folder / entry.name} is {kind}; an exported run holds plain files only. Export it again."
            )
    run = read_export(folder)
    _check_manifest(folder, _json(folder / "manifest.json"))
    try:
        check(run.id, json.loads(run.row["config"]), json.loads(run.row["identity"]))
    except RecursionError:
        raise StoreError(
            f"{folder / 'run.json'} is nested too deeply to be an exported run. Export it again."
        ) from None
    return run


def _check_manifest(folder: Path, listed: Mapping[str, Any]) -> None:
    files = listed.get("files")
    if not isinstance(files, dict) or listed.get("complete") is not True:
        raise StoreError(f"{folder / 'manifest.json'} does not list a finished run's files. Export it again.")
    for name, entry in files.items():
        if not NAME.fullmatch(name):
            raise StoreError(
                f"{folder / 'manifest.json'} lists {name[:80]!r}, which is no name of a run's file. Export it again."
            )
        path = folder / f"{name}.safetensors"
        whole = isinstance(entry, dict) and path.is_file() and entry.get("bytes") == path.stat().st_size
        if not whole or sha256_of(path) != entry.get("sha256"):
            raise StoreError(
                f"{path} is missing or damaged: its checksum is not what the manifest says. Export the run again."
            )
        try:
            with safe_open(path, framework="np") as file:
                others = {file.get_slice(key).get_dtype() for key in file.keys()} - KINDS  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise StoreError(f"{path} is no safetensors file ({_why(error)}). Export the run again.") from None
        if others:
            raise StoreError(f"{path} holds arrays of type {min(others)}, which no run records. Export the run again.")


def _json(path: Path) -> dict[str, Any]:
    try:
        if path.is_symlink() or not path.is_file():
            raise StoreError(f"There is no file {path}. Name a folder that `pruneviz export` made.")
        if path.stat().st_size > LARGEST:
            raise StoreError(f"{path} has more than {LARGEST // 10**6} MB, which no exported run has. Export it again.")
        found = json.loads(path.read_bytes(), parse_float=_finite)
        json.dumps(found, ensure_ascii=False).encode()  # half a character cannot be kept
    except (OSError, ValueError, RecursionError) as error:
        raise StoreError(f"{path} cannot be read ({_why(error)}). Export the run again.") from None
    if not isinstance(found, dict):
        raise StoreError(f"{path} is not what an export writes. Export the run again.")
    return found


def _finite(text: str) -> float:
    if abs(number := float(text)) == inf:
        raise ValueError(f"{text[:40]} is beyond what a number can be")
    return number


def _table(rows: Any, *kinds: Callable[[Any], bool]) -> list[list[Any]]:
    """Rows of numbers and words, each value of its column's kind."""
    if not isinstance(rows, list):
        raise ValueError("its numbers are no list of rows")
    for row in rows:
        fits = isinstance(row, list) and len(row) == len(kinds)
        if not fits or not all(is_one(value) for is_one, value in zip(kinds, row, strict=True)):
            raise ValueError(f"found {str(row)[:80]!r} where a row of {len(kinds)} values belongs")
    return rows


def _number(value: Any) -> bool:
    return isinstance(value, float) or (isinstance(value, int) and not isinstance(value, bool) and abs(value) <= 2**53)


def _value(value: Any) -> bool:
    return value is None or _number(value)


def _share(value: Any) -> bool:
    return _number(value) and 0 <= value <= 1


def _epoch(value: Any) -> bool:
    return _number(value) and value == value // 1 and 0 <= value < 2**31


def _moment(value: Any) -> bool:
    return value is None or (_number(value) and abs(value) < inf)


def _word(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= 200


def _row(given: Any) -> dict[str, Any]:
    found = {key: given[key] for key in KEPT}
    if (
        not _word(found["device"] or "")
        or not _word(found["code"])
        or not all(map(_moment, (found["started"], found["finished"])))
    ):
        raise ValueError("its device, code, start or end is not what an export writes")
    if not isinstance(found["tag"], str) or not TAG.fullmatch(found["tag"]):
        raise ValueError("its tag has more than 64 letters, digits, spaces, dots, hyphens and underscores")
    warnings = json.loads(found["warnings"])
    if not isinstance(warnings, list) or not all(isinstance(text, str) for text in warnings):
        raise ValueError("its warnings are not a list of sentences")
    return found


def _why(error: Exception) -> str:
    """What is wrong, on one line."""
    missing = isinstance(error, KeyError) and not isinstance(error, PrunevizError)
    said = f"{error} is missing" if missing else str(error) or type(error).__name__
    return " ".join(said.split())[:200]

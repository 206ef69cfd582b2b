"""Runs as folders: arrays and weights as safetensors, a manifest of their sha256, and exported runs read in place."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError, safe_open

from pruneviz.config import ID, RunConfig
from pruneviz.errors import NoSuchRun, StoreError

if TYPE_CHECKING:
    import pandas as pd

METRICS = ["run", "method", "seed", "sparsity", "stage", "split", "metric", "value"]
HISTORY = ["run", "stage", "epoch", "metric", "value"]


@dataclass(frozen=True)
class Run:
    """One run as it stands: configuration, state, numbers, arrays. ``source``: "store" or "samples"."""

    id: str
    config: RunConfig
    state: str
    row: Mapping[str, Any]
    folder: Path
    numbers: Callable[[str], pd.DataFrame]  # "metrics" or "history" -> table
    source: str = "store"

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """run, method, seed, sparsity, stage, split, metric, value; read on first use."""
        return self.numbers("metrics")

    @cached_property
    def history(self) -> pd.DataFrame:
        """run, stage, epoch, metric, value; read on first use."""
        return self.numbers("history")

    @cached_property
    def files(self) -> dict[str, dict[str, Any]]:
        """Name -> sha256 and size of what the manifest lists."""
        return manifest(self.folder)["files"]

    def names(self, probe: str) -> list[str]:
        """The recorded arrays of a probe, e.g. ``spectra-start``, ``spectra-tuned-0.9``."""
        return [name for name in self.files if name.startswith(f"{probe}-")]

    def arrays(self, name: str) -> dict[str, np.ndarray]:
        """The arrays recorded under a name; empty where there are none."""
        return _probe(self.folder / f"{name}.safetensors", self.files[name]["sha256"])[0] if name in self.files else {}

    def layers(self, name: str) -> list[str]:
        """The layer names that belong to a recorded array's first axis, in order."""
        return _probe(self.folder / f"{name}.safetensors", self.files[name]["sha256"])[1] if name in self.files else []


@lru_cache(maxsize=1000)
def _probe(path: Path, sha256: str) -> tuple[dict[str, np.ndarray], list[str]]:
    """A probe's arrays (some kB), kept; ``sha256`` makes the cache follow the content."""
    return read_arrays(path)


def read_arrays(path: Path) -> tuple[dict[str, np.ndarray], list[str]]:
    """A safetensors file and its layer names."""
    try:
        with safe_open(path, framework="np") as file:
            layers = (file.metadata() or {}).get("layers", "")
            return {key: file.get_tensor(key) for key in file.keys()}, layers.split("\n") if layers else []  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise StoreError(
            f"{path.name} of run {path.parent.name} cannot be read ({error}). Delete the run and run it again."
        ) from None


def manifest(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / "manifest.json").read_text())
    except (OSError, ValueError):
        return {"files": {}, "complete": False}


class Samples(Mapping[str, Run]):
    """A folder of exported runs, read-only: those of the network that has most of them first."""

    def __init__(self, folder: Path, *, only: str | None = None):
        runs = [_exported(path.parent) for path in sorted(folder.glob(f"{only or '*'}/run.json"))]
        networks = Counter((run.config.dataset, run.config.model, run.config.width) for run in runs)

        def place(run: Run) -> int:
            return -networks[run.config.dataset, run.config.model, run.config.width]

        self._found: dict[str, Run] = {run.id: run for run in sorted(runs, key=place)}

    def __getitem__(self, id_: str) -> Run:
        return self._found[id_]

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)

    def run(self, id_: str) -> Run:
        return self._found[id_]

    def rows(self) -> list[dict[str, Any]]:
        return [summary({**EMPTY_ROW, **run.row}, "samples") for run in self._found.values()]

    def long(self, table: str, ids: set[str] | None, known: set[str]) -> list[dict[str, Any]]:
        picked = [r for r in self._found.values() if (ids is None or r.id in ids) and r.id not in known]
        return [row for run in picked for row in getattr(run, table).to_dict("records")]


@lru_cache(maxsize=500)
def _exported(folder: Path) -> Run:
    import pandas as pd

    try:
        content = json.loads((folder / "run.json").read_text())
        id_, config = checked(content["id"]), RunConfig(**content["config"])
        metrics = pd.DataFrame(content["metrics"], columns=pd.Index(METRICS[3:]))
        metrics = metrics.assign(run=id_, method=config.method, seed=config.seed).reindex(columns=METRICS)
        history = pd.DataFrame(content["history"], columns=pd.Index(HISTORY[1:]))
        history = history.assign(run=id_).reindex(columns=HISTORY)
        row = {**EMPTY_ROW, **content["row"], "id": id_, "config": config.model_dump_json(), "state": "succeeded"}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{folder / 'run.json'} is not an exported run ({error}). Export it again.") from None
    tables = {"metrics": metrics, "history": history}
    return Run(id_, config, "succeeded", row, folder, tables.__getitem__, "samples")


def write_export(run: Run, to: Path, *, weights: bool) -> Path:
    """Copy a finished run as a plain folder ``to/<id>``: run.json, safetensors, manifest."""
    if run.state != "succeeded":
        raise StoreError(f"Run {run.id} is {run.state}; only finished runs are exported. Wait for it, or resume it.")
    target = to / run.id
    copy_files(run, target, [name for name in run.files if weights or not name.startswith("weights-")])
    content = {
        "id": run.id,
        "config": json.loads(run.config.model_dump_json()),
        "row": {key: run.row[key] for key in ("device", "started", "finished", "code", "warnings", "tag")},
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


def read_exports(folder: Path) -> list[Run]:
    """The exported runs in a folder (or the one it is), every file's checksum verified."""
    if not folder.is_dir():
        raise StoreError(f"There is no folder {folder}. Name one that `python -m pruneviz export` made.")
    found = Samples(folder.parent, only=folder.name) if (folder / "run.json").is_file() else Samples(folder)
    if not len(found):
        raise StoreError(f"{folder} holds no exported run. Name a folder that `python -m pruneviz export` made.")
    for run in found.values():
        for name, entry in run.files.items():
            if sha256_of(run.folder / f"{name}.safetensors") != entry["sha256"]:
                raise StoreError(f"{name} of run {run.id} is damaged: its checksum does not hold. Export it again.")
    return list(found.values())


def copy_files(run: Run, target: Path, names: list[str]) -> None:
    """Copy a run's arrays and a complete manifest of them, the manifest last."""
    target.mkdir(parents=True, exist_ok=True)
    for name in names:
        shutil.copyfile(run.folder / f"{name}.safetensors", target / f"{name}.safetensors")
    files = {name: run.files[name] for name in names}
    write_whole(target / "manifest.json", json.dumps({"files": files, "complete": True}, indent=0).encode())


EMPTY_ROW: dict[str, Any] = {
    "id": "", "config": "{}", "state": "succeeded", "device": None, "wanted_device": None, "created": 0.0, "queued": 0.0,
    "started": None, "finished": None, "fraction": 1.0, "stage": "", "message": "", "warnings": "[]", "error": "",
    "code": "", "tag": "", "attempt": 0,
}  # fmt: skip


def summary(row: dict[str, Any], source: str) -> dict[str, Any]:
    config = json.loads(row["config"])
    about = {key: config.get(key) for key in ("method", "model", "dataset", "seed", "start", "survivors", "rounds")}
    about["width"] = config.get("width", 1.0)
    shown = {key: row[key] for key in EMPTY_ROW if key not in ("config", "id")}
    return {"id": row["id"], "source": source, **about, "sparsities": tuple(config.get("sparsities", ())), **shown}


def checked(id_: str) -> str:
    if not ID.fullmatch(str(id_)):
        raise NoSuchRun(f"{str(id_)[:80]!r} is not a run's id. Ids look like snip-lenet-300-100-digits-3f9c1a20b7d4.")
    return str(id_)


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_whole(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(content)
    os.replace(temporary, path)

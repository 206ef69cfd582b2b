"""Runs as folders: arrays and weights as safetensors, and a manifest of their sha256. What is not in it does not exist."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from safetensors import SafetensorError, safe_open

from pruneviz.basics.errors import InvalidSetting, NoSuchRun, PrunevizError, StoreError
from pruneviz.plan.about import about
from pruneviz.plan.config import ID, RunConfig
from pruneviz.records.about import About
from pruneviz.records.base import Recorded
from pruneviz.records.stages import Stage

if TYPE_CHECKING:
    import pandas as pd

NOTHING: dict[str, Any] = {"files": {}, "complete": False}
LOOKED = 10.0  # seconds after which a run's files are looked at again
R = TypeVar("R", bound=Recorded)


@dataclass(frozen=True)
class Run:
    """One run as it stands: configuration, the words of its cards, state, numbers, arrays. ``source``: "store" or "samples".

    Nothing here asks a registry: the run may be of a method, a network or data that this process does not know.
    """

    id: str
    config: RunConfig
    about: About
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

    def at(self, kind: type[Recorded], stage: Stage | None = None) -> list[float]:
        """The sparsities at which a probe's arrays were recorded, rising."""
        return kind.sparsities(self.files, stage)

    def read(self, kind: type[R], sparsity: float = 0.0, stage: Stage | None = None) -> R | None:
        """What a probe recorded, or None. Raises StoreError where the file cannot be read."""
        name = kind.name(sparsity, stage)
        return kind.read(self.arrays(name), self.layers(name)) if name in self.files else None

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
    """Name -> sha256 and size of each file, and whether these are all."""
    try:
        found = json.loads((folder / "manifest.json").read_text())
        return found if isinstance(found["files"], dict) and isinstance(found["complete"], bool) else NOTHING
    except (OSError, ValueError, KeyError, TypeError):
        return NOTHING


def carried(words: Any, config: RunConfig) -> About:
    """The words that a run carries; of a run of before they were kept, those that the cards have now."""
    if not words:
        try:
            return about(config)
        except (PrunevizError, KeyError):  # not known here, or no longer possible
            pass
    return About.read(words, method=config.method, model=config.model, dataset=config.dataset)


def read_config(id_: str, text: str) -> RunConfig:
    """A configuration as it was written down. Raises StoreError."""
    try:
        return RunConfig.stored(json.loads(text))
    except (ValueError, TypeError, AttributeError, InvalidSetting) as error:
        raise StoreError(
            f"The configuration of run {id_} cannot be read ({error}). Delete the run and run it again."
        ) from None


def damage(folder: Path) -> str:
    """What is wrong with a finished run's files, at a glance: a list that is missing, a file that is missing or cut; or nothing."""
    return _damage(folder, int(time.monotonic() / LOOKED))


@lru_cache(maxsize=5000)
def _damage(folder: Path, when: int) -> str:
    said = f"of run {folder.name} is missing or cut. Delete the run and run it again."
    try:
        files = {path.name: path.stat().st_size for path in os.scandir(folder)}
    except OSError:
        return f"The folder {said}"
    listed = manifest(folder)
    if not listed["complete"]:
        return f"The list of files {said}"
    for name, entry in listed["files"].items():
        if files.get(f"{name}.safetensors") != entry.get("bytes"):
            return f"{name} {said}"
    return ""


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

"""What a data set is before it is read: a card; and what it is afterwards: splits."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from platformdirs import user_cache_dir

from pruneviz.basics.citation import Paper
from pruneviz.basics.errors import DataUnavailable

if TYPE_CHECKING:
    import torch
    from torch import Tensor

DATA_VARIABLE = "PRUNEVIZ_DATA"
Arrays = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Splits:
    """Training, validation and test samples, each (x float32 [n, *shape], y int64 [n]).

    ``shape`` of a sample: (channels, rows, columns) of an image, else (inputs,).
    """

    train: tuple[Tensor, Tensor]
    val: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    classes: tuple[str, ...]
    shape: tuple[int, ...]

    def to(self, device: torch.device | str) -> Splits:
        """The same samples on another device."""
        parts = {n: tuple(t.to(device) for t in getattr(self, n)) for n in ("train", "val", "test")}
        return replace(self, **parts)

    def normalised(self) -> Splits:
        """All samples less the training samples' mean, over their standard deviation: one number each for all inputs."""
        mean, std = self.train[0].mean(), self.train[0].std()
        parts = {name: ((x - mean) / std, y) for name in ("train", "val", "test") for x, y in [getattr(self, name)]}
        return replace(self, **parts)


@dataclass(frozen=True)
class File:
    """One published file: its name, where it is to be had, and the sha256 of its *uncompressed* content."""

    name: str
    url: str
    sha256: str

    @property
    def wanted(self) -> str:
        """What to put into a folder, in words."""
        return self.name

    def found_in(self, folder: Path) -> Path | None:
        """This file there, compressed or not."""
        paths = (folder / name for name in (self.name, self.name.removesuffix(".gz")))
        return next((path for path in paths if path.is_file()), None)


@dataclass(frozen=True)
class Archive(File):
    """A published .tar.gz with the sha256 of the file as it is; ``members``: the path in it and the md5 of each that is read."""

    members: tuple[tuple[str, str], ...] = ()

    @property
    def wanted(self) -> str:
        return f"{self.name} (or its folder {self.members[0][0].partition('/')[0]}, unpacked)"

    def found_in(self, folder: Path) -> Path | None:
        """The archive there, or else the folder where all its members lie unpacked."""
        if (folder / self.name).is_file():
            return folder / self.name
        return folder if all((folder / member).is_file() for member, _ in self.members) else None


@dataclass(frozen=True)
class DataCard:
    """``read(card)`` gives train, validation and test arrays; ``digest`` names this exact data in every run's id.

    ``model`` is the network usually trained on it, ``epochs`` and ``tune_epochs`` the training budgets suggested for it,
    ``megabytes`` what a download takes. ``folder``: its folder in the data folder where that is not its key;
    ``folders``: where a system package puts its files.
    """

    key: str
    title: str
    idea: str
    shape: tuple[int, ...]
    classes: tuple[str, ...]
    sizes: tuple[int, int, int]
    read: Callable[[DataCard], tuple[Arrays, Arrays, Arrays]]
    licence: str
    source: str
    epochs: int
    tune_epochs: int
    model: str = "lenet-300-100"
    paper: Paper | None = None
    files: tuple[File, ...] = ()
    folder: str = ""
    folders: tuple[str, ...] = ()
    megabytes: float = 0.0
    content: str = ""
    schema: int = 1

    @property
    def digest(self) -> str:
        """sha256 over the pinned content and the version of the split."""
        pinned = [self.content, *(file.sha256 for file in self.files), str(self.schema)]
        return hashlib.sha256(" ".join(pinned).encode()).hexdigest()

    @property
    def home(self) -> Path:
        """Where a download goes and local files are looked for first."""
        return data_folder() / (self.folder or self.key)

    def find(self, file: File) -> Path | None:
        """The file, compressed or not, in the data folder or where a system package puts it."""
        places = (file.found_in(folder) for folder in (self.home, *map(Path, self.folders)))
        return next((path for path in places if path is not None), None)

    @property
    def present(self) -> bool:
        """Whether it can be read without a download."""
        return all(self.find(file) for file in self.files)


def data_folder() -> Path:
    """``$PRUNEVIZ_DATA``, or the user's cache folder."""
    return Path(os.environ.get(DATA_VARIABLE) or Path(user_cache_dir("pruneviz")) / "data")


def obtain(card: DataCard, file: File) -> bytes:
    """The uncompressed content of a published file: local first, else downloaded; always checked.

    Raises DataUnavailable, naming the file, what was found, and where to put the published one.
    """
    path = card.find(file) or _download(card, file)
    try:
        content = _unpack(path)
    except (OSError, EOFError) as error:
        raise DataUnavailable(_wrong(card, path, f"it cannot be unpacked ({error})")) from None
    if hashlib.sha256(content).hexdigest() != file.sha256:
        raise DataUnavailable(_wrong(card, path, "its content is not the published one"))
    return content


def members(card: DataCard, archive: Archive) -> dict[str, bytes]:
    """The members of a published archive by path: local first, else downloaded; always checked, and read without unpacking.

    Raises DataUnavailable, naming the file, what was found, and where to put the published one.
    """
    import tarfile
    import zlib

    path = card.find(archive) or _download(card, archive)
    if path.is_dir():
        found = {member: (path / member).read_bytes() for member, _ in archive.members}
        for member, md5 in archive.members:
            if hashlib.md5(found[member], usedforsecurity=False).hexdigest() != md5:
                raise DataUnavailable(_wrong(card, path / member, "its content is not the published one"))
        return found
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != archive.sha256:
            raise DataUnavailable(_wrong(card, path, "its content is not the published one"))
    found = {}
    try:
        with tarfile.open(path, "r:gz") as tar:
            for member, _ in archive.members:
                content = tar.extractfile(member)
                found[member] = content.read() if content is not None else b""
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise DataUnavailable(_wrong(card, path, f"it cannot be unpacked ({error})")) from None
    except KeyError:
        raise DataUnavailable(_wrong(card, path, f"it lacks {member}")) from None
    return found


def _unpack(path: Path) -> bytes:
    import gzip
    import zlib

    content = path.read_bytes()
    if not path.name.endswith(".gz"):
        return content
    try:
        return gzip.decompress(content)
    except zlib.error as error:
        raise OSError(error) from None


def _wrong(card: DataCard, path: Path, why: str) -> str:
    return (
        f"{card.title}: {path} is damaged: {why}. Delete it and ask again (a download of {card.megabytes:g} MB), "
        f"or put the published file there; it comes from {card.source}."
    )


def _download(card: DataCard, file: File) -> Path:
    import sys

    import pooch
    import requests

    pooch.get_logger().setLevel("WARNING")
    bar: Any = pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), timeout=20)
    try:
        card.home.mkdir(parents=True, exist_ok=True)
        return Path(pooch.retrieve(file.url, None, file.name, card.home, downloader=bar))
    except (OSError, requests.RequestException, ValueError) as error:
        names = ", ".join(f.wanted for f in card.files)
        raise DataUnavailable(
            f"{card.title} is not on this machine and could not be downloaded ({type(error).__name__}). "
            f"Put {names} into {card.home} (set PRUNEVIZ_DATA to use another folder); they come from {card.source}."
        ) from None


def split_off(x: np.ndarray, y: np.ndarray, *sizes: int) -> list[Arrays]:
    """Fixed, disjoint, shuffled parts of the given sizes; the same on every machine."""
    order = np.random.RandomState(0).permutation(len(x))
    ends = np.cumsum(sizes)
    return [(x[order[e - n : e]], y[order[e - n : e]]) for n, e in zip(sizes, ends, strict=True)]

"""What a file or a folder holds, as one number: so that a run can tell whether it still stands on the same."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from pruneviz.basics.errors import DataUnavailable


def digest_of(path: Path | str) -> str:
    """sha256 of a file's bytes, or of a folder: the names (relative, sorted) and bytes of its plain files; links are left out.

    Raises DataUnavailable where there is neither, or it cannot be read.
    """
    path = Path(path)
    try:
        if path.is_dir():
            return digest_of_all(path, sorted(_files(path)))
        if not path.is_file():
            kind = "no plain file" if os.path.lexists(path) else "not there"
            raise DataUnavailable(f"{path} is {kind}. Name a file or a folder that can be read.")
        return _of(path)
    except OSError as error:
        raise DataUnavailable(f"{path} cannot be read ({error.strerror}). Allow it to be read.") from None


def digest_of_all(root: Path, paths: Iterable[Path]) -> str:
    """sha256 over the names, relative to ``root``, and bytes of several files, in the order given."""
    found = hashlib.sha256()
    for path in paths:
        found.update(f"{path.relative_to(root).as_posix()}\n{_of(path)}\n".encode())
    return found.hexdigest()


def _files(folder: Path) -> Iterable[Path]:
    for at, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".") and name != "__pycache__"]
        yield from (
            path
            for name in names
            if not name.startswith(".") and not (path := Path(at, name)).is_symlink() and path.is_file()
        )


def _of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

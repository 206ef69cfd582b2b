"""References: what a run stands on besides what is registered. One's own network, weights or data, by file or by module.

A reference has a text that says the same on every machine (``file:my_net.py:build``, ``photos/``), a place on this one, and a
digest of what it leads to. Nothing here runs anybody's code.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from importlib.machinery import PathFinder
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pruneviz.basics.content import digest_of, digest_of_all
from pruneviz.basics.errors import DataUnavailable, InvalidSetting

LIBRARIES = ("timm", "torchvision")
WEIGHTS = (".safetensors", ".pt", ".pth", ".bin")
_MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_MADE = {"build", "load", "main", "model", "net", "network", "data", "make", "create"}


class Kind(StrEnum):
    FILE = "file"  # file:my_net.py:build
    MODULE = "module"  # package.module:build
    TRANSFORMERS = "transformers"  # transformers:FOLDER
    LIBRARY = "library"  # timm:NAME, torchvision:NAME
    ARRAYS = "arrays"  # samples.npz
    IMAGES = "images"  # photos/
    WEIGHTS = "weights"  # net.safetensors, net.pt
    OBJECT = "object"  # python:NAME, of the process that made the run


@dataclass(frozen=True)
class Reference:
    """``text``: the same on every machine. ``target``: what follows the prefix: a file's name, a module, a library's network.
    ``name``: of the function in it."""

    text: str
    kind: Kind
    target: str
    name: str = ""
    place: Path | None = None

    @property
    def runs_code(self) -> bool:
        """Whether opening it runs somebody's Python; an unpickled file counts, whatever is left out of it."""
        pickled = self.kind is Kind.WEIGHTS and not self.target.endswith(".safetensors")
        return pickled or self.kind in (Kind.FILE, Kind.MODULE, Kind.LIBRARY)

    @property
    def slug(self) -> str:
        """Its part of a run's id: letters, digits, hyphens."""
        stem = self.target.rpartition(".")[2] if self.kind is Kind.MODULE else Path(self.target).name
        for ending in (".py", ".npz", *WEIGHTS):
            stem = stem.removesuffix(ending)
        return slug(stem if not self.name or self.name.lower() in _MADE else f"{stem}-{self.name}")

    def digest(self) -> str:
        """Of what it leads to on this machine. Raises DataUnavailable, InvalidSetting."""
        match self.kind:
            case Kind.FILE:
                assert self.place is not None
                return _code_digest(self.place)
            case Kind.MODULE:
                return _module_digest(self.text, self.target)
            case Kind.LIBRARY:
                return _hash(self.text, _version(self.text.partition(":")[0]))
            case Kind.OBJECT:
                raise InvalidSetting(
                    f"{self.text} is an object of the Python process that made the run: pass it to pv.explore."
                )
        assert self.place is not None
        return digest_of(self.place)


def is_reference(text: str) -> bool:
    """Whether it is written as a reference, not as a registered key."""
    return any(sign in text for sign in (":", "/", "\\")) or text.endswith((".npz", *WEIGHTS))


def slug(text: str) -> str:
    """A word for ids: a registered key stays as it is."""
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-.")[:40].strip("-.") or "own"


def name_in_ids(text: str) -> str:
    """The part of a run's id that a registered key or a reference makes."""
    return portable(text).slug if is_reference(text) else text


def portable(text: str) -> Reference:
    """A reference as a run carries it, without a place. Raises InvalidSetting where it is none."""
    prefix, _, rest = text.partition(":")
    if prefix == "python" and rest:
        return Reference(text, Kind.OBJECT, rest)
    if prefix == "file":
        target, _, name = rest.rpartition(":")
        if not target.endswith(".py") or not _NAME.fullmatch(name):
            raise InvalidSetting(
                f"{text!r} names no function of a Python file. Write file:PATH.py:NAME, e.g. file:my_net.py:build."
            )
        return Reference(text, Kind.FILE, target, name)
    if prefix == "transformers" and rest:
        return Reference(text, Kind.TRANSFORMERS, rest)
    if prefix in LIBRARIES and rest:
        return Reference(text, Kind.LIBRARY, rest)
    if text.endswith(".npz"):
        return Reference(text, Kind.ARRAYS, text)
    if text.endswith(WEIGHTS):
        return Reference(text, Kind.WEIGHTS, text)
    if _MODULE.fullmatch(text):
        return Reference(text, Kind.MODULE, prefix, rest)
    if text.endswith(("/", "\\")) and text.strip("/\\. "):
        return Reference(text, Kind.IMAGES, text.rstrip("/\\"))
    raise InvalidSetting(
        f"{text!r} is no reference. Write file:PATH.py:NAME, PACKAGE.MODULE:NAME, transformers:FOLDER, timm:NAME, torchvision:NAME, "
        "a file .npz or a folder with one folder of images for each class; weights are a file .safetensors."
    )


def found(text: str, *, base: Path | None = None) -> Reference:
    """A reference as somebody types it, with its place on this machine. Raises InvalidSetting, DataUnavailable."""
    base = base or Path.cwd()
    folder = base / Path(text).expanduser()
    if ":" not in text and not text.endswith((".npz", *WEIGHTS)) and folder.is_dir():
        return Reference(f"{folder.resolve().name}/", Kind.IMAGES, folder.resolve().name, place=folder.resolve())
    at = portable(text)
    if at.kind in (Kind.MODULE, Kind.LIBRARY, Kind.OBJECT):
        return at
    place = (base / Path(at.target).expanduser()).resolve()
    if not place.exists():
        raise DataUnavailable(f"{text!r} leads to {place}, and nothing is there. Check the path.")
    if at.kind in (Kind.TRANSFORMERS, Kind.IMAGES) and not place.is_dir():
        raise DataUnavailable(f"{text!r} leads to {place}, which is no folder. Name a folder.")
    if at.kind not in (Kind.TRANSFORMERS, Kind.IMAGES) and not place.is_file():
        raise DataUnavailable(f"{text!r} leads to {place}, which is no file. Name a file.")
    said = {
        Kind.FILE: f"file:{place.name}:{at.name}",
        Kind.TRANSFORMERS: f"transformers:{place.name}",
        Kind.IMAGES: f"{place.name}/",
    }.get(at.kind, place.name)
    return Reference(said, at.kind, place.name, at.name, place)


# what code stands on, without running it


def _code_digest(path: Path) -> str:
    """Of a Python file and of the files beside it that it imports, and those import, and so on."""
    seen: dict[Path, None] = {path: None}
    todo = [path]
    while todo:
        for other in _beside(todo.pop(), path.parent):
            if other not in seen:
                seen[other] = None
                todo.append(other)
    try:
        return digest_of_all(path.parent, [path, *sorted(p for p in seen if p != path)])
    except OSError as error:
        raise DataUnavailable(f"{path} cannot be read ({error.strerror}). Allow it to be read.") from None


def _beside(path: Path, root: Path) -> Iterator[Path]:
    """The files under ``root`` that a Python file imports."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, RecursionError):  # opening it will say so
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            within = path.parent.relative_to(root).parts
            if node.level:
                within = within[: len(within) - node.level + 1]
            stem = ".".join([*(within if node.level else ()), *([node.module] if node.module else [])])
            names = [stem, *(f"{stem}.{alias.name}".strip(".") for alias in node.names)]
        else:
            continue
        for name in names:
            parts = [part for part in name.split(".") if part]
            for i in range(1, len(parts) + 1):
                place = root.joinpath(*parts[:i])
                for candidate in (place.with_suffix(".py"), place / "__init__.py"):
                    if candidate.is_file():
                        yield candidate


def _module_digest(text: str, module: str) -> str:
    """Of all Python files of the package (or the file) that a module lies in."""
    top = module.partition(".")[0]
    try:
        spec = PathFinder.find_spec(top)
    except (ImportError, ValueError):
        spec = None
    if spec is None or not spec.origin:
        raise DataUnavailable(
            f"{text!r}: there is no package {top!r} here. Install it, or write file:PATH.py:NAME for a file."
        )
    origin = Path(spec.origin)
    if spec.submodule_search_locations is None:
        return digest_of(origin)
    if _installed(top):  # its files are those of a published version
        return _hash(module, *_installed(top))
    return digest_of_all(origin.parent, sorted(p for p in origin.parent.rglob("*.py") if p.is_file()))


def _installed(top: str) -> tuple[str, ...]:
    """Name and version of the distribution in site-packages that a top-level package comes from; empty for a checkout."""
    from importlib.metadata import Distribution, packages_distributions

    for name in packages_distributions().get(top, []):
        found = Distribution.from_name(name)
        editable = found.read_text("direct_url.json") or ""
        if '"editable": true' not in editable:
            return (name, found.version)
    return ()


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        raise DataUnavailable(f"{library} is not installed. Install it: pip install {library}.") from None


def _hash(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()

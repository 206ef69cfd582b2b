"""Somebody's own Python, run because whoever asked for the run named it; what goes wrong in it is told in one sentence."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from pruneviz.basics.errors import Unsuitable
from pruneviz.basics.reference import Kind, Reference


@dataclass(frozen=True)
class Code:
    """A function, class or network that a reference leads to."""

    text: str
    thing: Any
    folder: Path | None = None

    def call(self, known: Mapping[str, Any]) -> Any:
        """What it gives: called with those of ``known`` that it has arguments for; a network is that itself.

        Raises Unsuitable where it wants more arguments, or raises.
        """
        if isinstance(self.thing, nn.Module) or not callable(self.thing):
            return self.thing
        given = self._arguments(known)
        with _at_home(self.folder), _told(self.text, self.folder):
            return self.thing(**given)

    def _arguments(self, known: Mapping[str, Any]) -> dict[str, Any]:
        try:
            wanted = inspect.signature(self.thing).parameters.values()
        except (TypeError, ValueError):
            return {}
        named = [p for p in wanted if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        lacking = [p.name for p in named if p.default is p.empty and p.name not in known]
        lacking += [p.name for p in wanted if p.kind is p.POSITIONAL_ONLY and p.default is p.empty]
        if lacking:
            may = f"; it is given {' and '.join(known)} where it asks for them" if known else ""
            raise Unsuitable(
                f"{self.text} wants the argument {', '.join(map(repr, lacking))}, and is called without{may}. Write a function without "
                "arguments around it."
            )
        return {p.name: known[p.name] for p in named if p.name in known}


def a(thing: Any) -> str:
    """What somebody's code gave, in words."""
    return "nothing (None)" if thing is None else f"a {type(thing).__name__}"


def brought(at: Reference) -> Code:
    """What a reference to code leads to, imported. Raises Unsuitable where that fails or there is no such name."""
    with _told(at.text, at.place.parent if at.place else None):
        if at.kind is Kind.MODULE:
            found: Any = importlib.import_module(at.target)
            folder = None
        else:
            assert at.place is not None
            folder = at.place.parent
            found = _file(at.place, at.digest())
    for part in at.name.split("."):
        if not hasattr(found, part):
            home, inside = getattr(found, "__name__", ""), getattr(found, "__dict__", {})
            names = [n for n, v in inside.items() if getattr(v, "__module__", "") == home and not n.startswith("_")]
            raise Unsuitable(f"{at.text}: there is no {part!r} in it. It has {', '.join(names[:8]) or 'no functions'}.")
        found = getattr(found, part)
    return Code(at.text, found, folder)


def _file(path: Path, digest: str) -> Any:
    """A file as a module; the modules beside it that it imports stay its own."""
    name = f"_own_{path.stem}_{digest[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise Unsuitable(f"{path} is no Python file that can be imported. Name a .py file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        with _at_home(path.parent):
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


@contextmanager
def _at_home(folder: Path | None) -> Iterator[None]:
    """Files of a folder are imported by their names while it lasts, and are then forgotten: another folder may have such names too."""
    if folder is None:
        yield
        return
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in set(sys.modules) - before:
            file = getattr(sys.modules.get(name), "__file__", None)
            if (
                file
                and not name.startswith("_own_")
                and Path(file).is_relative_to(folder)
                and "site-packages" not in file
            ):
                del sys.modules[name]


@contextmanager
def _told(text: str, folder: Path | None) -> Iterator[None]:
    """What somebody's code raises as one sentence: what, and where in it."""
    try:
        yield
    except Unsuitable:
        raise
    except (Exception, SystemExit) as error:
        said = (str(error).splitlines() or [""])[0][:200].rstrip(".")
        raise Unsuitable(
            f"{text} could not be run{_where(error, folder)}: {type(error).__name__}{f': {said}' if said else ''}. Mend it there."
        ) from error


def _where(error: BaseException, folder: Path | None) -> str:
    if isinstance(error, SyntaxError) and error.lineno:
        return f" (line {error.lineno} of {Path(error.filename or '').name})"
    frames = [
        f for f in traceback.extract_tb(error.__traceback__) if folder and Path(f.filename).is_relative_to(folder)
    ]
    return f" (line {frames[-1].lineno} of {Path(frames[-1].filename).name})" if frames else ""

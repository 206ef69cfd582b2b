"""A read-only mapping that knows the nearest name, and the discovery of its entries: one file each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType
from typing import TypeVar

from pruneviz.basics.errors import UnknownName

T = TypeVar("T")


class Registry(Mapping[str, T]):
    """``Registry("method", {...})["snipp"]`` raises :class:`UnknownName`: "Did you mean 'snip'?"."""

    def __init__(self, what: str, entries: Mapping[str, T]):
        self._what, self._entries = what, dict(entries)

    def __getitem__(self, key: str) -> T:
        try:
            return self._entries[key]
        except (KeyError, TypeError):
            raise UnknownName(self._what, key, self._entries) from None

    def __contains__(self, key: object) -> bool:
        return key in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


def files_of(package: ModuleType | str, path: list[str]) -> Iterator[ModuleType]:
    """The modules of a package but ``base`` and ``_private`` ones, in the order of their ``ORDER`` (default 100), then by name."""
    name = package if isinstance(package, str) else package.__name__
    found = [
        import_module(f"{name}.{m.name}") for m in iter_modules(path) if m.name != "base" and not m.name.startswith("_")
    ]
    yield from sorted(found, key=lambda module: (getattr(module, "ORDER", 100), module.__name__))

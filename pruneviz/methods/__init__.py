"""Pruning methods, one file each; importing them needs no torch."""

from __future__ import annotations

from pruneviz.methods.base import Card, Method
from pruneviz.registry import Registry, files_of

_CLASSES: dict[str, type[Method]] = {
    thing.card.key: thing
    for module in files_of(__name__, list(__path__))
    for thing in vars(module).values()
    if isinstance(thing, type) and issubclass(thing, Method) and thing.__module__ == module.__name__
}

METHODS: Registry[Card] = Registry("method", {key: cls.card for key, cls in _CLASSES.items()})


def method_class(key: str) -> type[Method]:
    """The class behind a card; raises UnknownName with the nearest key."""
    return _CLASSES[METHODS[key].key]

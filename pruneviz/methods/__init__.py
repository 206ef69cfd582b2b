"""Pruning methods, one file each; importing them needs no torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from pruneviz.basics.registry import Registry, files_of
from pruneviz.methods.base import Card, Method

# For methods whose cards name none. As far from each other and from the others' as eyes and colour blindness allow.
FREE_COLOURS = ("#b06b00", "#00857c", "#5c6bc0", "#c2185b", "#6d7f00", "#8d6e63", "#0288d1", "#d3583c")
FREE_MARKS = (
    "hourglass",
    "bowtie",
    "octagon",
    "star-triangle-up",
    "star-square",
    "diamond-tall",
    "diamond-wide",
    "asterisk",
)

_CLASSES: dict[str, type[Method]] = {
    thing.card.key: thing
    for module in files_of(__name__, list(__path__))
    for thing in vars(module).values()
    if isinstance(thing, type) and issubclass(thing, Method) and thing.__module__ == module.__name__
}


def marked(cards: Iterable[Card]) -> dict[str, Card]:
    """The cards by key, each with a colour and a mark: its own, or the first that no other has."""
    cards = list(cards)
    taken = {card.colour for card in cards} | {card.mark for card in cards}
    found = {}
    for card in cards:
        colour = card.colour or next((c for c in FREE_COLOURS if c not in taken), FREE_COLOURS[-1])
        mark = card.mark or next((m for m in FREE_MARKS if m not in taken), FREE_MARKS[-1])
        taken |= {colour, mark}
        found[card.key] = replace(card, colour=colour, mark=mark)
    return found


METHODS: Registry[Card] = Registry("method", marked(cls.card for cls in _CLASSES.values()))


def method_class(key: str) -> type[Method]:
    """The class behind a card; raises UnknownName with the nearest key."""
    return _CLASSES[METHODS[key].key]

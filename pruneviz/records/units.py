"""The kinds of unit that leave together, and what they are called."""

from __future__ import annotations

from enum import StrEnum


class Unit(StrEnum):
    """A kind of unit, as cards name it and runs carry it; :mod:`pruneviz.units` has a layout for each.

    ``plural`` is what is counted. ``whole``: it takes weights along, so that a really smaller network is left.
    ``turned``: it lives in coordinates of the trained network, which survivors cannot leave.
    """

    plural: str
    whole: bool
    turned: bool

    def __new__(cls, value: str, plural: str, whole: bool = False, turned: bool = False) -> Unit:
        made = str.__new__(cls, value)
        made._value_, made.plural, made.whole, made.turned = value, plural, whole, turned
        return made

    WEIGHT = "weight", "weights"
    FILTER = "filter", "filters", True
    EIGENBASIS = "eigenbasis", "directions", True, True

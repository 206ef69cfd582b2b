"""Numbers that people type in a row."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from pruneviz.errors import InvalidSetting

T = TypeVar("T")


def numbers(text: str, kind: Callable[[str], T], what: str, example: str) -> list[T]:
    """The numbers in a text, separated by commas or spaces. Raises InvalidSetting, with an example."""
    try:
        return [kind(part) for part in text.replace(",", " ").split()]
    except ValueError:
        raise InvalidSetting(f"{what} are numbers separated by commas, e.g. {example}; found {text!r}.") from None

"""The card of a network of one's own: what is known of it before torch is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from pruneviz.basics.errors import InvalidSetting
from pruneviz.basics.reference import Reference
from pruneviz.models.base import ModelCard


def card_of(at: Reference, facts: Mapping[str, Any]) -> ModelCard:
    """Whether a method fits it is not its card's to say: it is looked at when it is opened."""

    def build(*_: Any) -> NoReturn:
        raise InvalidSetting(f"{at.text!r} is no registered network: a run opens it by its place.")

    return ModelCard(
        key=at.slug,
        title=at.slug,
        idea=f"A network of one's own: {at.text}.",
        layers=str(facts.get("layers", "")),
        build=build,
        convolutions=True,
        images=False,
    )

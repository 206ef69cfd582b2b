"""The catalogue as a table: what each method answers to the questions that all of them answer, and which answers are wanted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pandas as pd

from pruneviz.figures import base
from pruneviz.methods import METHODS, method_class
from pruneviz.methods.base import Card, Method, Scope, Start, Survivors, Unit

_STARTS = {Start.TRAINED: "Trained network", Start.INIT: "Untrained network"}
_UNITS = {Unit.WEIGHT: "Weights", Unit.FILTER: "Filters", Unit.EIGENBASIS: "Directions"}
_SCOPES = {
    Scope.GLOBAL: "All layers",
    Scope.LAYER: "Each layer",
    Scope.STAGE: "Each stage",
}
_AFTERWARDS = {Survivors.RETAIN: "Stay as they are", Survivors.REWIND: "Go back to the start"}
_CRITERIA = {
    "none": "At random",
    "size": "Size",
    "loss rise": "Rise of the loss",
    "sensitivity": "Slope of the loss",
    "gradient flow": "Slope of the loss",
}


def criterion(card: Card) -> str:
    """What a method looks at, in a group of its own kind."""
    return next(group for word, group in _CRITERIA.items() if word in card.criterion)


def survivors(card: Card) -> str:
    """What becomes of what stays, before it trains again."""
    moves = method_class(card.key).repaired is not Method.repaired
    return "Move to make up" if moves else _AFTERWARDS[card.survivors]


# key in the address -> the question and how a card answers it
QUESTIONS: Mapping[str, tuple[str, Callable[[Card], str]]] = {
    "starts": ("Starts from", lambda card: _STARTS[card.starts]),
    "criterion": ("Looks at", criterion),
    "unit": ("Removes", lambda card: _UNITS[card.unit]),
    "after": ("Survivors", survivors),
    "schedule": ("Schedule", lambda card: "One shot" if card.rounds is None else "In rounds"),
}


def answers(question: str) -> list[str]:
    """Every answer to a question, in the catalogue's order."""
    return list(dict.fromkeys(QUESTIONS[question][1](card) for card in METHODS.values()))


def matching(wanted: Mapping[str, Sequence[str]]) -> list[str]:
    """The methods that give one of the wanted answers to each question; a question without any takes all."""
    return [
        key
        for key, card in METHODS.items()
        if all(not some or QUESTIONS[question][1](card) in some for question, some in wanted.items())
    ]


def table(keys: Sequence[str]) -> pd.DataFrame:
    """A row for each method: its mark, its paper, its answers."""
    cards = [METHODS[key] for key in keys]
    return pd.DataFrame(
        {
            "Mark": ["●"] * len(cards),
            "Method": [card.title for card in cards],
            "Paper": [card.paper.short if card.paper else "–" for card in cards],
            **{title: [answer(card) for card in cards] for title, answer in QUESTIONS.values()},
            "Ranks over": [_SCOPES[card.scope] for card in cards],
        },
        index=list(keys),
    )


def coloured(frame: pd.DataFrame):
    """The table with each method's mark in its colour."""
    return frame.style.apply(lambda _: [f"color: {base.colour(key)}" for key in frame.index], subset=["Mark"])

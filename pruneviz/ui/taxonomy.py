"""The catalogue as a table: what each method answers to the questions that all of them answer, and which answers are wanted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pandas as pd

from pruneviz.methods import METHODS, method_class
from pruneviz.methods.base import Card, Method, Scope, Start, Survivors

# A card's words in the catalogue's; a word that is not here is shown as the card has it
_STARTS: Mapping[str, str] = {Start.TRAINED: "Trained network", Start.INIT: "Untrained network"}
_SCOPES: Mapping[str, str] = {
    Scope.GLOBAL: "All layers",
    Scope.LAYER: "Each layer",
    Scope.STAGE: "Each stage",
}
_AFTERWARDS: Mapping[str, str] = {Survivors.RETAIN: "Stay as they are", Survivors.REWIND: "Go back to the start"}
_CRITERIA = {
    "none": "At random",
    "size": "Size",
    "loss rise": "Rise of the loss",
    "sensitivity": "Slope of the loss",
    "gradient flow": "Slope of the loss",
}


def criterion(card: Card) -> str:
    """What a method looks at, in a group of its own kind."""
    return next((group for word, group in _CRITERIA.items() if word in card.criterion), _own(card.criterion))


def survivors(card: Card) -> str:
    """What becomes of what stays, before it trains again."""
    moves = method_class(card.key).repaired is not Method.repaired
    return "Move to make up" if moves else _said(_AFTERWARDS, card.survivors)


def scope(card: Card) -> str:
    """Over what a method ranks."""
    return _said(_SCOPES, card.scope)


def _said(known: Mapping[str, str], word: str) -> str:
    return known.get(word) or _own(word)


def _own(word: str) -> str:
    return f"{word[:1].upper()}{word[1:]}"


# key in the address -> the question and how a card answers it
QUESTIONS: Mapping[str, tuple[str, Callable[[Card], str]]] = {
    "starts": ("Starts from", lambda card: _said(_STARTS, card.starts)),
    "criterion": ("Looks at", criterion),
    "unit": ("Removes", lambda card: _own(card.unit.plural)),
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
            "Ranks over": [scope(card) for card in cards],
        },
        index=list(keys),
    )


def coloured(frame: pd.DataFrame):
    """The table with each method's mark in its colour."""
    return frame.style.apply(lambda _: [f"color: {METHODS[key].colour}" for key in frame.index], subset=["Mark"])

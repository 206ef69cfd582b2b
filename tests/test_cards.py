"""Every method's card is complete: idea, formula with its symbols explained, steps, paper, departures; and the catalogue filters."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from pruneviz.methods import METHODS
from pruneviz.methods.base import Card
from pruneviz.ui import taxonomy

CARDS = [pytest.param(card, id=key) for key, card in METHODS.items()]
NOT_SYMBOLS = "frac|tfrac|min|sum|text|operatorname|mathcal|left|right|quad|qquad|big|Big|lfloor|rfloor|lVert|rVert|leftarrow|sim|top|cdot"


def letters(latex: str) -> set[str]:
    """The letters that a formula is made of, Greek ones by their names; words in it are left out."""
    latex = re.sub(r"\\(text|operatorname)\{[^}]*\}", " ", latex)
    latex = re.sub(rf"\\(?:{NOT_SYMBOLS})(?![a-zA-Z])", " ", latex)
    return {greek or latin for greek, latin in re.findall(r"\\([a-zA-Z]+)|([a-zA-Z])", latex)}


@pytest.mark.parametrize("card", CARDS)
def test_every_letter_of_the_formula_is_explained(card: Card):
    known = set().union(*(letters(symbol) for symbol, _ in card.symbols))
    words = " ".join(text for _, text in card.symbols)
    known |= {letter for letter in letters(card.formula) if re.search(rf"(?<!\w){re.escape(letter)}(?!\w)", words)}
    assert letters(card.formula) - known - {"s"} == set()


@pytest.mark.parametrize("card", CARDS)
def test_a_card_says_who_what_and_why(card: Card):
    assert card.idea.endswith(".")
    assert len(card.steps) >= 3
    assert all(step.endswith(".") for step in card.steps)
    assert all(meaning for _, meaning in card.symbols)
    if card.paper is None:
        assert card.key == "random"
        return
    assert card.departures, "what the authors' code does otherwise"
    assert card.paper.url.startswith("https://")
    assert card.paper.section
    for part in (card.paper.key, card.paper.title, str(card.paper.year), card.paper.venue):
        assert part in card.paper.bibtex


@pytest.mark.parametrize("card", CARDS)
def test_a_method_is_found_by_its_own_answers_and_by_no_others(card: Card):
    own = {question: [answer(card)] for question, (_, answer) in taxonomy.QUESTIONS.items()}
    assert card.key in taxonomy.matching(own)
    for question, (_, answer) in taxonomy.QUESTIONS.items():
        others = [other for other in taxonomy.answers(question) if other != answer(card)]
        assert card.key not in taxonomy.matching({question: others})


def test_the_catalogue_is_whole_unless_asked_for_less_and_may_be_empty():
    assert taxonomy.matching({}) == taxonomy.matching({"unit": []}) == list(METHODS)
    assert list(taxonomy.table(list(METHODS)).index) == list(METHODS)
    assert taxonomy.matching({"unit": ["Directions"], "schedule": ["In rounds"]}) == []
    assert set(taxonomy.matching({"after": ["Move to make up"]})) == {"obs", "kron-obs", "isometry"}
    assert taxonomy.matching({"starts": ["Untrained network"], "criterion": ["Slope of the loss"]}) == [
        "snip",
        "grasp",
        "isometry",
    ]


def test_a_word_that_the_catalogue_does_not_know_is_shown_as_the_card_has_it():
    odd = replace(
        METHODS["snip"], criterion="phase of the moon", starts="half way", survivors="fly away", scope="galaxy"
    )
    shown = [answer(odd) for _, answer in taxonomy.QUESTIONS.values()]
    assert shown == ["Half way", "Phase of the moon", "Weights", "Fly away", "One shot"]
    assert taxonomy.scope(odd) == "Galaxy"

"""No word of the field without its meaning: each page explains the glossary's words that it uses."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from reading import read

from pruneviz.methods import METHODS
from pruneviz.papers import PAPERS
from pruneviz.store import SAMPLES
from pruneviz.store.samples import Samples
from pruneviz.ui.words import GLOSSARY

testing = pytest.importorskip("streamlit.testing.v1")
ROOT = Path(__file__).resolve().parent.parent
TEXTS = ("markdown", "caption", "header", "subheader", "title", "info", "warning", "error", "success")


def _runs(model: str) -> str:
    """Sample runs on one network, as an address names them."""
    found = {
        run.config.method + run.config.repair: run.id for run in Samples(SAMPLES).values() if run.config.model == model
    }
    return ",".join(list(found.values())[-6:])


VISITS = [
    *[(name, {}) for name in ("home", "run", "compare", "saliency", "spectra", "jacobians", "diff", "runs")],
    *[
        (name, {"runs": _runs(model)})
        for name in ("saliency", "spectra", "curves")
        for model in ("digits-cnn", "mlp-7x100")
    ],
    ("jacobians", {"runs": _runs("mlp-7x100")}),
    *[("papers", {"paper": key}) for key in PAPERS],
    *[("tour", {"step": str(step)}) for step in range(1, 6)],
    *[("curves", {"x": axis}) for axis in ("sparsity", "core", "latency_256")],
    *[("methods", {"method": card.title}) for card in METHODS.values()],
]


def terms(text: str) -> set[str]:
    """The glossary's terms in a text, in singular or plural; a longer term hides those within it."""
    left, found = text.lower(), set()
    for term in sorted(GLOSSARY, key=len, reverse=True):
        stem = re.escape(term.lower()).replace(r"\ ", r"[\s-]")
        left, count = re.subn(rf"(?<![\w-]){stem}(?:e?s)?(?![\w-])", " ", left)
        if count:
            found.add(term)
    return found


def said(element) -> list[str]:
    """What an element and those within it say to the eye, the popover of words aside."""
    if is_words(element):
        return []
    own = [getattr(element, "label", ""), *map(str, getattr(element, "options", []))]
    own += [element.value] if element.type in TEXTS else []
    own += drawn(json.loads(element.proto.spec)) if element.type == "plotly_chart" else []
    own += [*element.value.columns, element.proto.columns] if element.type == "dataframe" else []
    return [read(str(text)) for text in own if text] + [
        text for child in getattr(element, "children", {}).values() for text in said(child)
    ]


def drawn(chart: dict) -> list[str]:
    """The words of a chart: titles, notes, legend."""
    layout = chart["layout"]
    axes = [part for name, part in layout.items() if name[1:5] == "axis"]
    titled = [part.get("title", {}).get("text", "") for part in (layout, *axes)]
    notes = [note.get("text", "") for note in layout.get("annotations", [])]
    return [*titled, *notes, *(trace.get("name", "") for trace in chart["data"])]


def is_words(element) -> bool:
    return element.type == "popover" and element.proto.popover.label == "Words used here"


def explained(element) -> set[str]:
    """The terms that the popover of words lists."""
    if is_words(element):
        text = element.children[0].value
        return {term for term in GLOSSARY if f"**{term[:1].upper()}{term[1:]}**: {GLOSSARY[term]}" in text}
    return {term for child in getattr(element, "children", {}).values() for term in explained(child)}


@pytest.fixture(scope="module")
def visits(tmp_path_factory) -> dict[tuple[str, str], tuple[set[str], set[str]]]:
    """Page and query -> the terms that it uses and those that it explains, on the sample runs."""
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PRUNEVIZ_STORE", str(tmp_path_factory.mktemp("words") / "store"))
        for name, query in VISITS:
            page = testing.AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
            page.switch_page(f"pages/{name}.py")
            for key, value in query.items():
                page.query_params[key] = value
            page.run()
            assert not page.exception, name
            found[name, str(query)] = (terms("\n".join(said(page.main))), explained(page.main))
    return found


@pytest.mark.parametrize("name", sorted(path.stem for path in ROOT.glob("pages/*.py")))
def test_every_term_that_a_page_uses_is_among_its_words(visits, name: str):
    of_page = [both for (page, _), both in visits.items() if page == name]
    assert of_page
    for used, known in of_page:
        assert used - known == set()


def test_the_glossary_has_no_term_that_occurs_nowhere(visits):
    assert set(GLOSSARY) - set.union(*(used for used, _ in visits.values())) == set()


def test_a_gloss_is_one_plain_sentence():
    for term, gloss in GLOSSARY.items():
        assert gloss.endswith("."), term
        assert gloss[0].isupper(), term
        assert len(gloss.split()) <= 25, term
        assert term.lower() not in gloss.lower(), term

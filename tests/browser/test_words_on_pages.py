"""Free text in an address or a store is shown as text: no page makes a link, an image, an icon or a formula of it."""

from __future__ import annotations

from urllib.parse import urlencode

import pytest

from pruneviz import RunConfig
from pruneviz.basics.events import Failed
from pruneviz.store import Store

pytestmark = pytest.mark.browser
LINK, IMAGE = "[text](http://evil.example)", "![x](http://evil.example/x.png)"
NASTY = (
    f"{LINK} {IMAGE} http://evil.example www.evil.example :material/anchor: $x^2$ `a` **b** <img src=//evil.example>"
)
PAGES = (
    "",
    "tour",
    "run",
    "compare",
    "saliency",
    "spectra",
    "jacobians",
    "curves",
    "diff",
    "methods",
    "papers",
    "runs",
)
NAMES = (
    "sparsity", "sparsities", "layer", "runs", "pin", "hide", "network", "method", "methods", "model", "data", "dataset", "tag",
    "note", "notes", "title", "q", "state", "watch", "picked", "seed", "epochs", "width", "device", "x", "metric", "stage",
    "columns", "over", "paper", "step", "share", "together", "size", "start", "scope", "obs.blocks", "l1-filters.ratios", "unit",
)  # fmt: skip
MADE = """() => [...document.querySelectorAll('a, img, iframe, object, video')].map((e) => e.href || e.src || e.data || '')
  .filter((to) => to && new URL(to, location).hostname.includes('evil'))"""


def made(visitor) -> list[str]:
    """What leads elsewhere; icons and formulas that the text asked for."""
    visitor.page.wait_for_timeout(500)
    main = visitor.page.get_by_test_id("stMain")
    icons = [icon.inner_text() for icon in main.locator("[translate=no]").all()]
    return visitor.page.evaluate(MADE) + [icon for icon in icons if icon == "anchor"]


def shown(locator) -> str:
    return locator.inner_text().replace("\u2060", "")


@pytest.fixture(scope="module")
def failed(server) -> str:
    """A run that ended with a nasty sentence."""
    store = Store(server.store)
    (id_,) = store.queue([RunConfig(method="snip", model="lenet-300-100", dataset="digits", seed=99)], device="cuda:9")
    attempt = store.claim(id_, device="cuda:9", worker=1, code="test")
    store.record(Failed(run=id_, message=NASTY), attempt)
    store.close()
    return id_


@pytest.mark.parametrize("path", PAGES)
def test_no_page_makes_a_link_of_its_address(visit, path: str):
    me = visit()
    me.go(f"{path}?{urlencode(dict.fromkeys(NAMES, f'{LINK} {IMAGE}'))}")
    assert made(me) == []
    assert not me.page.get_by_test_id("stException").count()


def test_an_error_quotes_what_was_asked_letter_by_letter(visit):
    me = visit()
    me.go(f"run?{urlencode({'sparsity': NASTY})}")
    told = me.page.get_by_test_id("stAlert").first
    assert f"found {NASTY!r}." in shown(told)
    assert made(me) == []
    assert not told.locator("a, img, code, strong, .katex").count()


def test_what_a_run_said_is_shown_letter_by_letter(visit, failed):
    me = visit()
    for path in (f"runs?picked={failed}", f"run?watch={failed}"):
        me.go(path)
        assert NASTY in shown(me.page.get_by_test_id("stMain"))
        assert made(me) == []

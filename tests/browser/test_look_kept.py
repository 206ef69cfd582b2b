"""What a person chose is there on the next page: every shared control, with values that are neither first nor default."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest

from pruneviz.figures import base
from pruneviz.store import SAMPLES
from pruneviz.store.samples import Samples

pytestmark = pytest.mark.browser


def to(visitor, name: str) -> None:
    """Go to another page by the menu."""
    visitor.page.get_by_test_id("stSidebarNavLink").get_by_text(name, exact=True).click()
    visitor.page.get_by_role("heading", name=name, exact=True).wait_for(timeout=30_000)
    visitor.page.wait_for_timeout(600)
    visitor.settle()


def address(visitor) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(visitor.page.url).query))


def menu(visitor, label: str):
    return visitor.page.get_by_test_id("stSelectbox").filter(has_text=label).locator("input").first


def choose(visitor, label: str, option: str) -> None:
    menu(visitor, label).click()
    visitor.page.get_by_role("option", name=option).click()
    visitor.page.wait_for_timeout(600)
    visitor.settle()


def slider(visitor) -> str:
    return visitor.page.get_by_test_id("stSlider").first.get_by_role("slider").get_attribute("aria-valuetext")


def finished(method: str, model: str = "lenet-300-100") -> str:
    """The id of a sample run that recorded its layers."""
    return next(
        run.id
        for run in Samples(SAMPLES).values()
        if (run.config.method, run.config.model, run.config.dataset) == (method, model, "digits") and base.layers([run])
    )


def test_what_a_link_asks_for_is_on_every_page_that_follows(visit):
    ids = [finished(method) for method in ("obd", "snip", "random")]
    asked = {"runs": ",".join(ids), "sparsity": "0.98", "layer": "3"}
    me = visit()
    me.go(f"saliency?{urlencode(asked)}")
    for name in ("Jacobians", "Kronecker spectra", "Compare", "Saliency"):
        to(me, name)
        assert {key: address(me).get(key) for key in asked} == asked, name
    assert slider(me) == "98%"
    assert menu(me, "Layer").input_value().startswith("3:")


def test_what_is_chosen_by_hand_is_on_every_page_that_follows(visit):
    me = visit()
    me.go("spectra")
    choose(me, "Layer", "3:")
    thumb = me.page.get_by_test_id("stSlider").first.get_by_role("slider")
    thumb.focus()
    me.page.keyboard.press("ArrowRight")
    me.page.wait_for_timeout(600)
    me.settle()
    for name in ("Compare", "Jacobians", "Saliency"):
        to(me, name)
        assert (address(me)["sparsity"], address(me)["layer"]) == ("0.95", "3"), name


def test_pinned_and_hidden_columns_are_there_again_after_other_pages(visit):
    ids = [finished(method) for method in ("obd", "snip", "random")]
    me = visit()
    me.go(f"compare?{urlencode({'runs': ','.join(ids), 'pin': ids[1], 'hide': ids[2]})}")
    to(me, "Saliency")
    to(me, "Compare")
    assert (address(me).get("pin"), address(me).get("hide")) == (ids[1], ids[2])


def test_what_some_runs_do_not_have_is_not_forgotten(visit):
    me = visit()
    me.go("saliency?sparsity=0.95&layer=3")
    choose(me, "Network and data", "Digits CNN on Digits")
    assert (slider(me), address(me)["sparsity"]) == ("60%", "0.6")
    to(me, "Jacobians")
    assert slider(me) == "60%"
    to(me, "Compare")
    choose(me, "Network and data", "LeNet-300-100 on Digits")
    to(me, "Saliency")
    assert (slider(me), menu(me, "Layer").input_value()[:2]) == ("95%", "3:")


def test_a_network_without_runs_stays_chosen(visit):
    me = visit()
    me.go("curves")
    choose(me, "Network and data", "Digits CNN on Digits")
    runs = me.page.get_by_test_id("stMultiSelect").first
    while (chosen := runs.get_by_role("button", name="Remove")).count():
        chosen.first.click()
        me.settle()
    to(me, "Saliency")
    assert menu(me, "Network and data").input_value() == "Digits CNN on Digits"
    assert not me.page.get_by_test_id("stMultiSelect").first.get_by_role("button", name="Remove").count()

"""The first visit: from Home to the tour, through its five steps, and on to the runs themselves."""

from __future__ import annotations

import re
from urllib.parse import parse_qs, urlsplit

import pytest

from pruneviz.ui.tour import STEPS

pytestmark = pytest.mark.browser
NUMBERS = range(1, len(STEPS) + 1)


def heading(visitor) -> str:
    return visitor.page.locator("h2").first.inner_text().strip()


def see(visitor) -> str:
    """The sentence that says what to see."""
    box = visitor.page.get_by_test_id("stAlert")
    box.wait_for(timeout=20_000)
    return box.inner_text()


def marks(visitor) -> int:
    """How much is drawn in the step's figure."""
    chart = visitor.page.locator(".js-plotly-plot")
    chart.locator(".cartesianlayer path").first.wait_for(state="attached", timeout=20_000)
    assert chart.count() == 1
    return chart.locator(".cartesianlayer path").count()


def at_step(visitor, number: int) -> None:
    visitor.page.get_by_role("heading", name=STEPS[number - 1].title).wait_for(timeout=20_000)
    visitor.settle()


def test_a_first_visit_sees_a_comparison_moves_it_reads_the_words_and_takes_the_tour(visit):
    me = visit()
    me.go("")
    drawn = me.page.locator("svg[data-view]")
    drawn.first.wait_for(timeout=20_000)
    before = [panel.get_attribute("aria-label") for panel in drawn.all()]
    assert len(before) == 24
    slider = me.page.locator("input[type=range]").first
    slider.focus()
    slider.press("ArrowRight")
    me.page.wait_for_url(re.compile(r"sparsity=0\.95"), timeout=10_000)
    after = [panel.get_attribute("aria-label") for panel in drawn.all()]
    assert before != after
    other = visit()
    other.page.goto(me.page.url)
    other.page.locator("svg[data-view]").first.wait_for(timeout=20_000)
    other.settle()
    assert [panel.get_attribute("aria-label") for panel in other.page.locator("svg[data-view]").all()] == after

    me.page.get_by_text("Words used here").click()
    me.page.get_by_text("The share of weights that are removed: at 90%, one in ten is left.").wait_for(timeout=20_000)
    me.page.keyboard.press("Escape")
    me.page.get_by_role("button", name="Take the tour").click()
    at_step(me, 1)
    assert marks(me) > 4


@pytest.mark.parametrize("how", ["mouse", "keyboard"])
def test_the_tour_goes_on_step_by_step_and_back(visit, how: str):
    me = visit()
    me.go("tour")
    for number in NUMBERS:
        at_step(me, number)
        assert marks(me) > 4
        assert len(re.findall(r"\d", see(me))) > 3
        assert me.page.get_by_text(f"Step {number} of {len(STEPS)}").count() == 1
        if number < len(STEPS) and how == "mouse":
            me.page.get_by_role("button", name="Next").click()
        elif number < len(STEPS):
            me.page.keyboard.press("n")
    assert "step=5" in me.page.url
    if how == "keyboard":
        me.page.keyboard.press("b")
    else:
        me.page.get_by_role("button", name="Back").click()
    at_step(me, 4)


@pytest.mark.parametrize(
    ("link", "holds"),
    [
        ("step=1&again=false", ""),
        ("step=2&share=95%25", "With 95% to leave"),
        ("step=3&network=2", ""),
        ("step=4&inputs=0.5", "no gain"),
        ("step=5&show=loss&unmoved=true", "without moving"),
    ],
)
def test_a_step_s_link_shows_the_same_with_the_same_controls(visit, link: str, holds: str):
    plain, me = visit(), visit()
    plain.go(f"tour?{link.split('&')[0]}")
    me.go(f"tour?{link}")
    assert see(me) != see(plain)
    assert holds in see(me)
    assert link.split("&")[1].split("=")[0] in parse_qs(urlsplit(me.page.url).query)
    other = visit()
    other.page.goto(me.page.url)
    other.settle()
    assert (heading(other), see(other)) == (heading(me), see(me))


def test_a_control_moved_by_hand_is_in_the_address_and_a_new_browser_sees_it(visit):
    me = visit()
    me.go("tour?step=4")
    before = see(me)
    thumb = me.page.get_by_test_id("stSlider").get_by_role("slider")
    thumb.focus()
    thumb.press("ArrowLeft")
    me.page.wait_for_url(re.compile(r"inputs=0\.85"), timeout=10_000)
    me.settle()
    assert see(me) != before
    other = visit()
    other.page.goto(me.page.url)
    other.settle()
    assert see(other) == see(me)
    me.page.keyboard.press("Tab")
    me.page.keyboard.press("n")
    at_step(me, 5)
    assert "inputs" not in me.page.url, "a step's link holds its own controls"


@pytest.mark.parametrize(
    ("link", "carried"),
    [
        ("step=1&again=false", {"stage": "after pruning, before training"}),
        ("step=2&share=95%25", {"sparsity": "0.95"}),
        ("step=3&network=2", {}),
        ("step=4", {"together": "0.9"}),
        ("step=5&show=loss", {"stage": "after pruning, before training", "metric": "loss"}),
    ],
)
def test_each_step_leads_to_its_own_page_with_the_same_runs_and_settings(visit, link: str, carried: dict[str, str]):
    me = visit()
    me.go(f"tour?{link}")
    marks(me)
    step = STEPS[int(link[5]) - 1]
    me.page.get_by_text("See it on its own page").click()
    me.page.wait_for_url(re.compile(step.page.removeprefix("pages").removesuffix(".py")), timeout=15_000)
    me.page.locator(".js-plotly-plot").first.wait_for(timeout=20_000)
    me.settle()
    asked = {name: values[0] for name, values in parse_qs(urlsplit(me.page.url).query).items()}
    assert asked.items() >= carried.items()  # what a page does not understand it takes out of its address
    assert ("runs" in asked) == (step.figure != "two-weights")
    assert not me.page.get_by_test_id("stException").count()
    assert not me.page.get_by_text("not in this store").count()


def test_the_last_step_leads_to_compare_with_exactly_its_runs(visit):
    me = visit()
    me.go("tour?step=5")
    me.page.get_by_text("Compare these runs side by side").click()
    me.page.wait_for_url(re.compile(r"/compare\?"), timeout=15_000)
    me.page.locator("svg[data-view]").first.wait_for(timeout=20_000)
    runs = parse_qs(urlsplit(me.page.url).query)["runs"][0].split(",")
    assert [run.split("-lenet")[0] for run in runs] == ["magnitude", "obd", "obs"]
    assert me.page.locator("svg[data-view=curve]").count() == 3


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("number", NUMBERS)
def test_no_step_scrolls_sideways(visit, number: int, width: int):
    me = visit(width)
    me.go(f"tour?step={number}")
    assert marks(me) > 4
    main = me.page.get_by_test_id("stMain")
    assert main.evaluate("e => e.scrollWidth <= e.clientWidth + 1")
    bar = me.page.locator(".st-key-tour-move")
    assert bar.bounding_box()["y"] + bar.bounding_box()["height"] <= 901, "back and next are in sight"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("number", NUMBERS)
def test_no_step_violates_axe(visit, number: int, scheme: str):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")
    me = visit(1280, scheme)
    me.go(f"tour?step={number}")
    assert marks(me) > 4
    me.page.wait_for_timeout(500)
    found = axe.Axe().run(me.page).response["violations"]
    assert [(v["id"], [n["target"] for n in v["nodes"]][:3]) for v in found] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_words_open_without_violating_axe(visit, scheme: str):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")
    me = visit(1280, scheme)
    me.go("methods")
    me.page.get_by_text("Words used here").click()
    me.page.get_by_text("The matrix of all second derivatives").wait_for(timeout=20_000)
    me.page.wait_for_timeout(1000)  # colours of what was clicked go over
    found = axe.Axe().run(me.page).response["violations"]
    assert [(v["id"], [n["target"] for n in v["nodes"]][:3]) for v in found] == []


def test_the_catalogue_filters_says_where_nothing_fits_and_shows_all_again(visit):
    me = visit()
    me.go("methods")
    wait = me.page.get_by_text("12 of 12 methods")
    wait.wait_for(timeout=10_000)
    me.page.get_by_role("button", name="Directions", exact=True).click()
    me.page.get_by_text("1 of 12 methods").wait_for(timeout=10_000)
    me.page.wait_for_url(re.compile("unit=Directions"), timeout=10_000)
    me.page.get_by_role("button", name="In rounds", exact=True).click()
    me.page.get_by_text("No method answers all of these").wait_for(timeout=10_000)
    other = visit()
    other.page.goto(me.page.url)
    other.page.get_by_text("No method answers all of these").wait_for(timeout=20_000)
    me.page.get_by_role("button", name="Show all methods").click()
    wait.wait_for(timeout=10_000)
    assert "unit=" not in me.page.url


def test_a_row_of_the_catalogue_opens_its_method(visit):
    me = visit()
    me.go("methods?criterion=Size")
    table = me.page.get_by_test_id("stDataFrame")
    table.wait_for(timeout=10_000)
    table.click(position={"x": 18, "y": 35 * 2 + 17})  # the box before the second row
    me.page.get_by_role("heading", name="L1 filters").wait_for(timeout=10_000)
    assert "method=L1+filters" in me.page.url.replace("%20", "+")


def test_claims_are_cards_on_a_phone(visit):
    me = visit(390)
    me.go("papers")
    claims = me.page.locator(".st-key-claims")
    claims.locator("td").first.wait_for(timeout=10_000)
    assert claims.locator("thead").is_hidden()
    assert claims.locator("tbody th").first.evaluate("e => e.clientWidth") > 250
    assert claims.evaluate("e => e.scrollWidth <= e.clientWidth + 1")

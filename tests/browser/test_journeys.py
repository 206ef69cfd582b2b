"""What people do, in Chromium, against the real app with its real worker."""

from __future__ import annotations

import re
import time
from urllib.parse import parse_qs, urlsplit

import pytest
from served import serve

from pruneviz.plan.comparison import NINE

pytestmark = pytest.mark.browser
PANELS = ("layers", "saliency", "mask", "spectra", "jacobians", "curve")
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


def choose(visitor, label: str, option: str) -> None:
    """Pick an option of a select box."""
    visitor.page.get_by_test_id("stSelectbox").filter(has_text=label).locator("input").first.click()
    visitor.page.get_by_role("option", name=option, exact=True).click()
    visitor.settle()


def fill(visitor, label: str, value: str) -> None:
    """Type into a text or number field."""
    box = visitor.page.locator(f"input[aria-label^='{label}']")
    box.fill(value)
    box.press("Enter")
    visitor.settle()


def launch(
    visitor, *, methods: tuple[str, ...], epochs: int, sparsities: str = "0.5, 0.9", seeds: str = "0"
) -> list[str]:
    """Fill in the Run page and press Run; returns the ids from the address."""
    visitor.go("run")
    choose(visitor, "Data", "Digits")
    choose(visitor, "Network", "LeNet-300-100")
    pills = visitor.page.get_by_test_id("stButtonGroup")
    for name in ("Random", "Magnitude", "Lottery ticket", "SNIP"):
        pill = pills.get_by_role("button", name=name, exact=True)
        if (pill.get_attribute("aria-pressed") == "true" or pill.get_attribute("kind") == "pillsActive") != (
            name in methods
        ):
            pill.click()
            visitor.settle()
    fill(visitor, "Sparsities", sparsities)
    fill(visitor, "Seeds", seeds)
    visitor.page.get_by_text("Training budget, and departures").click()
    fill(visitor, "Training epochs", str(epochs))
    fill(visitor, "Fine-tuning epochs", str(max(1, epochs // 2)))
    visitor.page.get_by_test_id("stMain").get_by_role("button", name="Run", exact=True).click()
    visitor.page.wait_for_url(re.compile("watch="), timeout=15_000)
    visitor.settle()
    return parse_qs(urlsplit(visitor.page.url).query)["watch"][0].split(",")


def wait_for(visitor, text: str, seconds: float) -> None:
    visitor.page.get_by_text(text, exact=False).first.wait_for(timeout=1000 * seconds)


def panels(visitor) -> dict[str, list[str]]:
    """View -> what each of its drawings says to those who do not see it."""
    grid = visitor.page.locator("svg[data-view]")
    grid.first.wait_for(timeout=20_000)
    found: dict[str, list[str]] = {}
    for panel in grid.all():
        found.setdefault(panel.get_attribute("data-view"), []).append(panel.get_attribute("aria-label") or "")
    return found


@pytest.mark.parametrize("path", ["run", "curves?metric=loss"])
def test_a_pasted_link_may_be_a_fresh_server_s_first_visit(chromium, tmp_path, path: str):
    fresh = serve(tmp_path / "store")
    try:
        page = chromium.new_context().new_page()
        page.goto(f"{fresh.url}/{path}")
        names = page.get_by_test_id("stSidebarNavLink")
        names.get_by_text("Kronecker spectra").wait_for(timeout=20_000)
        assert names.count() == len(PAGES)
        assert not page.get_by_test_id("stException").count()
        page.context.close()
    finally:
        fresh.stop()


def test_the_main_job_from_an_empty_store(visit):
    me = visit()
    ids = launch(me, methods=("Magnitude", "SNIP", "Lottery ticket"), epochs=20)
    assert sorted(id_.split("-lenet")[0] for id_ in ids) == ["lottery-ticket", "magnitude", "snip"]

    seen = set()
    bar = me.page.get_by_test_id("stProgress").first
    end = time.monotonic() + 90
    while time.monotonic() < end and not me.page.get_by_text("3 of 3 runs finished").count():
        seen.add(bar.locator("[role=progressbar]").get_attribute("aria-valuenow"))
        me.page.wait_for_timeout(300)
    assert len(seen) >= 4, "progress moved"
    wait_for(me, "3 of 3 runs finished", 5)

    me.page.get_by_test_id("stMain").get_by_text("Compare these runs").click()
    me.page.get_by_role("heading", name="Compare").wait_for()
    me.settle()
    drawn = panels(me)
    assert set(drawn) == set(PANELS)
    assert {len(labels) for labels in drawn.values()} == {3}
    assert all(re.search(r"\d", label) for labels in drawn.values() for label in labels)
    assert me.page.locator("svg[data-view] path").count() > 12

    link = me.page.url
    assert all(id_ in link for id_ in ids)
    other = visit()
    other.page.goto(link)
    other.settle()
    assert panels(other) == drawn


def test_one_click_on_the_home_page_runs_a_method_of_each_paper(chromium, tmp_path):
    fresh = serve(tmp_path / "store")
    try:
        page = chromium.new_context().new_page()
        page.goto(fresh.url)
        page.get_by_role("button", name="Run all nine on digits").click(timeout=30_000)
        page.wait_for_url(re.compile("run.*watch="), timeout=15_000)
        ids = parse_qs(urlsplit(page.url).query)["watch"][0].split(",")
        assert [id_.split("-digits-cnn")[0] for id_ in ids] == list(NINE)
        page.get_by_text("of 9 runs finished").wait_for(timeout=20_000)
        page.locator(".js-plotly-plot .scatterlayer .trace").first.wait_for(timeout=60_000)  # the first point
        assert not page.get_by_test_id("stException").count()
        page.context.close()
    finally:
        fresh.stop()


def test_moving_the_sparsity_changes_every_view_and_the_link_restores_it(visit):
    me = visit()
    me.go("compare")
    before = panels(me)
    slider = me.page.locator("input[type=range]").first
    slider.focus()
    slider.press("ArrowRight")
    me.page.wait_for_timeout(100)
    after = panels(me)
    assert all(before[view] != after[view] for view in ("saliency", "curve"))
    assert "at 95% sparsity" in after["curve"][0]
    me.page.wait_for_url(re.compile(r"sparsity=0\.95"), timeout=10_000)
    other = visit()
    other.page.goto(me.page.url)
    other.settle()
    assert panels(other) == after


def test_a_run_is_cancelled_and_resumed(visit):
    me = visit()
    launch(me, methods=("SNIP",), epochs=400, sparsities="0.5, 0.6, 0.7, 0.8", seeds="7")
    wait_for(me, "running", 20)
    me.page.get_by_role("button", name="Cancel").click()
    wait_for(me, "cancelled", 5)
    me.page.get_by_role("button", name="Resume").click()
    wait_for(me, "running", 20)
    me.page.get_by_role("button", name="Cancel").click()
    wait_for(me, "cancelled", 5)


def test_two_browsers_at_once_do_not_interfere(visit):
    one, two = visit(), visit()
    first = launch(one, methods=("Random",), epochs=2, seeds="11")
    second = launch(two, methods=("SNIP",), epochs=2, seeds="12")
    assert not set(first) & set(second)
    for visitor in (one, two):
        wait_for(visitor, "1 of 1 runs finished", 60)
    assert one.page.get_by_text("Random", exact=False).count()
    assert parse_qs(urlsplit(one.page.url).query)["watch"] == [",".join(first)]


def test_bad_input_is_answered_with_the_mend(visit):
    me = visit()
    me.go("run")
    fill(me, "Sparsities", "95")
    wait_for(me, "Did you mean 0.95?", 5)
    assert not me.page.get_by_test_id("stMain").get_by_role("button", name="Run", exact=True).count()
    fill(me, "Sparsities", "half")
    wait_for(me, "Sparsities are numbers separated by commas", 5)
    fill(me, "Sparsities", "0.9")
    me.page.get_by_test_id("stMain").get_by_role("button", name="Run", exact=True).wait_for()


def test_a_link_to_runs_that_are_not_here_says_so(visit):
    me = visit()
    me.go("compare?runs=snip-lenet-300-100-digits-000000000000")
    wait_for(me, "not in this store", 10)


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("path", PAGES)
def test_no_page_scrolls_sideways_or_breaks(visit, path: str, width: int):
    me = visit(width)
    me.go(path)
    me.page.wait_for_timeout(500)
    assert not me.page.get_by_test_id("stException").count()
    main = me.page.get_by_test_id("stMain")
    assert main.evaluate("e => e.scrollWidth <= e.clientWidth + 1")
    assert me.page.evaluate("() => document.documentElement.scrollWidth <= document.documentElement.clientWidth + 1")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", PAGES)
def test_no_page_violates_axe(visit, path: str, scheme: str):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")
    me = visit(1280, scheme)
    me.go(path)
    me.page.wait_for_timeout(800)
    found = axe.Axe().run(me.page).response["violations"]
    assert [(v["id"], [n["target"] for n in v["nodes"]][:3]) for v in found] == []


def test_answers_carry_the_security_headers(server):
    import urllib.error
    import urllib.request

    with urllib.request.urlopen(server.url) as answer:
        assert "frame-ancestors 'self'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"{server.url}/_stcore/metrics")

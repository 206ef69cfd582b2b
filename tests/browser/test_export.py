"""What people take with them: numbers, images, and a report that opens anywhere."""

from __future__ import annotations

import csv
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from urllib.parse import unquote

import pytest

from pruneviz.figures import report
from pruneviz.store import SAMPLES
from pruneviz.store.samples import Samples

pytestmark = pytest.mark.browser
RUNS = [r for r in Samples(SAMPLES).values() if (r.config.model, r.config.dataset) == ("lenet-300-100", "digits")]
FOUR = [
    next(r for r in RUNS if r.config.method == m and r.config.probes) for m in ("snip", "magnitude", "obs", "kron-obs")
]
ADDRESS = ",".join(run.id for run in FOUR)


def read(table: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(table.read_text(encoding="utf-8").splitlines()))


def saved(visitor, chart: str, what: str, to: Path) -> Path:
    """What the chart's menu gives."""
    menu = visitor.page.locator(f".st-key-{chart}-download").get_by_role("button").first
    menu.click()
    button = visitor.page.get_by_test_id("stPopoverBody").get_by_role("button", name=what, exact=True)
    button.wait_for(timeout=10_000)
    with visitor.page.expect_download(timeout=20_000) as download:
        button.click()
    if visitor.page.get_by_test_id("stPopoverBody").count():
        visitor.page.keyboard.press("Escape")
    visitor.page.wait_for_timeout(300)
    download.value.save_as(to / download.value.suggested_filename)
    return to / download.value.suggested_filename


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_a_chart_is_saved_as_csv_png_and_svg(visit, tmp_path, width: int, scheme: str):
    me = visit(width, scheme)
    me.go(f"curves?runs={ADDRESS}")
    numbers, png, svg = (saved(me, "curves-plot", what, tmp_path) for what in ("CSV", "PNG", "SVG"))

    rows = read(numbers)
    assert {"label", "sparsity", "mean"} <= set(rows[0])
    assert len({row["label"] for row in rows if row["stage"] == "tuned"}) == 4

    image = png.read_bytes()
    assert png.name == "curves.png"
    assert image[:8] == b"\x89PNG\r\n\x1a\n"
    across, down = (int.from_bytes(image[i : i + 4], "big") for i in (16, 20))
    assert (across, down) == (1800, 920)  # also where the page is a phone's: twice 900 x 460

    drawing = svg.read_text(encoding="utf-8")
    root = ElementTree.fromstring(drawing)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    texts = {"".join(text.itertext()) for text in root.iter("{http://www.w3.org/2000/svg}text")}
    assert "Test accuracy against sparsity" in texts
    inks = set(re.findall(r"<text[^>]*?[^-]fill: (rgb\([^)]*\))", drawing))
    assert inks == {"rgb(11, 18, 29)"}  # dark text in either theme …
    assert '<rect x="0" y="0" width="900" height="460" style="fill: rgb(255, 255, 255);' in drawing  # … on white


def test_a_saved_chart_leaves_the_page_as_it_was(visit, tmp_path):
    me = visit(1280, "dark")
    me.go(f"curves?runs={ADDRESS}")
    title = me.page.locator(".st-key-curves-plot .gtitle")
    before = title.evaluate("e => getComputedStyle(e).fill")
    saved(me, "curves-plot", "PNG", tmp_path)
    assert title.evaluate("e => getComputedStyle(e).fill") == before
    background = me.page.locator(".st-key-curves-plot .main-svg").first.evaluate(
        "e => getComputedStyle(e).backgroundColor"
    )
    assert background == "rgba(0, 0, 0, 0)"


def test_the_table_under_a_chart_is_sent_once_it_is_opened(visit):
    me = visit()
    me.go(f"saliency?runs={ADDRESS}&sparsity=80%25")
    box = me.page.locator(".st-key-saliency-plot-data")
    assert not box.get_by_test_id("stDataFrame").count()
    link = me.page.url
    box.get_by_text(re.compile(r"Data: \d+ rows")).click()
    box.get_by_test_id("stDataFrame").wait_for(timeout=15_000)
    me.settle()
    assert me.page.url == link
    assert not me.page.get_by_test_id("stException").count()


def test_runs_that_are_ticked_stay_ticked_in_another_browser_and_give_a_report(visit, tmp_path):
    me = visit()
    me.go(f"runs?picked={ADDRESS}")
    me.page.get_by_text("4 ticked").wait_for(timeout=10_000)
    assert set(unquote(me.page.url).split("picked=")[1].split(",")) == {run.id for run in FOUR}
    with me.page.expect_download(timeout=30_000) as download:
        me.page.get_by_role("button", name="Report (HTML)").click()
    download.value.save_as(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert all(run.id in page for run in FOUR)


def test_compare_gives_a_report_of_what_is_looked_at(visit, tmp_path):
    me = visit()
    me.go(f"compare?runs={ADDRESS}&sparsity=0.8&layer=1")
    with me.page.expect_download(timeout=30_000) as download:
        me.page.get_by_role("button", name="Report (HTML)").click()
    download.value.save_as(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert all(run.id in page for run in FOUR)
    assert '"wish":{"sparsity":0.8,"layer":"1"}' in page


# the report from disk


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    target = tmp_path_factory.mktemp("report") / "report.html"
    target.write_text(report(FOUR), encoding="utf-8")
    return target


@pytest.fixture
def opened(chromium, written):
    """Opens the report from disk without a network; it must end without an error and without a request."""
    contexts, problems = [], []

    def new(width: int = 1280, scheme: str = "light"):
        context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True)
        contexts.append(context)
        page = context.new_page()
        page.on(
            "console", lambda message: problems.append(message.text) if message.type in ("error", "warning") else None
        )
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda r: None if r.url.startswith(("file:", "data:", "blob:")) else problems.append(r.url))
        page.goto(written.as_uri())
        page.locator("#grid svg[data-view=curve]").first.wait_for(timeout=20_000)
        return page

    yield new
    for context in contexts:
        context.close()
    assert problems == []


def drawn(page) -> None:
    """Walk through the page until every chart is drawn."""
    for chart in page.locator(".chart").all():
        chart.scroll_into_view_if_needed()
        chart.locator(".main-svg").first.wait_for(timeout=20_000)


def test_the_report_moves_without_a_network(opened):
    page = opened()
    curve = page.locator("#grid svg[data-view=curve]").first
    before = curve.get_attribute("aria-label")
    slider = page.locator("#grid input[type=range]")
    slider.focus()
    slider.press("ArrowRight")
    assert curve.get_attribute("aria-label") != before
    assert "at 95% sparsity" in curve.get_attribute("aria-label")
    drawn(page)
    assert page.locator(".chart .main-svg").count() >= 10
    assert page.locator(".gtitle").first.text_content()


def test_the_report_s_tables_and_files_hold_the_numbers(opened, tmp_path):
    page = opened()
    details = page.locator("details.data[data-figure=curves]")
    details.locator("summary").click()
    details.locator("tbody tr").first.wait_for(timeout=10_000)
    shown = details.locator("tbody tr").count()
    with page.expect_download() as download:
        details.locator("a.csv").click()
    download.value.save_as(tmp_path / "curves.csv")
    rows = read(tmp_path / "curves.csv")
    assert len(rows) == shown > 15
    assert f"{shown} rows" in details.locator("summary").text_content()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_report_s_charts_are_saved_dark_on_white(opened, tmp_path, scheme: str):
    page = opened(1280, scheme)
    chart = page.locator(".chart[data-figure=curves]")
    chart.scroll_into_view_if_needed()
    chart.locator(".main-svg").first.wait_for(timeout=20_000)
    chart.hover()
    with page.expect_download() as download:
        chart.locator("[data-title='Download as SVG']").click()
    download.value.save_as(tmp_path / "curves.svg")
    text = (tmp_path / "curves.svg").read_text(encoding="utf-8")
    assert set(re.findall(r"<text[^>]*?[^-]fill: (rgb\([^)]*\))", text)) == {"rgb(11, 18, 29)"}
    inks = chart.locator("text").evaluate_all("all => [...new Set(all.map((e) => getComputedStyle(e).fill))]")
    assert inks == [{"light": "rgb(11, 18, 29)", "dark": "rgb(233, 237, 244)"}[scheme]]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_report_is_accessible_and_never_scrolls_sideways(opened, width: int, scheme: str):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")
    page = opened(width, scheme)
    drawn(page)
    page.locator("details.data summary").first.click()
    found = axe.Axe().run(page).response["violations"]
    assert [(v["id"], [n["target"] for n in v["nodes"]][:3]) for v in found] == []
    assert page.evaluate("() => document.documentElement.scrollWidth <= document.documentElement.clientWidth + 1")

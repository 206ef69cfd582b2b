"""The moving grid in Chromium without the dashboard: whatever runs recorded or did not, it draws, or says why it does not."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from handmade import SPARSITIES, HandMade, run, structured

from pruneviz.figures import grid
from pruneviz.plan.config import RunConfig
from pruneviz.records.stages import Stage

pytestmark = pytest.mark.browser
METHODS = ("random", "magnitude", "lottery-ticket", "snip")
DRAW = """async ({ js, css, html, data }) => {
  document.body.innerHTML = `<style>${css}</style><div id="here" style="width: 1200px">${html}</div>`
  const module = await import(URL.createObjectURL(new Blob([js], { type: "text/javascript" })))
  const told = []
  module.default({ parentElement: document.getElementById("here"), data, setStateValue: (_, view) => told.push(view) })
  await new Promise((done) => setTimeout(done, 100))
  window.told = told
}"""


@pytest.fixture
def draw(chromium):
    """Draws the grid of runs in a page of its own; a script error fails the test."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    page, errors = context.new_page(), []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto("about:blank")

    def drawn(runs, **wish):
        data = {**grid.payload(runs), "id": "x", "turn": 1, "fixed": False, "cover": "", "wish": wish}
        page.evaluate(DRAW, {"js": grid.JS, "css": grid.CSS, "html": grid.HTML, "data": data})
        return page

    yield drawn
    context.close()
    assert errors == []


def bare(method: str, accuracy: dict[float, float] | None = None) -> HandMade:
    """A run that recorded no arrays, and perhaps no numbers."""
    return HandMade(RunConfig(method=method, sparsities=SPARSITIES, probes=()), {}, accuracy or {})


def panels(page, view: str) -> list[str]:
    return [panel.get_attribute("aria-label") for panel in page.locator(f".cell[data-view={view}] svg[role=img]").all()]


def test_runs_with_everything_are_drawn_in_full(draw):
    page = draw([*map(run, METHODS[:2]), run("snip", repair="isometry"), structured("eigendamage")])
    assert page.locator(".nothing").is_hidden()
    assert all("median" in label for label in panels(page, "jacobians"))
    assert "repaired median" in panels(page, "jacobians")[2]
    assert all("trained again" in label for label in panels(page, "curve"))
    assert all(" kept" in label for label in panels(page, "mask"))


def test_runs_without_sparsities_say_so(draw):
    page = draw([bare(method) for method in METHODS])
    assert page.locator(".nothing").inner_text() == "None of these runs has recorded a sparsity yet."
    assert page.locator(".head b").count() == len(METHODS)
    assert page.locator(".slider").is_hidden()


def test_runs_without_arrays_have_their_curves_and_no_layers(draw):
    page = draw([bare(method, {0.5: 0.9, 0.9: 0.8}) for method in METHODS])
    assert page.locator(".nothing").is_hidden()
    assert page.locator(".menu").is_hidden()
    assert all("90%" in label for label in panels(page, "curve"))
    assert all("no layers recorded" in label for label in panels(page, "saliency"))
    page.locator(".slider").fill("0")
    assert all("at 50% sparsity" in label for label in panels(page, "curve"))


def test_layers_without_some_arrays_say_which_are_missing(draw):
    made = run()
    made.probes = {name: arrays for name, arrays in made.probes.items() if not name.startswith(("saliency", "masks"))}
    page = draw([made, run("random")])
    assert "no scores of this layer recorded" in panels(page, "saliency")[0]
    assert "no mask recorded" in panels(page, "mask")[0]
    assert "threshold" in panels(page, "saliency")[1]


def test_no_run_and_no_column_left_are_said(draw):
    assert draw([]).locator(".nothing").inner_text() == "No run is chosen, so there is nothing to compare."
    page = draw([run(), run("random")])
    page.evaluate(
        "document.querySelector('.grid').grid.columns.hidden = new Set(document.querySelector('.grid').grid.columns.order)"
    )
    page.evaluate("document.querySelector('.grid').grid.arrange()")
    assert page.locator(".nothing").inner_text() == "All columns are hidden. Show one of them."
    page.get_by_role("button", name="Show SNIP").click()
    assert page.locator(".nothing").is_hidden()
    assert panels(page, "curve")


def test_a_run_that_has_just_begun_stands_beside_a_finished_one(draw):
    page = draw([bare("random"), run("snip")], sparsity=0.9, layer="3")
    assert page.locator(".head small").all_inner_texts()[0] == "no sparsity recorded yet"
    assert "layer 3" in panels(page, "saliency")[1]


def test_names_and_layers_of_strangers_are_text(draw):
    made = run()
    hostile = '<a href="http://x">1</a>'
    for name, (arrays, layers) in list(made.probes.items()):
        made.probes[name] = arrays, [layer.replace("1", hostile) for layer in layers]
    made.about = made.about.model_copy(update={"method": hostile, "removes": hostile})
    page = draw([made, run("random")])
    assert page.locator("a").count() == 0
    assert Stage.TUNED in grid.payload([made])["runs"][0]

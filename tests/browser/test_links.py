"""Every control of every page stands in the link: each is changed, and the address pasted into another browser shows the same."""

from __future__ import annotations

import re

import pytest

pytestmark = pytest.mark.browser
EVERY_METHOD = (
    "Random,Magnitude,L1 filters,Lottery ticket,Optimal Brain Damage,Optimal Brain Surgeon,Kron-OBD,Kron-OBS,EigenDamage,SNIP,"
    "GraSP,Signal propagation"
)
PAGES = {
    "saliency": "",
    "spectra": "",
    "jacobians": "",
    "curves": "",
    "compare": "",
    "methods": "",
    "papers": "",
    "runs": "",
    "run": f"?methods={EVERY_METHOD}",
}
KINDS = ("stSelectbox", "stMultiSelect", "stSlider", "stNumberInput", "stTextInput", "stCheckbox", "stButtonGroup")
ANY = ",".join(f"[data-testid=stMain] [data-testid={kind}]" for kind in KINDS)
# What every control shows, in the order of the page, the parts of the moving comparison among them
STATE = """() => {
  const text = (e) => e?.textContent.trim() ?? ''
  const marked = (b) => ['aria-checked', 'aria-pressed'].some((a) => b.getAttribute(a) === 'true')
  const values = {
    stSelectbox: (e) => e.querySelector('input').value,
    stMultiSelect: (e) => [...e.querySelectorAll('[data-tag]')].map((tag) => tag.getAttribute('aria-label')).join(' + '),
    stSlider: (e) => [...e.querySelectorAll('[role=slider], input[type=range]')].map((t) => t.getAttribute('aria-valuetext') ?? t.value)
      .join(' to '),
    stNumberInput: (e) => e.querySelector('input').value,
    stTextInput: (e) => e.querySelector('input').value,
    stCheckbox: (e) => String(e.querySelector('input').checked),
    stButtonGroup: (e) => [...e.querySelectorAll('button, [role=radio]')].filter(marked).map(text).join(' + '),
  }
  const kinds = Object.keys(values).map((kind) => `[data-testid=stMain] [data-testid=${kind}]`).join(',')
  const found = [...document.querySelectorAll(kinds)].map((e) => [
    `${e.dataset.testid} ${text(e.querySelector('label, [data-testid=stWidgetLabel]'))}`, values[e.dataset.testid](e),
  ])
  const roots = [document, ...[...document.querySelectorAll('*')].map((e) => e.shadowRoot).filter(Boolean)]
  for (const grid of roots.flatMap((root) => [...root.querySelectorAll('.grid')])) {
    for (const what of ['.slider', '.menu']) found.push([`grid ${what}`, grid.querySelector(what).value])
  }
  return found
}"""


def opened(visitor) -> None:
    """Wait for the page's controls, also for those that are folded away."""
    visitor.page.locator(ANY).first.wait_for(timeout=30_000)
    visitor.page.wait_for_timeout(600)
    folded = visitor.page.get_by_text("Training budget, and departures")
    if folded.count():
        folded.first.click()
    visitor.settle()


def state(visitor) -> list[list[str]]:
    visitor.page.wait_for_timeout(250)
    return visitor.page.evaluate(STATE)


def change(visitor, control) -> bool:
    """Give a control another value, as a person would; False where it has no other."""
    page, kind = visitor.page, control.get_attribute("data-testid")
    control.scroll_into_view_if_needed()
    match kind:
        case "stSelectbox":
            control.locator("input").first.click()
            options = page.get_by_role("option")
            options.first.wait_for(timeout=20_000)
            other = [o for o in options.all() if o.get_attribute("aria-selected") != "true"]
            if not other:
                page.keyboard.press("Escape")
                return False
            other[-1].click()
        case "stMultiSelect":
            chosen = control.get_by_role("button", name="Remove")
            if chosen.count() > 1:
                chosen.first.click()
            else:
                control.locator("input").first.click()
                page.get_by_role("option").first.click()
            page.keyboard.press("Escape")
        case "stSlider":
            thumb = control.get_by_role("slider").first
            before = thumb.get_attribute("aria-valuenow") or thumb.input_value()
            thumb.focus()
            page.keyboard.press("ArrowRight")
            page.wait_for_timeout(80)
            if before == (thumb.get_attribute("aria-valuenow") or thumb.input_value()):
                page.keyboard.press("ArrowLeft")
        case "stNumberInput":
            box = control.locator("input")
            value, step, most = (float(box.get_attribute(name) or "nan") for name in ("value", "step", "max"))
            box.fill(f"{value - step if value + step > most else value + step:g}")
            box.press("Enter")
        case "stTextInput":
            box = control.locator("input")
            label, value = box.get_attribute("aria-label") or "", box.input_value()
            box.fill({"Seeds": "0, 3", "Sparsities": "0.25, 0.75"}.get(label.partition(":")[0], f"{value}1"))
            box.press("Enter")
        case "stCheckbox":
            control.locator("label").first.click()
        case "stButtonGroup":
            buttons = control.locator("button, [role=radio]")
            active = [
                "true" in (b.get_attribute("aria-checked"), b.get_attribute("aria-pressed")) for b in buttons.all()
            ]
            if all(active):
                return False
            buttons.nth(active.index(False)).click()
    visitor.settle()
    return True


def drawn(visitor, controls: int) -> None:
    """Wait until as many controls are there, on a busy machine a while after the page's head; folded ones come later."""
    for _ in range(60):
        opened(visitor)
        if len(state(visitor)) >= controls:
            return
        visitor.page.wait_for_timeout(250)


@pytest.mark.parametrize("path", PAGES)
def test_every_control_survives_the_link(visit, path):
    me = visit()
    me.go(f"{path}{PAGES[path]}")
    opened(me)
    tried, i = 0, 0
    while i < me.page.locator(ANY).count():
        before = state(me)
        if change(me, me.page.locator(ANY).nth(i)):
            assert state(me) != before, f"control {i} did not move: {before[i]}"
            tried += 1
        i += 1
    assert tried > 0
    me.page.wait_for_timeout(700)  # what the moving comparison tells comes a moment later
    me.settle()
    mine = state(me)
    other = visit()
    other.page.goto(me.page.url)
    other.page.locator("h1").first.wait_for(timeout=30_000)
    drawn(other, len(mine))
    opened(other)
    assert state(other) == mine

    # and who comes back by the menu finds them so
    for name in ("papers" if path == "methods" else "methods", path):
        me.page.locator(f"a[data-testid=stSidebarNavLink][href$='/{name}']").click()
        me.page.wait_for_url(re.compile(rf"/{name}(\?|$)"), timeout=10_000)
        me.page.wait_for_timeout(1200)
        me.settle()
    drawn(me, len(mine))
    opened(me)
    assert state(me) == mine


def test_taking_all_runs_away_leaves_none_and_says_what_to_do(visit):
    me = visit()
    me.go("curves")
    opened(me)
    runs = me.page.get_by_test_id("stMultiSelect").first
    while (chosen := runs.get_by_role("button", name="Remove")).count():
        chosen.first.click()
        me.settle()
    me.page.get_by_text("Choose").first.wait_for(timeout=10_000)
    assert not me.page.get_by_test_id("stException").count()
    assert me.page.get_by_test_id("stSelectbox").first.locator("input").input_value() == "LeNet-300-100 on Digits"


def test_a_click_on_a_layer_s_bar_chooses_it_here_and_on_the_other_pages(visit):
    me = visit()
    me.go("saliency")
    opened(me)
    menu = me.page.get_by_test_id("stSelectbox").filter(has_text="Layer").locator("input")
    assert menu.input_value().startswith("3:")
    bars = me.page.locator(".st-key-layers-plot .barlayer .trace").first.locator(".point")
    bars.first.scroll_into_view_if_needed()
    for _ in range(2):  # the second click on the same bar keeps it
        box = bars.first.bounding_box()  # Plotly lays a plane over its bars, which takes the clicks
        me.page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        me.page.wait_for_url(re.compile("layer=1(&|$)"), timeout=10_000)
        me.settle()
        assert menu.input_value().startswith("1:")
    me.page.get_by_test_id("stSidebarNavLink").get_by_text("Jacobians").click()
    me.page.get_by_role("heading", name="Jacobians", exact=True).wait_for(timeout=10_000)
    opened(me)
    assert (
        me.page.get_by_test_id("stSelectbox").filter(has_text="Layer").locator("input").input_value().startswith("1:")
    )
    assert "layer=1" in me.page.url

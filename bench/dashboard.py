"""How fast the dashboard is: ``python bench/dashboard.py``. Writes ``bench/results/dashboard.json``.

Cold: from the command to the sample comparison drawn in Chromium, server and browser profile both new. Then a reload, a
rerun of a page with one figure, and moves of Compare's sparsity slider. Medians; Chromium runs on the same machine.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "browser")]

from playwright.sync_api import Browser, Page, sync_playwright  # noqa: E402
from served import CHROMIUM, FLAGS, serve  # noqa: E402

PANELS = 16
MOVES = """async (n) => {
  const slider = document.querySelector('input[type=range]') ?? [...document.querySelectorAll('*')].map(
    (e) => e.shadowRoot?.querySelector('input[type=range]')).find(Boolean)
  const times = []
  for (let i = 0; i < n; i++) {
    const max = Number(slider.max), began = performance.now()
    slider.value = String(Number(slider.value) >= max ? 0 : Number(slider.value) + 1)
    slider.dispatchEvent(new Event('input', { bubbles: true }))
    await new Promise((done) => requestAnimationFrame(() => setTimeout(done)))
    times.push(performance.now() - began)
    await new Promise((done) => setTimeout(done, 60))
  }
  return times
}"""


def timed(action: Callable[[], object]) -> float:
    """Seconds that an action takes."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def drawn(page: Page) -> None:
    """Wait for the comparison: every panel has a curve."""
    page.locator("svg[data-view] path").nth(PANELS).wait_for(timeout=60_000)


def cold(browser: Browser, folder: Path) -> tuple[float, float]:
    """Seconds from starting the server to the comparison, and of a reload."""
    began = time.perf_counter()
    server = serve(folder / "store")
    try:
        page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
        page.goto(server.url)
        drawn(page)
        first = time.perf_counter() - began
        again = timed(lambda: (page.reload(), drawn(page)))
        page.context.close()
    finally:
        server.stop()
    return first, again


def moves(browser: Browser, folder: Path) -> tuple[list[float], list[float]]:
    """Milliseconds of 40 slider moves on Compare, 4 x 4 panels; seconds of 5 reruns of Curves."""
    server = serve(folder / "store")
    try:
        page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
        page.goto(server.url)
        drawn(page)
        page.wait_for_timeout(1500)
        times = page.evaluate(MOVES, 40)
        page.goto(f"{server.url}/curves")
        page.locator(".js-plotly-plot .scatterlayer").first.wait_for()
        page.wait_for_timeout(1500)
        reruns = []
        for name in ("right after pruning", "after training") * 3:
            button = page.get_by_test_id("stButtonGroup").get_by_text(name, exact=True)
            reruns.append(timed(lambda b=button: (b.click(), page.wait_for_timeout(30), _settled(page))))
        page.context.close()
    finally:
        server.stop()
    return times, reruns[1:]


def _settled(page: Page) -> None:
    page.locator("[data-testid=stApp][data-test-script-state=notRunning]").wait_for()


def main() -> None:
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        starts = []
        for _ in range(5):
            with tempfile.TemporaryDirectory() as folder:
                starts.append(cold(browser, Path(folder)))
        with tempfile.TemporaryDirectory() as folder:
            slider, reruns = moves(browser, Path(folder))
        browser.close()
    result = {
        "cold_start_to_comparison_s": median(first for first, _ in starts),
        "cold_starts_s": [round(first, 2) for first, _ in starts],
        "reload_s": median(again for _, again in starts),
        "slider_move_ms": {
            "median": median(slider),
            "p95": sorted(slider)[int(0.95 * len(slider))],
            "moves": len(slider),
        },
        "rerun_curves_s": median(reruns),
        "load_average_at_end": os.getloadavg()[0],
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "versions": {name: version(name) for name in ("streamlit", "plotly", "torch", "playwright")}
        | {"python": platform.python_version()},
    }
    path = ROOT / "bench" / "results" / "dashboard.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()

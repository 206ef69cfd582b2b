"""How fast the dashboard is: ``python bench/dashboard.py``. Writes ``bench/results/dashboard.json``.

Cold: from the command to the sample comparison drawn in Chromium, server and browser profile both new. Then a reload, moves
of Compare's sparsity slider and choices of its layer; and page by page reruns (from the key or click until everything is
drawn), the server's part of them, bytes, traces and points. Medians; Chromium runs on the same machine.
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
KEY = ("ArrowLeft", "ArrowRight")
# page -> how a rerun is asked for, and what the budget calls it
RERUNS = {
    "saliency": ("slider", "detail"),
    "spectra": ("slider", "detail"),
    "jacobians": ("slider", "detail"),
    "curves": ("pill", "overview"),
    "methods": ("pill", "overview"),
    "tour": ("pill", "overview"),
}
PILLS = {
    "curves": ("after pruning, before training", "after training"),
    "methods": ("SNIP", "GraSP"),
    "tour": ("2", "1"),
}
DRAWN = """() => [...document.querySelectorAll('.js-plotly-plot')].map((plot) => ({
  traces: plot.data.length,
  points: Math.max(0, ...plot.data.map((t) => (t.x?.length ?? t.x?._inputArray?.length ?? t.z?.length ?? 0))),
}))"""
FIND = """const find = (what) => [document, ...[...document.querySelectorAll('*')].map((e) => e.shadowRoot).filter(Boolean)]
    .map((root) => root.querySelector(what)).find(Boolean)
  const painted = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done)))
  const times = []"""
MOVES = f"""async (n) => {{
  {FIND}
  const slider = find('input[type=range].slider')
  for (let i = 0; i < n; i++) {{
    const began = performance.now()
    slider.value = String(Number(slider.value) >= Number(slider.max) ? 0 : Number(slider.value) + 1)
    slider.dispatchEvent(new Event('input', {{ bubbles: true }}))
    await painted()
    times.push(performance.now() - began)
    await new Promise((done) => setTimeout(done, 60))
  }}
  return times
}}"""
CHOICES = f"""async (n) => {{
  {FIND}
  const menu = find('select.menu')
  for (let i = 0; i < n; i++) {{
    const began = performance.now()
    menu.value = String((Number(menu.value) + 1) % menu.options.length)
    menu.dispatchEvent(new Event('change', {{ bubbles: true }}))
    await painted()
    times.push(performance.now() - began)
    await new Promise((done) => setTimeout(done, 600)) // what the page is told comes 400 ms later
  }}
  return times
}}"""


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


def moves(page: Page, base: str) -> tuple[list[float], list[float]]:
    """Milliseconds of 40 slider moves and of 20 choices of a layer, in the comparison of four runs."""
    page.goto(base)
    drawn(page)
    page.wait_for_timeout(1500)
    return page.evaluate(MOVES, 40), page.evaluate(CHOICES, 20)


class Wire:
    """What goes over the page's WebSocket: when and how much, by Chromium's own clock."""

    def __init__(self, page: Page):
        session = page.context.new_cdp_session(page)
        session.send("Network.enable")
        session.on("Network.webSocketFrameSent", lambda event: self.sent.append(event["timestamp"]))
        session.on("Network.webSocketFrameReceived", self._received)
        self.clear()

    def clear(self) -> None:
        self.sent: list[float] = []
        self.received: list[tuple[float, int]] = []

    def _received(self, event: dict) -> None:
        self.received.append((event["timestamp"], len(event["response"]["payloadData"]) * 3 // 4))  # base64

    @property
    def bytes(self) -> int:
        return sum(size for _, size in self.received)

    @property
    def seconds(self) -> float:
        """From the first message that asked to the last that answered."""
        return self.received[-1][0] - self.sent[0]


def reruns(page: Page, base: str) -> dict[str, dict]:
    """Page by page: medians of six reruns, after two that fill the caches, and what came with the page."""
    wire, found = Wire(page), {}
    for name, (how, kind) in RERUNS.items():
        wire.clear()
        page.goto(f"{base}/{name}")
        page.locator("h1").first.wait_for()
        page.wait_for_timeout(2500)
        whole, figures = wire.bytes, page.evaluate(DRAWN)
        times, server, sizes = [], [], []
        for i in range(8):
            if how == "slider":
                thumb = page.get_by_role("slider").first
                thumb.focus()
            else:
                button = page.get_by_test_id("stButtonGroup").get_by_text(PILLS[name][i % 2], exact=True).first
                button.scroll_into_view_if_needed()
            page.wait_for_timeout(700)
            wire.clear()
            act = (lambda i=i: page.keyboard.press(KEY[i % 2])) if how == "slider" else (lambda b=button: b.click())
            times.append(timed(lambda act=act: (act(), page.wait_for_timeout(30), _settled(page))))
            page.wait_for_timeout(100)
            server.append(wire.seconds)
            sizes.append(wire.bytes)
        found[name] = {
            "kind": kind, "rerun_ms": round(1000 * median(times[2:])), "slowest_ms": round(1000 * max(times[2:])),
            "server_ms": round(1000 * median(server[2:])), "server_slowest_ms": round(1000 * max(server[2:])),
            "bytes_rerun": median(sizes[2:]), "bytes_page": whole, "figures": len(figures),
            "traces": max((f["traces"] for f in figures), default=0), "points": max((f["points"] for f in figures), default=0),
        }  # fmt: skip
        print(name, found[name], file=sys.stderr)
    return found


def _settled(page: Page) -> None:
    """No script runs, and what it sent has been drawn: two frames have passed."""
    page.locator("[data-testid=stApp][data-test-script-state=notRunning]").wait_for()
    page.evaluate(
        "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done))))"
    )


def main() -> None:
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        starts = []
        for _ in range(5):
            with tempfile.TemporaryDirectory() as folder:
                starts.append(cold(browser, Path(folder)))
        with tempfile.TemporaryDirectory() as folder:
            server = serve(Path(folder) / "store")
            try:
                page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
                slider, clicks = moves(page, server.url)
                pages = reruns(page, server.url)
            finally:
                server.stop()
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
        "layer_choice_ms": {"median": median(clicks), "p95": sorted(clicks)[int(0.95 * len(clicks))]},
        "pages": pages,
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

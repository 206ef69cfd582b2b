"""Remake the screenshots of the README from the real app on its samples: ``python docs/screenshots.py``."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "tests" / "browser")]

from playwright.sync_api import sync_playwright  # noqa: E402
from served import CHROMIUM, FLAGS, serve  # noqa: E402

from pruneviz.store import Store  # noqa: E402

SHOTS = (
    ("compare", "light", 1180, ""),
    ("saliency", "dark", 1080, ""),
    ("run", "light", 820, ""),
    ("tour", "light", 860, "?step=2"),
    ("jacobians", "dark", 1080, ""),
    ("curves", "light", 980, "?x=Latency%2C+256+samples&runs={units}"),
    ("spectra", "dark", 1560, "?runs={units}"),
)
METHODS = ("magnitude", "l1-filters", "kron-obd", "kron-obs", "eigendamage")


def units() -> str:
    """The sample runs on the small CNN that remove whole units, and one that does not."""
    table = Store(readonly=True).runs()
    first = table[(table["source"] == "samples") & (table["model"] == "digits-cnn") & (table["seed"] == 0)]
    return ",".join(first.loc[first["method"] == method, "id"].iloc[0] for method in METHODS)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as started:
        server = serve(Path(folder) / "store")
        browser = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        for name, scheme, height, query in SHOTS:
            page = browser.new_context(viewport={"width": 1280, "height": height}, color_scheme=scheme).new_page()
            page.goto(f"{server.url}/{name}{query.format(units=units())}")
            page.locator("[data-testid=stApp][data-test-script-state=notRunning]").wait_for()
            page.wait_for_timeout(2500)
            page.screenshot(path=HERE / f"{name}-{scheme}.png")
        browser.close()
        server.stop()


if __name__ == "__main__":
    main()

"""A served dashboard, Chromium, and visitors who must not meet an error."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from served import CHROMIUM, FLAGS, Server, serve

EXPECTED = ("_stcore/health", "_stcore/host-config")  # Streamlit looks for its base address: a 404 under each page


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Server]:
    """A dashboard on an empty store."""
    made = serve(tmp_path_factory.mktemp("browser") / "store")
    yield made
    made.stop()


@pytest.fixture(scope="module")
def chromium():
    """Debian's Chromium, or the one that ``playwright install chromium`` brought; closed before other tests, with its event loop."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed: pip install -r requirements-dev.txt"
    )
    with playwright.sync_playwright() as started:
        try:
            browser = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        except playwright.Error:
            pytest.skip("Chromium is not here: install chromium, or run playwright install chromium")
        yield browser
        browser.close()


@dataclass
class Visitor:
    """One browser profile of its own, and what went wrong in it."""

    page: object
    server: Server
    errors: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)

    def go(self, path: str) -> None:
        """Open a page by its address and wait until its script has run."""
        self.page.goto(f"{self.server.url}/{path}")
        self.page.locator("h1").first.wait_for(timeout=30_000)
        self.settle()

    def settle(self) -> None:
        """Wait until no script runs."""
        self.page.wait_for_timeout(150)
        self.page.locator("[data-testid=stApp][data-test-script-state=notRunning]").wait_for(timeout=30_000)


@pytest.fixture
def visit(chromium, server):
    """Makes visitors; each must end without a console error and without a request to the outside."""
    made: list[tuple[object, Visitor]] = []

    def new(width: int = 1280, scheme: str = "light") -> Visitor:
        context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        visitor = Visitor(context.new_page(), server)
        made.append((context, visitor))

        def console(message) -> None:
            if message.type == "error" and not message.location.get("url", "").endswith(EXPECTED):
                visitor.errors.append(f"{message.text} {message.location.get('url', '')}")

        def request(sent) -> None:
            if not sent.url.startswith((server.url, server.url.replace("http", "ws"), "data:", "blob:")):
                visitor.outside.append(sent.url)

        visitor.page.on("console", console)
        visitor.page.on("pageerror", lambda error: visitor.errors.append(str(error)))
        visitor.page.on("request", request)
        return visitor

    yield new
    problems = [(v.errors, v.outside) for _, v in made if v.errors or v.outside]
    for context, _ in made:
        context.close()
    assert problems == []

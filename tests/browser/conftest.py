"""The real app, served on a free port, and Chromium to drive it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
EXPECTED = ("_stcore/health", "_stcore/host-config")  # Streamlit looks for its base address: a 404 under each page


@dataclass
class Server:
    """A running dashboard: where it is, what it writes to, and its process."""

    url: str
    store: Path
    process: subprocess.Popen

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def serve(store: Path) -> Server:
    """Start ``streamlit run app.py`` on a free port of 127.0.0.1 and wait until it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "streamlit",
        "run",
        "app.py",
        "--server.port",
        str(port),
        "--server.headless",
        "true",
    ]
    environment = os.environ | {"PRUNEVIZ_STORE": str(store)}
    with (store.parent / f"{store.name}.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--server.address", "127.0.0.1"], cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT
        )
    server = Server(f"http://127.0.0.1:{port}", store, process)
    for _ in range(300):
        try:
            with urllib.request.urlopen(f"{server.url}/_stcore/health", timeout=1):
                return server
        except (urllib.error.URLError, OSError):
            assert process.poll() is None, "the server ended"
            time.sleep(0.1)
    server.stop()
    raise AssertionError("the server did not answer within 30 s")


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Server]:
    """A dashboard on an empty store."""
    made = serve(tmp_path_factory.mktemp("browser") / "store")
    yield made
    made.stop()


@pytest.fixture(scope="session")
def chromium():
    """Debian's Chromium, or the one that ``playwright install chromium`` brought."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed: pip install -r requirements-dev.txt"
    )
    with playwright.sync_playwright() as started:
        path = shutil.which("chromium") or shutil.which("google-chrome")
        try:
            browser = started.chromium.launch(executable_path=path, args=FLAGS)
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

"""``pruneviz`` from any folder: the checkout's, and the wheel's where it is installed in an environment of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from served import ROOT, Server, serve

from pruneviz.basics.places import SAMPLES
from pruneviz.basics.version import __version__

pytestmark = pytest.mark.browser
of_the_wheel = pytest.mark.parametrize("pruneviz", ["wheel"], indirect=True)
THEME = tomllib.loads((ROOT / ".streamlit" / "config.toml").read_text())["theme"]


@dataclass
class Command:
    """A command line of ours, in a folder of its own."""

    words: list[str]
    environment: dict[str, str]
    folder: Path

    def __call__(self, *words: str) -> subprocess.CompletedProcess:
        environment = self.environment | {"PRUNEVIZ_STORE": str(self.folder.parent / "store")}
        return subprocess.run(
            [*self.words, *words], cwd=self.folder, env=environment, capture_output=True, text=True, check=False
        )


@pytest.fixture(scope="module", params=["checkout", "wheel"])
def pruneviz(request, tmp_path_factory) -> Command:
    """In an empty folder; the wheel's command even in one whose files have the names of packages, none of which it imports."""
    folder = tmp_path_factory.mktemp(request.param) / "anywhere"
    folder.mkdir()
    if request.param == "checkout":
        return Command([sys.executable, "-m", "pruneviz"], os.environ | {"PYTHONPATH": str(ROOT)}, folder)
    if not (command := os.environ.get("PRUNEVIZ_INSTALLED")):
        pytest.skip("the wheel is not installed elsewhere: PRUNEVIZ_INSTALLED names its command, as in .ci/run")
    for name in ("streamlit", "torch", "pruneviz"):
        (folder / f"{name}.py").write_text(f"raise SystemExit('{name} of the folder was imported')")
    return Command([command], {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}, folder)


@pytest.fixture(scope="module")
def server(pruneviz) -> Iterator[Server]:
    """What ``pruneviz`` does without a word."""
    store = pruneviz.folder.parent / "store"
    made = serve(store, pruneviz.words, folder=pruneviz.folder, environment=pruneviz.environment)
    yield made
    made.stop()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_without_a_word_it_serves_the_sample_comparison_in_our_colours(visit, scheme: str):
    me = visit(scheme=scheme)
    me.go("")
    me.page.get_by_role("heading", name="LeNet-300-100 on Digits: 4 runs side by side").wait_for()
    panels = me.page.locator(".cell[data-view=saliency] svg[role=img]")
    panels.nth(3).wait_for(timeout=30_000)
    assert all("weights" in panel.get_attribute("aria-label") for panel in panels.all())
    colour, where = "rgb({}, {}, {})", "getComputedStyle(document.querySelector('{}')).backgroundColor"
    for name, element in (("backgroundColor", ".stApp"), ("primaryColor", "[data-testid=stBaseButton-primary]")):
        asked = colour.format(*bytes.fromhex(THEME[scheme][name][1:]))
        assert me.page.evaluate(where.format(element)) == asked


@of_the_wheel
def test_a_worker_waits_beside_the_server(pruneviz, server):
    end = time.monotonic() + 90
    while not (found := json.loads(pruneviz("doctor", "--json").stdout))["workers"]:  # it imports torch first
        assert time.monotonic() < end, (server.store / "logs" / "work.log").read_text()
    assert (found["pruneviz"], found["store_health"]) == (__version__, "ok")
    assert "cpu" in found["workers"]


@of_the_wheel
def test_runs_and_reports_are_made_from_there(pruneviz):
    quick = ("--data", "xor", "--sparsity", "0.5", "--epochs", "1", "--tune-epochs", "1")
    compared = pruneviz("compare", "--methods", "magnitude,snip", *quick, "--json")
    assert compared.returncode == 0, compared.stderr
    ids = [row["id"] for row in json.loads(compared.stdout)["runs"]]
    sample = next(SAMPLES.glob("snip-*")).name
    reported = pruneviz("report", *ids, sample, "--to", "report.html")
    assert reported.returncode == 0, reported.stderr
    assert all(id_ in (pruneviz.folder / "report.html").read_text() for id_ in (*ids, sample))


@of_the_wheel
def test_a_word_that_is_no_command_ends_with_2_and_the_nearest(pruneviz):
    done = pruneviz("servee")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "pruneviz: No command called 'servee'. Did you mean 'serve'?\n"


@of_the_wheel
def test_it_says_its_version(pruneviz):
    assert pruneviz("--version").stdout == f"pruneviz {__version__}\n"

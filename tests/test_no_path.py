"""One run that collapses: every table that shows it says in words that no path is left."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import pruneviz as pv
from pruneviz.cli import terminal
from pruneviz.figures import base, compare, curves, grid, repair, report
from pruneviz.figures.report import words
from pruneviz.jobs import backend
from pruneviz.store import Store
from pruneviz.store.outcome import report as outcome

PAGE = Path(__file__).resolve().parent.parent / "pages" / "runs.py"
FINE, GONE = 0.5, 0.9999
BUDGET = {"train": {"epochs": 1}, "tune": {"epochs": 1}}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    made = Store(tmp_path_factory.mktemp("store"), samples=None)
    configs = [
        pv.RunConfig(method="random", sparsities=(FINE, GONE), probes=(), repair=kind, **BUDGET)
        for kind in ("none", "rescale")
    ]
    backend(made).carry_out(made.queue(configs), device="cpu", on_event=lambda event: None)
    yield made
    made.close()


@pytest.fixture
def runs(store):
    return [store.run(id_) for id_ in store.runs()["id"]]


def test_the_command_line_says_it(store, runs, capsys):
    found = outcome(store, [runs[0].id])
    assert [(row["sparsity"], row["connected"]) for row in found["runs"]] == [(FINE, 1.0), (GONE, 0.0)]
    assert [row["without_path"] for row in found["summary"]] == [0, 1]
    terminal.runs(found)
    fine, gone = (line for line in capsys.readouterr().out.splitlines() if line.startswith("random"))
    assert "no path left in 1" in gone
    assert "no path" not in fine


def test_the_tables_of_the_figures_say_it(runs):
    table = curves.data(runs)
    assert set(table.loc[table["without_path"] > 0, "sparsity"]) == {GONE}
    assert "no path left in 1 of 1" in base.alt(curves.plot(table))
    table = compare.data(runs)
    assert set(table.loc[table["without_path"] == 1, "x"]) == {GONE}
    table = repair.data(runs)
    assert {s: set(part) for s, part in table.groupby("sparsity")["without_path"]} == {FINE: {0}, GONE: {1}}


def test_the_report_and_the_moving_comparison_say_it(runs):
    found = words.accuracy(runs)
    assert all(row["cells"][1].endswith(", no path") and "path" not in row["cells"][0] for row in found["rows"])
    assert "none is left from input to output" in report(runs)
    assert all(run["connected"] == [1, 0] for run in grid.payload(runs)["runs"])


def test_the_runs_page_says_it(store, runs, monkeypatch):
    testing = pytest.importorskip("streamlit.testing.v1", reason="streamlit is not installed")
    from pruneviz.ui import live, stores

    said = live.summary(runs[0])
    assert said.endswith("(no path left)")
    assert said.count("no path") == 1
    monkeypatch.setenv("PRUNEVIZ_STORE", str(store.path))
    monkeypatch.setattr("streamlit.page_link", lambda *args, **named: None)
    stores._opened.clear()
    page = testing.AppTest.from_file(str(PAGE), default_timeout=60).run()
    stores._opened.clear()
    assert not page.exception
    table = page.dataframe[0].value.set_index("id")
    assert all("no path is left from input to output" in table.loc[run.id, "Warnings"] for run in runs)


def test_warnings_are_kept_with_the_run(runs):
    assert all(any("no path" in text for text in json.loads(run.row["warnings"])) for run in runs)

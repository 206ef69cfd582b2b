"""The report: one file, everything in it, nothing from outside, nothing a run could smuggle in."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise

import pandas as pd
import pytest

import pruneviz as pv
from pruneviz.basics.errors import InvalidSetting
from pruneviz.figures import FIGURES, base
from pruneviz.methods import METHODS
from pruneviz.plan.about import about
from pruneviz.plan.arguments import command
from pruneviz.records.about import plain_text
from pruneviz.store import SAMPLES, Run
from pruneviz.store.samples import Samples

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)> & \"quoted\" 'too' {{ 7 * 7 }} \u2028"


class Page(HTMLParser):
    """The elements, ids, texts and scripts of a page, as a browser's parser finds them."""

    def __init__(self, text: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.scripts: list[tuple[dict[str, str], str]] = []
        self.said: list[str] = []
        self._inside = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag == "script":
            self.scripts.append((dict(attrs), ""))
        self._inside = tag

    def handle_data(self, data):
        if self._inside == "script":
            about, text = self.scripts[-1]
            self.scripts[-1] = (about, text + data)
        elif self._inside != "style":
            self.said.append(data)

    def handle_endtag(self, tag):
        self._inside = ""

    def all(self, tag: str) -> list[dict[str, str]]:
        return [about for name, about in self.elements if name == tag]

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.said))

    @property
    def data(self) -> dict:
        return json.loads(next(text for about, text in self.scripts if about.get("id") == "data"))


@pytest.fixture(scope="module")
def runs() -> list[Run]:
    """Four methods on one network, one of them with filters."""
    wanted = ("snip", "magnitude", "obs", "kron-obs")
    found = [r for r in Samples(SAMPLES).values() if (r.config.model, r.config.dataset) == ("lenet-300-100", "digits")]
    return [next(r for r in found if r.config.method == method and r.config.probes) for method in wanted]


@pytest.fixture(scope="module")
def plain() -> list[Run]:
    """Two runs without arrays, for what is not about figures: most charts have nothing to draw."""
    found = [r for r in Samples(SAMPLES).values() if (r.config.model, r.config.dataset) == ("lenet-300-100", "digits")]
    return [run for run in found if not run.config.probes][:2]


@pytest.fixture(scope="module")
def page(runs) -> Page:
    return Page(pv.figures.report(runs))


def unpacked(sent: dict) -> pd.DataFrame:
    """A figure's table as the page holds it."""
    return pd.read_csv(io.BytesIO(gzip.decompress(base64.b64decode(sent["csv"]))))


def test_every_figure_with_data_is_there_with_caption_formula_alt_text_and_table(page, runs):
    shown = {key: figure.data(runs) for key, figure in FIGURES.items()}
    shown = {key: table for key, table in shown.items() if len(table)}
    assert (
        set(page.data["figures"]) == set(shown) >= {"saliency", "spectra", "jacobians", "curves", "compare", "change"}
    )
    labels = {about.get("aria-label") for about in page.all("figure")}
    for key, table in shown.items():
        figure, sent, chart = FIGURES[key], page.data["figures"][key], FIGURES[key].plot(table)
        assert figure.caption.split(". ")[0] in page.text
        assert base.alt(chart) in labels
        assert len(sent["chart"]["data"]) == len(chart.data)
        back = unpacked(sent)
        assert list(back.columns) == list(table.columns)
        assert len(back) == len(table)
    assert len(page.all("math")) == len(shown)


def test_the_moving_grid_has_its_data(page, runs):
    grid = page.data["grid"]
    assert grid["data"]["runs"] == pv.figures.grid.payload(runs)["runs"]
    assert 'class="slider"' in grid["html"]


def test_it_says_how_each_run_was_made_what_came_out_and_how_to_make_it_again(page, runs):
    for run in runs:
        assert METHODS[run.config.method].paper.citation in page.text
        assert command(run.config) in page.text
        assert run.id in page.text
        tuned = run.metrics[(run.metrics["stage"] == "tuned") & (run.metrics["split"] == "test")]
        for value in tuned.loc[tuned["metric"] == "accuracy", "value"]:
            assert base.percent(value) in page.text
    assert "5 rounds of pruning and training" in page.text  # magnitude
    assert "at most 97.8%" in page.text  # Kron-OBS cannot reach 98%
    assert "torch" in page.text


def test_it_names_departures_with_what_they_change():
    departing = next(r for r in Samples(SAMPLES).values() if r.config.repair == "rescale" and r.config.departures)
    text = Page(pv.figures.report([departing])).text
    assert "Departs from its paper" in text
    assert "layers are rescaled" in text


def test_the_page_is_a_document_that_reads_in_order(page):
    assert page.all("html") == [{"lang": "en"}]
    assert any(about.get("name") == "viewport" for about in page.all("meta"))
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    ids = [about["id"] for _, about in page.elements if "id" in about]
    assert len(ids) == len(set(ids))
    assert all(about["href"][1:] in ids for about in page.all("a") if about.get("href", "").startswith("#"))


def test_nothing_is_fetched_and_no_other_script_may_run(page):
    policy = next(m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "http" not in policy
    run = [text for about, text in page.scripts if about.get("type") != "application/json"]
    assert len(run) == 2
    for script in run:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert sum("plotly.js v" in script[:200] for script in run) == 1
    assert not [about for tag, about in page.elements if tag in ("link", "iframe", "img") or "src" in about]


def test_hostile_texts_of_a_run_stay_text(plain):
    row = {**plain[0].row, "tag": HOSTILE, "error": HOSTILE, "warnings": json.dumps([HOSTILE]), "code": HOSTILE}
    bad = replace(plain[0], row=row, state="failed")
    found = Page(pv.figures.report([bad, plain[1]]))
    assert len(found.scripts) == 3
    assert found.all("img") == []
    assert not [about for _, about in found.elements if any(name.startswith("on") for name in about)]
    assert found.text.count("<script>alert(1)</script>") >= 4
    assert "{{ 7 * 7 }}" in found.text


def test_a_hostile_layer_name_stays_inside_the_data(runs, monkeypatch):
    plain = Run.layers
    monkeypatch.setattr(Run, "layers", lambda run, name: [HOSTILE + layer for layer in plain(run, name)])
    found = Page(pv.figures.report(runs[:1]))
    assert len(found.scripts) == 3
    assert found.all("img") == []
    assert found.data["grid"]["data"]["layers"][0]["name"].startswith(plain_text(HOSTILE))


def test_a_run_that_came_to_nothing_is_reported_with_its_reason(plain):
    config = pv.RunConfig(method="snip")
    row = {**plain[0].row, "error": "The data are gone.", "finished": None, "started": None}
    nothing = Run(
        config.id,
        config,
        about(config),
        "failed",
        row,
        plain[0].folder / "none",
        lambda table: getattr(plain[0], table)[:0],
    )
    alone, beside = Page(pv.figures.report([nothing])), Page(pv.figures.report([plain[1], nothing]))
    assert alone.data == {"grid": None, "figures": {}}
    for found in (alone, beside):
        assert "failed. The data are gone." in found.text
        assert command(config) in found.text


def test_what_is_looked_at_is_shown_first(runs):
    found = Page(pv.figures.report(runs[:1], sparsity=0.5, layer="1"))
    assert found.data["grid"]["data"]["wish"] == {"sparsity": 0.5, "layer": "1"}
    assert set(unpacked(found.data["figures"]["saliency"])["sparsity"]) == {0.5}


def test_a_run_of_another_version_says_that_its_command_makes_another(plain):
    older = replace(plain[0], id=plain[0].id[:-12] + "0" * 12)
    assert "makes a run with another id" in Page(pv.figures.report([older])).text
    assert "makes a run with another id" not in Page(pv.figures.report(plain[:1])).text


@pytest.mark.parametrize("count", [0, 7])
def test_a_report_takes_one_to_six_runs(count: int):
    runs = list(Samples(SAMPLES).values())[:count]
    with pytest.raises(InvalidSetting, match=f"1 to 6 runs; found {count}"):
        pv.figures.report(runs)


def test_a_report_of_six_runs_stays_below_seven_megabytes():
    found = [r for r in Samples(SAMPLES).values() if r.config.model == "lenet-300-100" and r.config.probes]
    assert len(pv.figures.report(found[:6]).encode()) < 7e6


def test_the_command_line_writes_the_same_page(runs, plain, tmp_path, capsys):
    from pruneviz.cli import main

    target = tmp_path / "report.html"
    ids = [runs[0].id, plain[0].id]
    assert main(["report", *ids, "--to", str(target), "--store", str(tmp_path / "store")]) == 0
    assert capsys.readouterr().out.strip() == str(target)
    assert set(Page(target.read_text()).data["figures"]) >= {"saliency", "curves"}


@pytest.mark.parametrize(
    ("ids", "to", "message"),
    [
        (["snip-lenet-300-100-digits-000000000000"], "x.html", "holds no run"),
        (["nonsense"], "x.html", "is not a run's id"),
        (
            [next(id_ for id_, run in Samples(SAMPLES).items() if not run.config.probes)],
            "no/such/folder/x.html",
            "cannot be written",
        ),
    ],
)
def test_wrong_arguments_end_with_2_and_the_mend(ids, to, message, tmp_path, capsys):
    from pruneviz.cli import main

    assert main(["report", *ids, "--to", str(tmp_path / to), "--store", str(tmp_path / "store")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / to).exists()

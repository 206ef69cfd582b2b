"""Runs of methods, networks and data that are not known here, and runs that cannot be read: looking goes on, and makes no link."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
from functools import partial
from pathlib import Path

import pytest
from strangers import cut, furnish, garbled, waiting

import pruneviz as pv
from pruneviz.basics.errors import StoreError
from pruneviz.cli import main
from pruneviz.figures import FIGURES, grid
from pruneviz.records.arrays import Jacobians, Saliency, Spectra
from pruneviz.records.stages import Stage
from pruneviz.store import UNREADABLE, Store

PAGES = sorted((Path(__file__).resolve().parent.parent / "pages").glob("*.py"))
LINK = re.compile(r"(?<!\\)\]\(http://evil|(?<!\u2060)http://evil|(?<!\\)<a ")


@pytest.fixture(scope="module")
def furnished(tmp_path_factory):
    return furnish(tmp_path_factory.mktemp("strangers"))


@pytest.fixture
def places(furnished, tmp_path):
    """A store and samples of one test's own."""
    return [Path(shutil.copytree(place, tmp_path / place.name)) for place in furnished]


@pytest.fixture
def store(places):
    made = Store(places[0], samples=places[1])
    yield made
    made.close()


@pytest.fixture
def page(places, monkeypatch):
    """Opens pages on that store and those samples."""
    testing = pytest.importorskip("streamlit.testing.v1", reason="streamlit is not installed")
    import streamlit

    from pruneviz.ui import stores, tour

    monkeypatch.setattr(stores, "Store", partial(Store, places[0], samples=places[1]))
    monkeypatch.setattr(tour, "SAMPLES", places[1])
    for name in ("streamlit.page_link", "streamlit.delta_generator.DeltaGenerator.page_link"):
        monkeypatch.setattr(name, lambda *args, **named: None)  # a page stands alone here
    for known in (stores._opened, tour.samples):
        getattr(known, "clear", getattr(known, "cache_clear", None))()

    def opened(path: Path | str, **query: str):
        made = testing.AppTest.from_file(
            str(PAGES[0].with_name(f"{path}.py") if isinstance(path, str) else path), default_timeout=120
        )
        for name, value in query.items():
            made.query_params[name] = value
        made.run()
        assert not made.exception
        return made

    streamlit.cache_data.clear()  # what is kept of other tests' stores
    streamlit.cache_resource.clear()
    yield opened
    stores._opened.clear()
    tour.samples.cache_clear()


def strangers(store: Store) -> list[str]:
    table = store.runs()
    return sorted(table.loc[table["method"].isin(["sparse-magic", "dense-magic"]), "id"])


def said(made) -> list[str]:
    kinds = (made.markdown, made.caption, made.header, made.error, made.warning, made.info, made.title, made.subheader)
    labels = [part.label for kind in (made.button, made.expander, made.selectbox, made.multiselect) for part in kind]
    return [part.value for kind in kinds for part in kind] + labels


def charts(made) -> list[str]:
    return [part.proto.spec for part in made.get("plotly_chart")]


def ids(made) -> set[str]:
    return set(made.dataframe[0].value["id"])


def test_a_stranger_carries_what_it_takes_to_look_at_it(store):
    for run in map(store.run, strangers(store)):
        assert run.about.colour == "#808080"
        assert run.about.place == 3
        assert "<" not in run.about.method
        assert "frobnicate" not in run.config.model_dump()
    assert {store.run(id_).source for id_ in strangers(store)} == {"store", "samples"}


@pytest.mark.parametrize("key", FIGURES)
def test_every_figure_draws_strangers_beside_known_runs(key, store):
    runs = [store.run(id_) for id_ in store.runs()["id"]]
    alone = [store.run(id_) for id_ in strangers(store)]
    for chosen in (runs, alone, alone[:1]):
        table = FIGURES[key].data(chosen)
        drawn = FIGURES[key].plot(table)
        assert not re.search(r"<a\b", drawn.to_json())
        assert key == "repair" or set(table.get("run", table.get("label"))) >= (
            {run.id for run in chosen} & set(table.get("run", ()))
        )
    if key not in ("agreement", "repair", "eigenvectors", "first", "inputs"):
        assert set(FIGURES[key].data(alone)["method"]) - {""} == {"sparse-magic", "dense-magic"}


def test_the_grid_and_the_report_hold_strangers_and_no_link(store):
    runs = [store.run(id_) for id_ in strangers(store)]
    sent = grid.payload(runs)
    assert [each["colour"] for each in sent["runs"]] == ["#808080"] * 2
    report = pv.figures.report(runs)
    page = report.split('<script type="application/json"')[0]
    assert re.findall(r'href="([^"#][^"]*)"', page) == []
    assert "javascript:alert(1)" in page
    assert "There is no command for it here" in page
    assert "<a href=" not in json.dumps(sent)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_every_page_shows_strangers_and_makes_no_link(path, page, store):
    found = ",".join(strangers(store))
    opened = page(path, **({"runs": found} if path.stem != "runs" else {"picked": found}))
    assert [text for text in said(opened) if LINK.search(text)] == []
    assert [spec for spec in charts(opened) if re.search(r"<a\b", spec)] == []
    if path.stem in ("compare", "curves", "jacobians", "saliency", "spectra"):
        assert len(opened.multiselect[0].value) == 2
        assert charts(opened) or path.stem == "compare"
        assert not opened.error


def test_a_stranger_s_settings_are_shown_and_its_command_is_not(page, store):
    made = page("runs", picked=",".join(strangers(store)))
    assert "2 ticked" in "\n".join(said(made))
    for box in made.expander:
        assert box.label == "Configuration and log"


def test_a_stopped_run_of_an_unknown_method_is_not_resumed_but_says_why(page, places, store):
    (mine,) = [id_ for id_ in strangers(store) if store.run(id_).source == "store"]
    db = sqlite3.connect(places[0] / "store.sqlite")
    db.execute("update runs set state = 'failed', error = 'no worker' where id = ?", (mine,))
    db.commit()
    db.close()
    for made in (page("runs", picked=mine), page("run", watch=mine)):
        assert "No method called" in "\n".join(said(made)).replace("\\", "")
        assert "Resume" not in [button.label for button in made.button]


# what cannot be read


def breakage(places: list[Path]) -> dict[str, Path]:
    """A run of the store and a sample with a file cut in half, a sample whose run.json is no JSON."""
    own, samples = places[0] / "runs", places[1]
    broken = {
        "cut": next(own.glob("magnitude-*")),
        "sample": next(samples.glob("random-*")),
        "json": next(samples.glob("sparse-magic-*")),
    }
    cut(broken["cut"] / f"{Saliency.name(0.9)}.safetensors")
    cut(broken["sample"] / f"{Spectra.name(stage=Stage.START)}.safetensors")
    (broken["json"] / "run.json").write_text("{ this is no JSON")
    return broken


def test_runs_that_cannot_be_read_are_listed_with_the_reason_and_go(places):
    broken = breakage(places)
    store = Store(places[0], samples=places[1])
    table = store.runs().set_index("id")
    for folder in broken.values():
        assert table.loc[folder.name, "state"] == UNREADABLE
        assert table.loc[folder.name, "problem"]
    with pytest.raises(StoreError):
        store.run(broken["cut"].name)
    assert store.delete(broken["cut"].name)
    store.close()


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_no_page_falls_over_a_broken_run(path, places, page):
    breakage(places)
    page(path)
    everything = ",".join(folder.name for place in (places[0] / "runs", places[1]) for folder in place.iterdir())
    made = page(path, **({"runs": everything} if path.stem != "runs" else {"picked": everything}))
    if path.stem in ("curves", "jacobians", "saliency", "spectra"):
        assert charts(made)


def test_an_unknown_setting_makes_a_run_unreadable_and_nothing_else(places, page):
    folder = next(places[1].glob("snip-*"))
    content = json.loads((folder / "run.json").read_text())
    content["config"] |= {"start": "halfway"}
    (folder / "run.json").write_text(json.dumps(content))
    made = page("runs")
    states = dict(zip(made.dataframe[0].value["id"], made.dataframe[0].value["State"], strict=True))
    assert list(states[folder.name]) == ["unreadable"]
    assert sum(list(state) == ["finished"] for state in states.values()) == 4


@pytest.mark.parametrize(
    "config",
    [
        "",
        "[]",
        '{"method": ["x"], "width": "wide", "sparsities": 5, "seed": {}, "start": [1]}',
        '{"width": 1e999, "sparsities": ["a"]}',
    ],
)
def test_a_configuration_that_says_nonsense_is_a_row_of_its_own(config, places, page):
    (name,) = [folder.name for folder in (places[0] / "runs").glob("magnitude-*")]
    db = sqlite3.connect(places[0] / "store.sqlite")
    db.execute("update runs set config = ?, about = '[1' where id = ?", (config, name))
    db.commit()
    db.close()
    made = page("runs", picked=name)
    assert name in ids(made)
    assert "Delete for good" in [button.label for button in made.button]
    assert "runs side by side" in page("home").header[0].value


def test_the_runs_page_says_what_is_wrong_and_deletes_it(places, page):
    broken = breakage(places)
    made = page("runs", picked=f"{broken['cut'].name},{broken['json'].name}")
    texts = "\n".join(said(made)).replace("\\", "").replace("\u2060", "")
    assert "missing or cut" in texts
    assert "cannot be read" in texts
    next(button for button in made.button if button.label == "Delete for good").click().run()
    assert not made.exception
    assert broken["cut"].name not in ids(made)
    assert broken["json"].name in ids(made)  # a sample is no run of this store


def test_a_figure_that_cannot_be_computed_says_so_in_its_place_and_the_others_are_drawn(places, page):
    for folder in (*(places[0] / "runs").glob("magnitude-*"), *places[1].glob("snip-*")):
        garbled(folder / f"{Jacobians.name(stage=Stage.START)}.safetensors")
    made = page("jacobians")
    texts = "\n".join(part.value for part in made.error).replace("\\", "")
    assert "Jacobian singular values of each layer: " in texts
    assert "cannot be read" in texts
    assert charts(page("spectra"))
    assert charts(page("saliency"))
    assert "Side by side" in "\n".join(part.value for part in page("compare").error).replace("\\", "")


def test_a_report_says_in_a_figure_s_place_why_it_is_not_there(places, store):
    folder = next(places[1].glob("snip-*"))
    garbled(folder / f"{Jacobians.name(stage=Stage.START)}.safetensors")
    page = pv.figures.report([store.run(folder.name)])
    assert "jacobians-start.safetensors of run" in page
    assert 'data-figure="spectra"' in page
    assert 'data-figure="jacobians"' not in page


def test_the_command_line_works_beside_broken_runs(places, monkeypatch, tmp_path, capsys):
    breakage(places)
    monkeypatch.setattr("pruneviz.store.Store", partial(Store, samples=places[1]))
    good = next(places[1].glob("snip-*")).name
    assert main(["doctor", "--store", str(places[0]), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["runs"][UNREADABLE] == 3
    assert main(["report", good, "--to", str(tmp_path / "x.html"), "--store", str(places[0])]) == 0
    assert (
        main(
            [
                "report",
                next(places[1].glob("random-*")).name,
                "--to",
                str(tmp_path / "y.html"),
                "--store",
                str(places[0]),
            ]
        )
        == 1
    )
    assert "pruneviz: " in capsys.readouterr().err


# a run of the store under a sample's id


@pytest.mark.parametrize("end", ["queued", "running", "failed", "cancelled"])
def test_an_unfinished_run_with_a_sample_s_id_hides_no_sample_and_is_watched(end, store, page):
    id_ = waiting(store)
    if end in ("running", "failed"):
        attempt = store.claim(id_, device="cpu", worker=1, code="")
        if end == "failed":
            from pruneviz.basics.events import Failed

            store.record(Failed(id_, "It broke."), attempt)
    if end == "cancelled":
        store.cancel(id_)
    home = page("home")
    assert "runs side by side" in home.header[0].value
    assert store.run(id_).state == "succeeded"
    for name in ("saliency", "curves"):
        assert id_ in page(name, runs=id_).multiselect[0].value
    watched = page("run", watch=id_)
    assert {"queued": "Next in the queue", "running": "Cancel", "failed": "It broke", "cancelled": "cancelled"}[
        end
    ] in "\n".join(said(watched))


def test_the_runs_page_tells_a_sample_from_the_run_with_its_id(store, page):
    id_ = waiting(store)
    made = page("runs", picked=f"{id_},{id_}@samples")
    assert "2 ticked" in "\n".join(said(made))
    assert [button.label for button in made.button if button.label.startswith("Cancel")] == ["Cancel"]
    only = page("runs", picked=f"{id_}@samples")
    assert "Cancel" not in [button.label for button in only.button]

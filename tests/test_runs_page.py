"""The Runs page: what there is, found, ticked by a link, and what may be done with it."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest

from pruneviz.basics.events import Failed
from pruneviz.plan.config import RunConfig
from pruneviz.store import SAMPLES, Store
from pruneviz.store.samples import Samples

PAGE = Path(__file__).resolve().parent.parent / "pages" / "runs.py"
SAMPLE = next(iter(Samples(SAMPLES)))


@pytest.fixture
def store(tmp_path, monkeypatch):
    """A store with a failed, a cancelled and a waiting run beside the samples."""
    monkeypatch.setenv("PRUNEVIZ_STORE", str(tmp_path))
    made = Store(tmp_path)
    yield made
    made.close()


@pytest.fixture
def ids(store) -> dict[str, str]:
    failed, cancelled, waiting = store.queue(
        [
            RunConfig(method="snip", seed=40, note="lecture 3"),
            RunConfig(method="obd", seed=40),
            RunConfig(method="random", seed=90817),
        ]
    )
    attempt = store.claim(failed, device="cpu", worker=1, code="")
    store.record(Failed(failed, "It came to <b>nothing</b> [here](http://x)."), attempt)
    store.cancel(cancelled)
    return {"failed": failed, "cancelled": cancelled, "waiting": waiting}


@pytest.fixture
def page(store, ids, monkeypatch):
    testing = pytest.importorskip("streamlit.testing.v1", reason="streamlit is not installed")
    from pruneviz.ui import stores

    stores._opened.clear()
    monkeypatch.setattr("streamlit.page_link", lambda *args, **named: None)  # the page stands alone here

    def opened(**query: str):
        made = testing.AppTest.from_file(str(PAGE), default_timeout=60)
        for name, value in query.items():
            made.query_params[name] = value
        made.run()
        assert not made.exception
        return made

    yield opened
    stores._opened.clear()


def shown(made) -> set[str]:
    return set(made.dataframe[0].value["id"])


def said(made) -> str:
    return "\n".join(part.value for kind in (made.markdown, made.caption, made.error, made.info) for part in kind)


def test_it_lists_everything_and_asks_to_tick(page, store):
    made = page()
    assert shown(made) == set(store.runs()["id"])
    assert "Tick some" in said(made)


def test_a_search_finds_by_tag_seed_method_and_id(page, ids):
    assert shown(page(q="lecture")) == {ids["failed"]}
    assert shown(page(q="90817 random")) == {ids["waiting"]}
    assert shown(page(q=ids["cancelled"][-8:])) == {ids["cancelled"]}
    assert "None of the" in said(page(q="no such thing"))


def test_menus_are_in_the_link(page, ids):
    assert shown(page(**{"only-state": "failed"})) == {ids["failed"]}
    assert shown(page(**{"only-state": "cancelled"})) == {ids["cancelled"]}
    assert shown(page(**{"only-tag": "lecture 3"})) == {ids["failed"]}


def test_a_link_ticks_the_runs_that_it_names(page, ids):
    made = page(picked=f"{ids['failed']},{SAMPLE},nonsense")
    assert "2 ticked" in said(made)
    assert "It came to" in said(made)
    assert "<b>nothing" not in said(made)  # escaped
    assert [button.label for button in made.button] == ["Resume", "Save", "Delete for good"]


def test_a_stopped_run_is_resumed_and_a_waiting_one_cancelled(page, ids, store):
    made = page(picked=f"{ids['cancelled']},{ids['waiting']}")
    next(button for button in made.button if button.label == "Cancel").click().run()
    assert store.status(ids["waiting"])["state"] == "cancelled"
    next(button for button in made.button if button.label == "Resume 2").click().run()
    assert {store.status(ids[name])["state"] for name in ("cancelled", "waiting")} == {"queued"}


def test_a_tag_is_given_and_a_bad_one_refused(page, ids, store):
    made = page(picked=ids["cancelled"])
    box = next(field for field in made.text_input if field.label == "Tag")
    box.set_value("<script>")
    next(button for button in made.button if button.label == "Save").click().run()
    assert "at most 64 letters" in said(made)
    next(field for field in made.text_input if field.label == "Tag").set_value("homework 2")
    next(button for button in made.button if button.label == "Save").click().run()
    assert not made.exception
    assert store.run(ids["cancelled"]).row["tag"] == "homework 2"


def test_runs_are_deleted_after_a_second_click_and_samples_never(page, ids, store):
    made = page(picked=f"{ids['failed']},{SAMPLE}")
    next(button for button in made.button if button.label == "Delete for good").click().run()
    assert not made.exception
    assert ids["failed"] not in store
    assert SAMPLE in store


def test_a_zip_holds_configuration_numbers_and_arrays():
    from pruneviz.ui.actions import packed

    run = Samples(SAMPLES)[SAMPLE]
    names = zipfile.ZipFile(io.BytesIO(packed([run]))).namelist()
    assert {f"{SAMPLE}/config.json", f"{SAMPLE}/metrics.csv"} < set(names)
    assert sum(name.endswith(".safetensors") for name in names) == len(run.files)

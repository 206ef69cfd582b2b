"""A store of the first format opens for ever: what was in it is there, under the ids that links have."""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest

import pruneviz as pv
from pruneviz.jobs.recording import record
from pruneviz.store import Store, database

FIRST_FORMAT = Path(__file__).parent / "fixtures" / "format-1" / "store"
MAGNITUDE, OBS, SNIP = (
    "magnitude-mlp-2-2-1-xor-cb1a59d9aed4",
    "obs-mlp-2-2-1-xor-bfbca3816aeb",
    "snip-mlp-2-2-1-xor-afddddbba87f",
)
STATES = {
    MAGNITUDE: "succeeded",
    OBS: "succeeded",
    SNIP: "succeeded",
    "kron-obd-digits-cnn-digits-b5668e7e0199": "succeeded",
    "grasp-mlp-2-2-1-xor-dbc0803210a0": "cancelled",
    "obd-mlp-2-2-1-xor-26fbcf147472": "failed",
    "lottery-ticket-mlp-2-2-1-xor-57d5e12840d4": "queued",
}


@pytest.fixture
def folder(tmp_path) -> Path:
    return Path(shutil.copytree(FIRST_FORMAT, tmp_path / "store"))


@pytest.fixture(params=[False, True], ids=["brought forward", "for reading only"])
def opened(request, folder):
    store = Store(folder, samples=None, readonly=request.param)
    yield store
    store.close()


@pytest.fixture
def old(folder):
    store = Store(folder, samples=None)
    yield store
    store.close()


def today(store: Store, id_: str) -> pv.RunConfig:
    """The configuration of a run, asked for again."""
    return pv.RunConfig(**json.loads(store.status(id_)["config"]))


def written() -> sqlite3.Connection:
    """The database as it was left."""
    return sqlite3.connect(f"{(FIRST_FORMAT / 'store.sqlite').as_uri()}?immutable=1", uri=True)


def test_states_tags_and_errors_are_there(opened):
    runs = opened.runs().set_index("id")
    assert runs["state"].to_dict() == STATES
    assert {id_: tag for id_, tag in runs["tag"].items() if tag} == {MAGNITUDE: "an old one", OBS: "teachers pick"}
    assert opened.run("obd-mlp-2-2-1-xor-26fbcf147472").row["error"] == "The loss is not finite."
    assert set(runs["problem"]) == {""}


def test_every_number_is_there(opened):
    for id_ in STATES:
        metrics, history = (opened.run(id_).numbers(table) for table in ("metrics", "history"))
        columns = "sparsity, stage, split, metric, value"
        theirs = (
            written().execute(f"select {columns} from metrics where run = ? order by 1, 2, 3, 4", (id_,)).fetchall()
        )
        ours = metrics[columns.split(", ")].sort_values(columns.split(", ")[:4])
        assert ours.values.tolist() == [pytest.approx(list(row), nan_ok=True) for row in map(_as_read, theirs)]
        theirs = written().execute("select value from history where run = ?", (id_,)).fetchall()
        assert sorted(history["value"]) == sorted(value for (value,) in theirs)
    assert len(opened.metrics()) == written().execute("select count(*) from metrics").fetchone()[0]


def _as_read(row: tuple) -> tuple:
    return tuple(np.nan if value is None else value for value in row)


def test_every_array_can_be_read_and_weights_go_on(opened):
    for id_, state in STATES.items():
        run = opened.run(id_)
        assert bool(run.files) == (state == "succeeded")
        for name in run.files:
            assert run.arrays(name), name
    assert opened.run(MAGNITUDE).layers("spectra-start") == ["1", "3"]
    assert opened.weights(SNIP, "shot-0.5")["weight/1.weight"].shape == (2, 2)


def test_runs_have_the_words_of_their_cards(opened):
    run = opened.run(OBS)
    assert (run.about.method, run.about.network, run.about.data) == ("Optimal Brain Surgeon", "MLP 2-2-1", "XOR")
    assert run.about.sizes


def test_today_s_id_of_the_same_configuration_leads_to_the_old_run(opened):
    for id_ in STATES:
        config = today(opened, id_)
        assert config.id != id_
        assert config.id in opened
        assert opened.run(config.id).id == id_
    assert set(opened.metrics([today(opened, SNIP).id])["run"]) == {SNIP}


def test_a_finished_old_run_is_not_run_again(old):
    configs = [today(old, id_) for id_ in (MAGNITUDE, SNIP)]
    before = old.runs()["state"].tolist()
    assert old.queue(configs) == [MAGNITUDE, SNIP]
    assert old.runs()["state"].tolist() == before


@pytest.mark.parametrize("id_", ["lottery-ticket-mlp-2-2-1-xor-57d5e12840d4", "grasp-mlp-2-2-1-xor-dbc0803210a0", SNIP])
def test_an_old_run_is_carried_out_under_its_old_id_with_the_numbers_of_a_new_one(old, id_, tmp_path):
    config = today(old, id_)
    assert old.queue([config], again=True) == [id_]
    events = []
    record(old, [id_], device="cpu", on_event=events.append)
    assert {event.run for event in events} == {id_}
    assert old.status(id_)["state"] == "succeeded"
    new = Store(tmp_path / "new", samples=None)
    record(new, new.queue([config]), device="cpu")
    ours, theirs = (store.run(config.id).metrics.drop(columns="run") for store in (old, new))
    ours, theirs = (
        table[~table["metric"].str.startswith("latency")].reset_index(drop=True) for table in (ours, theirs)
    )
    assert ours.equals(theirs)
    new.close()


def test_a_deleted_old_run_leaves_its_configuration_to_be_asked_for_afresh(old):
    config = today(old, SNIP)
    assert old.delete(SNIP)
    assert config.id not in old
    assert old.queue([config]) == [config.id]
    assert old.run(config.id).state == "queued"


def test_a_store_for_reading_only_stays_as_it_was(folder):
    before = (folder / "store.sqlite").read_bytes()
    store = Store(folder, samples=None, readonly=True)
    assert len(store.runs()) == len(STATES)
    store.close()
    assert (folder / "store.sqlite").read_bytes() == before


def test_what_stops_half_way_leaves_the_first_format(folder, monkeypatch):
    carry = database._carry_words

    def power_cut(db):
        carry(db)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(database, "_carry_words", power_cut)
        with pytest.raises(KeyboardInterrupt):
            Store(folder, samples=None)
    db = sqlite3.connect(folder / "store.sqlite")
    assert db.execute("pragma user_version").fetchone() == (1,)
    assert "about" not in {row[1] for row in db.execute("pragma table_info(runs)")}
    assert [row for row in db.iterdump() if "aliases" in row] == []
    db.close()
    store = Store(folder, samples=None)
    assert store.runs().set_index("id")["state"].to_dict() == STATES
    assert store.run(today(store, SNIP).id).id == SNIP
    store.close()

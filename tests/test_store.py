"""Runs, states and files that survive what happens to them."""

from __future__ import annotations

import json
import sqlite3
import time

import numpy as np
import pytest

import pruneviz as pv
from pruneviz.basics.errors import InvalidSetting, NoSuchRun, StaleAttempt, StoreError
from pruneviz.basics.events import Arrays, Done, Failed, Metric, Progress, Weights
from pruneviz.store import Store
from pruneviz.store import working as store_module

CONFIG = pv.RunConfig(method="snip", sparsities=(0.5,))
ID = CONFIG.id


def claim(store: Store, worker: int = 1) -> int:
    store.queue([CONFIG])
    attempt = store.claim(ID, device="cpu", worker=worker, code="test")
    assert attempt is not None
    return attempt


def finish(store: Store) -> None:
    attempt = claim(store)
    store.record(Progress(ID, 0.5, "dense", "training", 3, {"val_loss": 0.25}), attempt)
    store.record(Metric(ID, 0.5, "tuned", "test", "accuracy", 0.75), attempt)
    store.record(Arrays(ID, "spectra-start", {"A0": np.arange(3.0)}, {"layers": "1\n3"}), attempt)
    store.record(Weights(ID, "shot-0.5", {"weight/1.weight": np.ones((2, 2), np.float32)}), attempt)
    store.record(Done(ID), attempt)


def test_what_was_recorded_is_read_back(store):
    finish(store)
    run = store.run(ID)
    assert (run.state, run.config) == ("succeeded", CONFIG)
    assert store.metrics([ID]).values.tolist() == [[ID, "snip", 0, 0.5, "tuned", "test", "accuracy", 0.75]]
    assert store.history([ID])["value"].tolist() == [0.25]
    assert run.arrays("spectra-start")["A0"].tolist() == [0, 1, 2]
    assert run.layers("spectra-start") == ["1", "3"]
    assert store.weights(ID, "shot-0.5")["weight/1.weight"].sum() == 4
    assert store.runs()["state"].tolist() == ["succeeded"]


def test_queueing_twice_opens_the_finished_run(store):
    finish(store)
    store.queue([CONFIG])
    assert store.run(ID).state == "succeeded"
    store.queue([CONFIG], again=True)
    assert store.run(ID).state == "queued"
    assert store.metrics([ID]).empty
    assert store.run(ID).arrays("spectra-start") == {}


def test_a_run_is_claimed_once(store):
    claim(store)
    assert store.claim(ID, device="cpu", worker=2, code="test") is None


def test_a_zombie_s_report_is_refused(store):
    attempt = claim(store)
    assert store.cancel(ID)
    for event in (Progress(ID, 0.1, "dense", "late"), Metric(ID, 0.5, "tuned", "test", "accuracy", 1.0), Done(ID)):
        with pytest.raises(StaleAttempt):
            store.record(event, attempt)
    assert store.resume(ID)
    again = store.claim(ID, device="cpu", worker=2, code="test")
    assert again == attempt + 1
    with pytest.raises(StaleAttempt):
        store.record(Arrays(ID, "x-start", {"a": np.zeros(1)}, {}), attempt)
    assert store.metrics([ID]).empty
    assert store.run(ID).names("x") == []


def test_a_run_whose_lease_ran_out_is_lost_and_a_complete_one_succeeded(store, monkeypatch):
    attempt = claim(store)
    assert store.reconcile() == []
    monkeypatch.setattr(store_module, "LEASE", -1.0)
    assert store.reconcile() == [ID]
    assert store.run(ID).state == "lost"
    store.resume(ID)
    attempt = store.claim(ID, device="cpu", worker=1, code="test")
    assert attempt == 2
    store._finish_manifest(ID, attempt)
    assert store.reconcile() == [ID]
    assert store.run(ID).state == "succeeded"


def test_a_named_dead_worker_loses_its_runs_at_once(store):
    claim(store, worker=4242)
    assert store.reconcile(dead=1) == []
    assert store.reconcile(dead=4242) == [ID]


def test_a_failed_run_keeps_its_message_and_its_traceback(store):
    attempt = claim(store)
    store.record(Failed(ID, "out of paper", "Traceback …"), attempt)
    assert store.run(ID).row["error"] == "out of paper"
    assert store.run(ID).row["traceback"] == "Traceback …"


def test_transient_weights_give_way_and_kept_ones_stay(store):
    attempt = claim(store)
    for stage, transient in (("round-001", True), ("round-002", False), ("round-003", True), ("round-004", True)):
        store.record(Weights(ID, stage, {"weight/w": np.zeros(3)}, transient), attempt)
    assert set(store.finished_stages(ID)) == {"round-002", "round-004"}
    assert {p.name for p in store.folder(ID).glob("weights-*")} == {
        "weights-round-002.safetensors",
        "weights-round-004.safetensors",
    }


def test_what_is_not_in_the_manifest_does_not_exist(store):
    finish(store)
    (store.folder(ID) / "spectra-x.safetensors").write_bytes(b"half a file")
    assert store.run(ID).names("spectra") == ["spectra-start"]


def test_an_ended_run_is_deleted_with_its_files_and_a_live_one_is_not(store):
    claim(store)
    assert not store.delete(ID)
    store.cancel(ID)
    assert store.delete(ID)
    assert not store.folder(ID).exists()
    with pytest.raises(NoSuchRun):
        store.run(ID)


def test_a_run_is_tagged_and_the_tag_taken_away(store):
    finish(store)
    assert store.tag(ID, " lecture 3 ")
    assert store.run(ID).row["tag"] == store.runs()["tag"].iloc[0] == "lecture 3"
    assert store.tag(ID, "")
    assert store.runs()["tag"].iloc[0] == ""
    assert not store.tag("snip-lenet-300-100-digits-000000000000", "none of mine")


@pytest.mark.parametrize("bad", ["<script>", "x" * 65, "![](http://x)", "two\nlines"])
def test_a_tag_is_plain(store, bad: str):
    finish(store)
    with pytest.raises(InvalidSetting, match="at most 64 letters"):
        store.tag(ID, bad)
    assert store.run(ID).row["tag"] == ""


@pytest.mark.parametrize("bad", ["../../etc/passwd", "snip", "", "a/b-0123456789ab", "x" * 200])
def test_ids_are_checked_before_any_path_is_built(store, bad: str):
    for ask in (store.run, store.folder, store.cancel, store.delete, store.resume):
        with pytest.raises(NoSuchRun):
            ask(bad)


def test_runs_of_one_network_are_waiting_together(store):
    other = pv.RunConfig(method="snip", model="digits-cnn")
    ids = store.queue([CONFIG, other, pv.RunConfig(method="random")])
    assert store.waiting("cpu", take_any=True) == [ids[0], ids[2]]
    assert store.waiting("cpu", take_any=False) == []
    assert store.runs().set_index("id")["position"].to_dict() == {ids[0]: 1, ids[1]: 2, ids[2]: 3}


def test_a_store_that_cannot_be_written_says_so_and_names_the_mend(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot be written .* Set PRUNEVIZ_STORE"):
        Store(tmp_path / "file")


def test_a_damaged_database_says_so(tmp_path):
    (tmp_path / "store.sqlite").write_bytes(b"not a database" * 100)
    with pytest.raises(StoreError, match="cannot be written"):
        Store(tmp_path)


def test_a_newer_store_is_refused(tmp_path):
    Store(tmp_path).close()
    db = sqlite3.connect(tmp_path / "store.sqlite")
    db.execute("pragma user_version = 99")
    db.close()
    with pytest.raises(StoreError, match="made by a newer PruneViz"):
        Store(tmp_path)


def test_an_exported_run_is_imported_with_every_number_and_array(store, tmp_path):
    finish(store)
    (folder,) = store.export([ID], tmp_path / "out")
    other = Store(tmp_path / "other", samples=None)
    assert other.take_in(tmp_path / "out") == ([ID], [])
    assert other.take_in(folder) == ([], [ID])  # what is there is kept
    other.tag(ID, "mine")
    assert other.take_in(folder, replace=True) == ([ID], [])
    assert other.status(ID)["tag"] == ""
    assert other.metrics([ID]).equals(store.metrics([ID]))
    assert other.history([ID]).equals(store.history([ID]))
    assert other.run(ID).arrays("spectra-start")["A0"].tolist() == [0, 1, 2]
    assert other.weights(ID, "shot-0.5")
    other.close()


def test_a_damaged_export_is_refused(store, tmp_path):
    finish(store)
    (folder,) = store.export([ID], tmp_path / "out")
    path = folder / "spectra-start.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    other = Store(tmp_path / "other", samples=None)
    with pytest.raises(StoreError, match="checksum"):
        other.take_in(tmp_path / "out")
    with pytest.raises(StoreError, match="no exported run"):
        other.take_in(tmp_path)
    other.close()


def test_samples_are_read_beside_the_store_and_never_written(store, tmp_path):
    finish(store)
    store.export([ID], tmp_path / "samples", weights=False)
    fresh = Store(tmp_path / "fresh", samples=tmp_path / "samples")
    assert fresh.runs()[["id", "source", "state"]].values.tolist() == [[ID, "samples", "succeeded"]]
    assert fresh.metrics([ID])["value"].tolist() == [0.75]
    assert fresh.run(ID).source == "samples"
    assert not fresh.delete(ID)
    assert fresh.queue([CONFIG]) == [ID]
    assert fresh.asked(ID).state == "queued"
    assert fresh.run(ID).source == "samples"  # until its own run is finished
    assert fresh.metrics([ID])["value"].tolist() == [0.75]
    assert fresh.runs()[["source", "state"]].values.tolist() == [["store", "queued"], ["samples", "succeeded"]]
    finish(fresh)
    assert fresh.run(ID).source == "store"
    assert fresh.runs()[["source", "state"]].values.tolist() == [["store", "succeeded"]]
    fresh.close()


def test_workers_are_seen_for_the_length_of_their_lease(store, monkeypatch):
    store.register("cpu", 77, {"threads": 2})
    assert store.workers() == [{"device": "cpu", "pid": 77, "threads": 2}]
    later = time.time() + store_module.LEASE + 1
    monkeypatch.setattr(time, "time", lambda: later)
    assert store.workers() == []


def test_an_exported_folder_is_plain_json_and_safetensors(store, tmp_path):
    finish(store)
    (folder,) = store.export([ID], tmp_path)
    content = json.loads((folder / "run.json").read_text())
    assert content["id"] == ID
    assert {p.suffix for p in folder.iterdir()} == {".json", ".safetensors"}


def test_a_store_opened_for_reading_shows_what_is_there_and_takes_nothing(store):
    finish(store)
    store.close()
    reader = Store(store.path, samples=None, readonly=True)
    assert reader.run(ID).state == "succeeded"
    with pytest.raises(StoreError, match="for reading only"):
        reader.queue([CONFIG])
    reader.close()
    nothing = Store(store.path / "nowhere", samples=None, readonly=True)
    assert nothing.runs().empty
    assert not (store.path / "nowhere").exists()
    nothing.close()


def test_damaged_weights_are_refused(store):
    finish(store)
    path = store.folder(ID) / "weights-shot-0.5.safetensors"
    path.write_bytes(path.read_bytes()[:-4] + b"half")
    with pytest.raises(StoreError, match="are damaged"):
        store.weights(ID, "shot-0.5")

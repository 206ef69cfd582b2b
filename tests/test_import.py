"""Importing: what an export wrote is taken, and anything else is refused in one sentence, before anything is written."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch

import pruneviz as pv
from pruneviz.basics.errors import PrunevizError, StoreError
from pruneviz.basics.events import Arrays, Done, Metric, Progress, Weights
from pruneviz.cli import main
from pruneviz.store import Store

CONFIG = pv.RunConfig(dataset="xor", method="snip", sparsities=(0.5,))
OTHER = pv.RunConfig(dataset="xor", method="magnitude", sparsities=(0.5,))
ID = CONFIG.id
FIRST_FORMAT = Path(__file__).parent / "fixtures" / "format-1" / "export"
OLD = "magnitude-mlp-2-2-1-xor-cb1a59d9aed4"


def finish(store: Store, config: pv.RunConfig = CONFIG, accuracy: float = 0.75) -> str:
    (id_,) = store.queue([config])
    attempt = store.claim(id_, device="cpu", worker=1, code="test")
    assert attempt is not None
    store.record(Progress(id_, 0.5, "dense", "training", 3, {"val_loss": 0.25}), attempt)
    store.record(Metric(id_, 0.5, "tuned", "test", "accuracy", accuracy), attempt)
    store.record(Arrays(id_, "spectra-start", {"A0": np.arange(3.0)}, {"layers": "1\n3"}), attempt)
    store.record(Weights(id_, "shot-0.5", {"weight/1.weight": np.ones((2, 2), np.float32)}), attempt)
    store.record(Done(id_), attempt)
    return id_


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """One exported run, as this version writes it."""
    store = Store(tmp_path_factory.mktemp("made"), samples=None)
    (folder,) = store.export([finish(store)], store.path / "out")
    store.close()
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy of it to be spoilt, alone in ``from/``."""
    return Path(shutil.copytree(made, tmp_path / "from" / ID))


@pytest.fixture
def full(store: Store) -> Store:
    """A store that has another run already."""
    finish(store, OTHER)
    (store.path / "dense").mkdir()
    (store.path / "dense" / "shared.safetensors").write_bytes(b"shared")
    return store


def all_of(store: Store) -> tuple[list[str], dict[str, str]]:
    """The database as text, and every other file of the store with its digest."""
    files = {
        str(path.relative_to(store.path)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in store.path.rglob("*")
        if not path.name.startswith("store.sqlite")
    }
    return list(store._db.iterdump()), files


def edit(folder: Path, change: Callable[[dict[str, Any]], Any], name: str = "run.json") -> None:
    content = json.loads((folder / name).read_text())
    change(content)
    (folder / name).write_text(json.dumps(content))


def entry(folder: Path, name: str) -> dict[str, Any]:
    content = (folder / f"{name}.safetensors").read_bytes()
    return {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}


def listed_as(name: str) -> Callable[[Path], None]:
    """A manifest that lists a file under a name of its own, correct in all else; where the name leads to, there is one."""

    def spoil(folder: Path) -> None:
        edit(folder, lambda c: c["files"].update({name: entry(folder, "spectra-start")}), "manifest.json")
        if "\0" not in name and len(name) < 200:
            target = folder / f"{name}.safetensors"
            if target.parent.is_dir() and folder.parent.parent in target.resolve().parents:
                shutil.copy(folder / "spectra-start.safetensors", target)

    return spoil


def said(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    return lambda folder: edit(folder, change)


def manifest(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    return lambda folder: edit(folder, change, "manifest.json")


def in_place_of(name: str, put: Callable[[Path], Any]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        path = folder / name
        path.unlink()
        put(path)

    return spoil


def link_to_a_copy(path: Path) -> None:
    """A link to the very file that belongs there."""
    kept = path.parent.parent / "elsewhere"
    shutil.copy(FIRST_FORMAT / OLD / "change-start.safetensors", kept)
    path.symlink_to(kept)


def run_folder_is_a_link(folder: Path) -> None:
    moved = folder.rename(folder.parent.parent / "moved")
    folder.symlink_to(moved, target_is_directory=True)


def a_socket(path: Path) -> None:
    before = os.getcwd()
    os.chdir(path.parent)  # a socket's path may not be long
    try:
        with socket.socket(socket.AF_UNIX) as found:
            found.bind(path.name)
    finally:
        os.chdir(before)


def text(content: str | bytes) -> Callable[[Path], Any]:
    return lambda folder: (folder / "run.json").write_bytes(content.encode() if isinstance(content, str) else content)


def within(old: str, new: str) -> Callable[[Path], None]:
    """run.json with a piece of its text replaced: for what JSON libraries would not write."""

    def spoil(folder: Path) -> None:
        path = folder / "run.json"
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new, 1))

    return spoil


def relisted(write: Callable[[Path], Any]) -> Callable[[Path], None]:
    """Another file in the place of an array's, with its own correct checksum."""

    def spoil(folder: Path) -> None:
        write(folder / "spectra-start.safetensors")
        edit(folder, lambda c: c["files"].update({"spectra-start": entry(folder, "spectra-start")}), "manifest.json")

    return spoil


def twice(folder: Path) -> None:
    shutil.copytree(folder, folder.parent / "again")


def renamed(id_: str) -> Callable[[Path], None]:
    return said(lambda c: c.update(id=id_))


MALFORMED: dict[str, Callable[[Path], Any]] = {
    # names in the manifest
    "a name that leads out of the folder": listed_as("../escaped"),
    "a name that leads to the dense networks": listed_as("../../dense/shared"),
    "an absolute name": listed_as("/escaped"),
    "a name with a slash": listed_as("a/b"),
    "a name with a backslash": listed_as("..\\escaped"),
    "a name with a NUL": listed_as("spectra\0start"),
    "a name of 200 characters": listed_as("a" * 200),
    "an empty name": listed_as(""),
    "the name of a hidden file": listed_as(".hidden"),
    "a name with a line break": listed_as("spectra-start\n"),
    "the manifest as a file of its own": manifest(lambda c: c["files"].update(manifest={"sha256": "0", "bytes": 1})),
    "another run's id as a name": manifest(lambda c: c["files"].update({OTHER.id: {"sha256": "0", "bytes": 1}})),
    # what is no plain file
    "a link as the run's folder": run_folder_is_a_link,
    "a link as a file": in_place_of("spectra-start.safetensors", link_to_a_copy),
    "a link as run.json": in_place_of("run.json", lambda path: path.symlink_to(FIRST_FORMAT / OLD / "run.json")),
    "a link as the manifest": in_place_of("manifest.json", lambda p: p.symlink_to(FIRST_FORMAT / OLD / "manifest.json")),
    "a link to a folder": lambda folder: (folder / "more").symlink_to(folder.parent, target_is_directory=True),
    "a link that leads nowhere": in_place_of("spectra-start.safetensors", lambda path: path.symlink_to("nowhere")),
    "run.json as a link that leads nowhere": in_place_of("run.json", lambda path: path.symlink_to("nowhere")),
    "run.json as a link to itself": in_place_of("run.json", lambda path: path.symlink_to(path)),
    "a FIFO as a file": in_place_of("spectra-start.safetensors", os.mkfifo),
    "a FIFO as run.json": in_place_of("run.json", os.mkfifo),
    "a FIFO as the manifest": in_place_of("manifest.json", os.mkfifo),
    "a FIFO that nothing lists": lambda folder: os.mkfifo(folder / "more.safetensors"),
    "a socket": in_place_of("spectra-start.safetensors", a_socket),
    "a folder that is called like a file": in_place_of("spectra-start.safetensors", Path.mkdir),
    # files
    "a wrong checksum": manifest(lambda c: c["files"]["spectra-start"].update(sha256="0" * 64)),
    "no checksum": manifest(lambda c: c["files"]["spectra-start"].pop("sha256")),
    "a wrong size": manifest(lambda c: c["files"]["spectra-start"].update(bytes=7)),
    "a missing file": lambda folder: (folder / "spectra-start.safetensors").unlink(),
    "a cut file": lambda folder: os.truncate(folder / "spectra-start.safetensors", 20),
    "a file that is no safetensors": relisted(lambda path: path.write_bytes(b"no such thing")),
    "a safetensors header of terabytes": relisted(lambda path: path.write_bytes(b"\xff" * 7 + b"\0{}")),
    "an array of a type that numpy lacks": relisted(lambda p: save_torch({"a": torch.zeros(2, dtype=torch.bfloat16)}, p)),
    # the manifest
    "no manifest": lambda folder: (folder / "manifest.json").unlink(),
    "an incomplete manifest": manifest(lambda c: c.update(complete=False)),
    "a manifest that is complete in a word": manifest(lambda c: c.update(complete="yes")),
    "a manifest with a list of files": manifest(lambda c: c.update(files=["spectra-start"])),
    "a manifest with words for entries": manifest(lambda c: c["files"].update({"spectra-start": "all well"})),
    "a manifest that is no JSON": lambda folder: (folder / "manifest.json").write_text("{"),
    # ids
    "an id with dots": renamed("../../x-3f9c1a20b7d4"),
    "an id that is none": renamed("snip"),
    "NaN as an id": within(f'"{ID}"', "NaN"),
    "an id that is not its configuration's": renamed(OTHER.id),
    "an id that is another method's": said(lambda c: c["config"].update(method="obd")),
    "an edited seed": said(lambda c: c["config"].update(seed=1)),
    "an edited setting that was not said": said(lambda c: c["config"]["tune"].update(epochs=9)),
    "a setting that was never there": said(lambda c: c["identity"].update(more=1)),
    "an edited seed that was said, too": said(lambda c: (c["config"].update(seed=1), c["identity"]["given"].update(seed=1))),
    "an edited method": said(lambda c: (c["config"].update(method="obd"), c["identity"]["given"].update(method="obd"))),
    "an edited word of what was said": said(lambda c: c["identity"]["given"].update(sparsities=[0.6])),
    "edited data": said(lambda c: c["identity"].update(data="0" * 64)),
    "edited schemas": said(lambda c: c["identity"].update(schemas=[1, 1, 1])),
    "what was said as a list": said(lambda c: c.update(identity=[1])),
    "nothing of what was said": said(lambda c: c.update(identity=None)),
    "another run's id without what was said": said(lambda c: (c["config"].update(method="mine"), c.update(identity=None))),
    "the same id twice": twice,
    # run.json as a whole
    "run.json as a list": text("[]"),
    "run.json as nothing": text(""),
    "run.json in half": within('"metrics"', ""),
    "nested brackets": text("[" * 100_000),
    "nested brackets in a setting": within('"params": {', '"params": {"deep": ' + "[" * 5_000 + "]" * 5_000 + ", "),
    "nested lists in a setting": within('"params": {', '"params": {"deep": ' + "[" * 600 + "]" * 600 + ", "),
    "text that is no UTF-8": text(b'{"id": "\xff\xfe"}'),
    "half a character": said(lambda c: c["metrics"][0].__setitem__(1, "\ud800")),
    "no configuration": said(lambda c: c.pop("config")),
    "a configuration that is a word": said(lambda c: c.update(config="snip")),
    "a configuration without a network": said(lambda c: c["config"].pop("model")),
    "a configuration without a budget": said(lambda c: c["config"].pop("tune")),
    "a number that is none in the configuration": said(lambda c: c["config"].update(sparsities=[float("nan")])),
    "a sparsity beyond one": said(lambda c: c["config"].update(sparsities=[7.0])),
    # numbers
    "metrics of four columns": said(lambda c: c["metrics"][0].pop()),
    "metrics of words": said(lambda c: c["metrics"][0].__setitem__(4, "much")),
    "a table of words": said(lambda c: c.update(metrics=["a", "b"])),
    "a table that is a word": said(lambda c: c.update(metrics="")),
    "metrics that are not there": said(lambda c: c.pop("metrics")),
    "metrics of nothing": said(lambda c: c.update(metrics=None)),
    "a sparsity that is none": said(lambda c: c["metrics"][0].__setitem__(0, None)),
    "NaN as a sparsity": said(lambda c: c["metrics"][0].__setitem__(0, float("nan"))),
    "a stage of a million characters": said(lambda c: c["metrics"][0].__setitem__(1, "a" * 10**6)),
    "an epoch that is none": said(lambda c: c["history"][0].__setitem__(1, None)),
    "half an epoch": said(lambda c: c["history"][0].__setitem__(1, 0.5)),
    "a number beyond all": within("0.75]", "1e400]"),
    "a number of 5000 digits": within("0.75]", "1" + "0" * 5000 + "]"),
    "a number of 400 digits": within("0.75]", "1" + "0" * 400 + "]"),
    "true as a number": within("0.75]", "true]"),
    # the row
    "a row that lacks a key": said(lambda c: c["row"].pop("code")),
    "a row that is a list": said(lambda c: c.update(row=[])),
    "warnings that are no list": said(lambda c: c["row"].update(warnings='{"a": 1}')),
    "warnings that are no JSON": said(lambda c: c["row"].update(warnings="oh")),
    "a tag of markup": said(lambda c: c["row"].update(tag="<script>")),
    "a start beyond time": said(lambda c: c["row"].update(started=10**300)),
    "a device that is a number": said(lambda c: c["row"].update(device=7)),
}  # fmt: skip


@pytest.mark.parametrize("spoil", MALFORMED.values(), ids=list(MALFORMED))
def test_a_malformed_folder_is_refused_in_one_sentence_and_nothing_is_written(full, folder, spoil):
    spoil(folder)
    before, outside, started = all_of(full), sorted(folder.parent.parent.iterdir()), time.monotonic()
    for replace in (False, True):
        with pytest.raises(PrunevizError) as refused:
            full.take_in(folder.parent, replace=replace)
        assert str(refused.value).endswith(".")
        assert str(refused.value).isprintable()
        assert len(str(refused.value)) < 1000
    assert time.monotonic() - started < 20
    assert all_of(full) == before
    assert sorted(folder.parent.parent.iterdir()) == outside


def test_one_malformed_folder_keeps_out_all_of_them(full, folder):
    shutil.copytree(FIRST_FORMAT / OLD, folder.parent / OLD)
    (folder / "spectra-start.safetensors").unlink()
    before = all_of(full)
    with pytest.raises(StoreError, match="missing or damaged"):
        full.take_in(folder.parent)
    assert all_of(full) == before


def test_what_can_not_be_finished_leaves_everything_as_it_was(store, folder, monkeypatch):
    finish(store, accuracy=0.5)
    before = all_of(store)

    def full_disk(*_):
        raise OSError("no room")

    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(OSError, match="no room"):
        store.take_in(folder, replace=True)
    assert all_of(store) == before


def test_a_store_for_reading_takes_nothing(store, folder):
    finish(store, OTHER)
    before = all_of(store)
    reader = Store(store.path, samples=None, readonly=True)
    with pytest.raises(StoreError, match="for reading only"):
        reader.take_in(folder)
    reader.close()
    assert all_of(store) == before


def test_an_export_of_today_is_taken_with_every_number_and_array(full, folder):
    assert full.take_in(folder.parent) == ([ID], [])
    run = full.run(ID)
    assert (run.state, run.config, run.about.method) == ("succeeded", CONFIG, "SNIP")
    assert run.metrics["value"].tolist() == [0.75]
    assert run.history["value"].tolist() == [0.25]
    assert run.arrays("spectra-start")["A0"].tolist() == [0, 1, 2]
    assert full.weights(ID, "shot-0.5")["weight/1.weight"].sum() == 4
    assert full.queue([CONFIG]) == [ID]
    assert full.status(ID)["state"] == "succeeded"


def test_exports_of_the_first_format_are_taken_and_today_s_ids_lead_to_them(store, tmp_path):
    taken, kept = store.take_in(FIRST_FORMAT)
    assert (len(taken), kept) == (3, [])
    old = store.run(OLD)
    assert old.config.note == "an old one"
    today = pv.RunConfig(**json.loads(old.row["config"]))
    assert today.id != OLD
    assert store.queue([today]) == [OLD]
    assert store.status(today.id)["state"] == "succeeded"
    (again,) = store.export([OLD], tmp_path / "out")
    theirs, ours = (json.loads((folder / "run.json").read_text()) for folder in (FIRST_FORMAT / OLD, again))
    for name in ("id", "config", "metrics", "history", "row"):
        assert json.dumps(ours[name]) == json.dumps(theirs[name]), name
    assert Store(tmp_path / "other", samples=None).take_in(again) == ([OLD], [])


def test_the_same_configuration_under_another_id_is_the_same_run(store):
    today = pv.RunConfig(**json.loads((FIRST_FORMAT / OLD / "run.json").read_text())["config"])
    finish(store, today)
    assert store.take_in(FIRST_FORMAT / OLD) == ([], [OLD])
    assert store.take_in(FIRST_FORMAT / OLD, replace=True) == ([OLD], [])
    assert store.runs()["id"].tolist() == [OLD]
    assert store.run(today.id).id == OLD
    assert not store.folder(today.id).exists()


def as_of(folder: Path, **changes: Any) -> str:
    """A run as another version would export it, with these settings: its id, consistently."""
    content = json.loads((folder / "run.json").read_text())
    content["config"] |= changes
    given = content["identity"]["given"] = content["identity"]["given"] | changes
    content["about"] |= {"method": "Mine", "colour": "#123456"}
    said = json.dumps(given, sort_keys=True, separators=(",", ":"))
    parts = [said, content["identity"]["data"], str(tuple(content["identity"]["schemas"]))]
    name = "-".join(content["config"][key] for key in ("method", "model", "dataset"))
    content["id"] = f"{name}-{hashlib.sha256(chr(10).join(parts).encode()).hexdigest()[:12]}"
    (folder / "run.json").write_text(json.dumps(content))
    return content["id"]


@pytest.mark.parametrize(
    "changes",
    [{"method": "mine"}, {"model": "mine-2-2"}, {"temperature": 7, "method": "mine"}, {"temperature": 7}],
    ids=["method", "network", "method and setting", "setting"],
)
def test_a_run_of_what_this_version_does_not_know_is_taken_and_can_be_passed_on(full, folder, changes, tmp_path):
    id_ = as_of(folder, **changes)
    assert full.take_in(folder) == ([id_], [])
    run = full.run(id_)
    assert (run.about.method, run.about.colour, run.metrics["value"].tolist()) == ("Mine", "#123456", [0.75])
    (again,) = full.export([id_], tmp_path / "out")
    assert Store(tmp_path / "other", samples=None).take_in(again) == ([id_], [])


def test_a_run_that_is_there_is_kept_unless_it_is_to_be_replaced(store, folder):
    finish(store, accuracy=0.5)
    store.tag(ID, "mine")
    assert store.take_in(folder) == ([], [ID])
    assert (store.status(ID)["tag"], store.run(ID).metrics["value"].tolist()) == ("mine", [0.5])
    assert store.take_in(folder, replace=True) == ([ID], [])
    assert (store.status(ID)["tag"], store.run(ID).metrics["value"].tolist()) == ("", [0.75])


@pytest.mark.parametrize("state", ["queued", "running"])
def test_a_run_that_goes_on_is_never_replaced(store, folder, state: str):
    store.queue([CONFIG])
    if state == "running":
        store.claim(ID, device="cpu", worker=os.getpid(), code="test")
    before = all_of(store)
    assert store.take_in(folder) == ([], [ID])
    with pytest.raises(StoreError, match=rf"is {state}, so it is not replaced\. Cancel it first"):
        store.take_in(folder, replace=True)
    assert all_of(store) == before


def test_the_command_says_what_was_taken_and_what_was_kept(store, folder, capsys):
    def call(*arguments: str) -> tuple[int, str, str]:
        status = main(["import", str(folder.parent), *arguments, "--store", str(store.path)])
        found = capsys.readouterr()
        return status, found.out.strip(), found.err.strip()

    assert call() == (0, ID, "")
    status, taken, kept = call()
    assert (status, taken) == (0, "")
    assert kept.startswith(f"pruneviz: {ID} is there already and was kept; --replace")
    assert call("--replace") == (0, ID, "")
    save_file({"a": np.zeros(2)}, folder / "spectra-start.safetensors")
    status, taken, why = call("--replace")
    assert (status, taken) == (1, "")
    assert "spectra-start.safetensors is missing or damaged" in why

"""From one's own files to figures on the command line, as a new user does it; and what is wrong told before anything is written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import own
import pytest
from PIL import Image

from pruneviz.store import Store

ROOT = Path(__file__).resolve().parent.parent
SMALL = ["--sparsity", "0.5", "--tune-epochs", "1"]


@pytest.fixture
def here(tmp_path):
    return own.project(tmp_path / "project")


def pruneviz(here: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PRUNEVIZ_STORE": str(here / "store")}
    return subprocess.run(
        [sys.executable, "-m", "pruneviz", *words],
        cwd=here,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_one_line_shows_ones_own_network_pruned_by_every_method_that_fits(here):
    done = pruneviz(
        here, "view", "file:my_net.py:build", "--weights", "w.safetensors", "--data", "mine.npz", "--no-browser", *SMALL
    )
    assert done.returncode == 0, done.stderr
    assert "3.weight" in done.stdout  # the table of the inspection
    assert "skipped lottery-ticket: Lottery ticket goes back to" in done.stdout
    assert "skipped l1-filters:" in done.stdout
    assert "split off for validation" in done.stderr
    store = Store(here / "store", samples=None)
    table = store.runs()
    assert set(table["state"]) == {"succeeded"}
    assert {
        "random",
        "magnitude",
        "obd",
        "obs",
        "kron-obd",
        "kron-obs",
        "eigendamage",
        "snip",
        "grasp",
        "isometry",
    } == set(table["method"])
    _, net = own.trained()
    run = store.run(table["id"].iloc[0])
    from pruneviz.run.given import Given

    x, y = Given().data(run.config).test
    told = float((net(x).argmax(1) == y).float().mean())
    assert f"dense network: test accuracy {100 * told:.2f}%" in done.stdout
    store.close()


def test_inspect_and_dry_run_say_what_will_happen_and_write_nothing(here):
    words = ("file:my_net.py:build", "--data", "mine.npz", "--weights", "w.pt")
    done = pruneviz(here, "inspect", *words, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [(row["name"], row["weights"]) for row in found["layers"]] == [
        ("1.0.weight", 192),
        ("2.0.weight", 96),
        ("3.weight", 24),
    ]
    assert found["outputs"] == [3]
    done = pruneviz(here, "compare", "--model", *words, "--methods", "magnitude,snip,l1-filters", "--dry-run", *SMALL)
    assert done.returncode == 0, done.stderr
    assert "skipped l1-filters" in done.stdout
    assert "its weights are given" in done.stdout
    steps = int(done.stdout.split(" training steps")[0].splitlines()[-1].replace(",", ""))
    budget = 30  # 105 samples: the most epochs that follow from a number of samples
    assert steps == 2 * (
        1 * 5 + budget
    )  # two steps an epoch: magnitude's five rounds of one epoch, SNIP's one training
    assert "Memory: at least" in done.stdout
    assert not (here / "store").exists()


def test_images_in_folders_and_code_that_loads_samples_are_data_too(here):
    x, y = own.samples(90)
    for i, (pixels, label) in enumerate(zip(x, y, strict=True)):
        path = here / "photos" / f"class {label}" / f"{i:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels[0] / 2 * 255).astype(np.uint8)).save(path)
    for data in ("photos", "file:my_data.py:load"):
        done = pruneviz(here, "run", "--method", "magnitude", "--data", data, "--epochs", "2", "--json", *SMALL)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert found["failed"] == []
        assert [row["sparsity"] for row in found["summary"]] == [0.5]
    ids = set(Store(here / "store", samples=None).runs()["id"])
    assert {id_.rsplit("-", 1)[0] for id_ in ids} == {
        "magnitude-lenet-300-100-photos",
        "magnitude-lenet-300-100-my-data",
    }


def test_the_command_that_a_run_gives_asks_for_that_very_run(here):
    first = pruneviz(
        here,
        "run",
        "--method",
        "magnitude",
        "--model",
        "file:my_net.py:build",
        "--data",
        "mine.npz",
        "--epochs",
        "1",
        *SMALL,
    )
    assert first.returncode == 0, first.stderr
    store = Store(here / "store", samples=None)
    (id_,) = store.runs()["id"]
    from pruneviz.plan.arguments import command

    words = command(store.run(id_).config).split()[3:]
    store.close()
    again = pruneviz(here.parent, *words, "--json", "--store", str(here / "store"))
    assert again.returncode == 0, again.stderr
    assert list(Store(here / "store", samples=None).runs()["id"]) == [id_]


def _write(here: Path, name: str, content: str | bytes) -> None:
    (here / name).write_bytes(content.encode() if isinstance(content, str) else content)


WRONG = {
    "no file": (["file:nowhere.py:build"], "nothing is there"),
    "no function": (["file:my_net.py:nothing"], "there is no 'nothing' in it. It has build"),
    "no name": (["file:my_net.py"], "names no function of a Python file"),
    "no package": (["nowhere.nets:build"], "no package 'nowhere'"),
    "a library that is not here": (["timm:resnet18"], "timm is not installed"),
    "a library that is not here either": (["torchvision:resnet18"], "torchvision"),
    "no folder": (["transformers:nowhere"], "nothing is there"),
    "a folder of something else": (["transformers:photos"], "no folder that transformers can open"),
    "a typing error": (["lenet-300-10"], "Did you mean 'lenet-300-100'"),
    "raises": (["file:raises.py:build"], "RuntimeError: no licence"),
    "wants arguments": (["file:wants.py:build"], "wants the argument 'depth'"),
    "gives no network": (["file:gives.py:build"], "gave a dict, not a network"),
    "does not parse": (["file:parses.py:build"], "SyntaxError"),
    "samples of another shape": (["file:my_net.py:build", "--data", "wide.npz"], "does not run on these samples"),
    "other classes": (["file:my_net.py:build", "--data", "five.npz"], "have 5 classes"),
    "no .npz": (["file:my_net.py:build", "--data", "text.npz"], "is no .npz"),
    "weights of another network": (
        ["lenet-300-100", "--weights", "w.safetensors"],
        "Give the weights of this very network",
    ),
    "a pickle in disguise": (
        ["file:my_net.py:build", "--weights", "pickle.safetensors"],
        "a pickle under another name",
    ),
    "no weights": (["file:my_net.py:build", "--weights", "mine.npz"], "is no weights"),
    "data that is a network": (["file:my_net.py:build", "--data", "timm:x"], "is no dataset"),
    "code that loads nothing": (["file:my_net.py:build", "--data", "file:gives.py:build"], "Return (train, test)"),
}


@pytest.mark.parametrize("what", list(WRONG))
def test_what_is_wrong_is_one_sentence_and_nothing_is_written(here, what):
    words, sentence = WRONG[what]
    _write(here, "raises.py", "def build():\n    raise RuntimeError('no licence')\n")
    _write(here, "wants.py", "def build(depth):\n    return depth\n")
    _write(here, "gives.py", "def build():\n    return {}\n")
    _write(here, "parses.py", "def build(:\n")
    _write(here, "text.npz", "x, y\n")
    _write(here, "pickle.safetensors", b"\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00." + bytes(20))
    (here / "photos").mkdir()
    np.savez(here / "wide.npz", x=np.random.default_rng(0).random((60, 1, 9, 9)), y=np.arange(60) % 3)
    np.savez(here / "five.npz", x=np.random.default_rng(0).random((60, 1, 4, 4)), y=np.arange(60) % 5)
    data = [] if "--data" in words else ["--data", "mine.npz"]
    done = pruneviz(here, "view", *words, *data, "--no-browser", *SMALL)
    assert done.returncode in (1, 2), done.stdout
    last = done.stderr.strip().splitlines()[-1]
    assert sentence in last
    assert "Traceback" not in done.stderr
    assert not (here / "store").exists()

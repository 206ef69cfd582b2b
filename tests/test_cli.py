"""The command line, called as a user calls it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def call(*arguments: str, store: Path | None = None) -> subprocess.CompletedProcess:
    environment = os.environ | ({"PRUNEVIZ_STORE": str(store)} if store else {})
    return subprocess.run(
        [sys.executable, "-m", "pruneviz", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("what", ["methods", "models", "datasets"])
def test_lists_print_json_and_tables(what: str):
    keys = [row["key"] for row in json.loads(call(what, "--json").stdout)]
    assert (
        set(keys)
        >= {
            "methods": {"snip"},
            "models": {"lenet-300-100", "mlp-17-3-1", "conv-6", "vgg-19", "resnet-110"},
            "datasets": {"digits", "monks-1", "cifar-100"},
        }[what]
    )
    table = call(what)
    assert table.returncode == 0
    assert all(key in table.stdout for key in keys)


def test_compare_prints_one_document_in_the_schema(tmp_path):
    arguments = (
        "compare",
        "--methods",
        "random,magnitude,snip",
        "--sparsity",
        "0.5,0.9",
        "--seed",
        "0,1",
        "--epochs",
        "2",
    )
    done = call(*arguments, "--tune-epochs", "1", "--json", store=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {(r["method"], r["start"]) for r in found["summary"]} == {
        ("random", "init"), ("random", "trained"), ("magnitude", "trained"), ("snip", "init"),
    }  # fmt: skip
    assert len(found["runs"]) == 4 * 2 * 2
    for row in found["runs"]:
        assert {"id", "method", "seed", "sparsity", "reached", "test_accuracy", "test_loss"} <= row.keys()
        assert 0 <= row["test_accuracy"] <= 1
        assert row["reached"] == pytest.approx(row["sparsity"], abs=1e-4)
    for row in found["summary"]:
        of = [
            r["test_accuracy"]
            for r in found["runs"]
            if (r["method"], r["start"], r["sparsity"]) == (row["method"], row["start"], row["sparsity"])
        ]
        assert (row["low"], row["high"]) == (min(of), max(of))
        assert row["mean"] == pytest.approx(sum(of) / 2)
    assert [row["seed"] for row in found["dense"]] == [0, 1]
    assert found["skipped"] == []
    again = call(*arguments, "--tune-epochs", "1", "--json", store=tmp_path)
    assert json.loads(again.stdout) == found


def test_run_takes_switches_and_names_what_it_did(tmp_path):
    done = call(
        "run", "--method", "snip", "--set", "batches=2", "--sparsity", "0.8", "--epochs", "1", "--json", store=tmp_path
    )
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)["runs"]
    assert row["epochs"] == 1
    exported = call("export", row["id"], "--to", str(tmp_path / "out"), store=tmp_path)
    assert exported.returncode == 0
    assert json.loads((tmp_path / "out" / row["id"] / "run.json").read_text())["config"]["params"]["batches"] == 2
    assert call("import", str(tmp_path / "out"), store=tmp_path / "other").stdout.strip() == row["id"]


def test_a_data_set_brings_its_usual_network_and_flags_reach_the_run(tmp_path):
    quick = ("--data", "xor", "--sparsity", "0.5", "--epochs", "2", "--tune-epochs", "1", "--json")
    configs = []
    for arguments in (("run", "--method", "magnitude"), ("compare", "--methods", "magnitude")):
        done = call(*arguments, *quick, "--normalise", "--repair", "rescale", store=tmp_path)
        assert done.returncode == 0, done.stderr
        (row,) = json.loads(done.stdout)["runs"]
        assert call("export", row["id"], "--to", str(tmp_path / "out"), store=tmp_path).returncode == 0
        configs.append(json.loads((tmp_path / "out" / row["id"] / "run.json").read_text())["config"])
    assert configs[0] == configs[1]
    assert {k: configs[0][k] for k in ("model", "normalise", "repair")} == {
        "model": "mlp-2-2-1", "normalise": True, "repair": "rescale",
    }  # fmt: skip


@pytest.mark.parametrize("written", ["1/16", "0.0625"])
def test_a_width_reaches_the_run(written: str, tmp_path):
    quick = ("--sparsity", "0.5", "--epochs", "1", "--tune-epochs", "1", "--rounds", "1")
    done = call(
        "run", "--model", "conv-2", "--width", written, "--method", "magnitude", *quick, "--json", store=tmp_path
    )
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)["runs"]
    assert row["id"].startswith("magnitude-conv-2-digits-")
    assert call("export", row["id"], "--to", str(tmp_path / "out"), store=tmp_path).returncode == 0
    assert json.loads((tmp_path / "out" / row["id"] / "run.json").read_text())["config"]["width"] == 1 / 16
    weights = (9 * 4 + 9 * 4 * 4) + 4 * 16 * 16 + 16 * 16 + 160
    assert row["parameters"] == weights // 2 + 4 + 4 + 16 + 16 + 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "--method", "snipp"), "Did you mean 'snip'?"),
        (("run", "--method", "snip", "--data", "digit"), "Did you mean 'digits'?"),
        (("run", "--method", "snip", "--model", "lenet"), "Did you mean 'lenet-"),
        (("run", "--method", "snip", "--sparsity", "95"), "Did you mean 0.95?"),
        (("run", "--method", "snip", "--sparsity", ""), "at least one sparsity"),
        (("run", "--method", "snip", "--sparsity", "half"), "numbers separated by commas"),
        (("run", "--method", "snip", "--set", "batches"), "name=value"),
        (("run", "--method", "snip", "--set", "batch=2"), "Did you mean 'batches'?"),
        (("run", "--method", "snip", "--model", "lenet-5-caffe"), "at least 16 x 16 pixels"),
        (("run", "--method", "snip", "--model", "mlp-17-3-1"), "has 17 inputs, and a sample has 64 numbers"),
        (("run", "--method", "snip", "--repair", "glue"), "'none', 'isometry' or 'rescale', found 'glue'"),
        (("run", "--method", "snip", "--width", "2"), "'lenet-300-100' comes in one width, 1; found 2"),
        (("run", "--method", "snip", "--model", "resnet-20", "--width", "9"), "less than or equal to 8, found 9"),
        (("run", "--method", "snip", "--model", "resnet-20", "--width", "1/0"), "e.g. 2, 0.5 or 1/8; found '1/0'"),
        (("compare", "--model", "resnet-20", "--width", "wide"), "e.g. 2, 0.5 or 1/8; found 'wide'"),
        (("compare", "--methods", ""), "at least one method"),
        (("run",), "--method"),
        (("servee",), "No command called 'servee'. Did you mean 'serve'?"),
    ],
)
def test_bad_arguments_end_with_2_and_the_mend(arguments: tuple[str, ...], message: str, tmp_path):
    done = call(*arguments, store=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_run_that_fails_ends_with_1_and_its_reason(tmp_path):
    too_far = ("--method", "lottery-ticket", "--rewind-step", "999999", "--epochs", "1", "--sparsity", "0.5")
    done = call("run", *too_far, "--json", store=tmp_path)
    assert done.returncode == 1
    assert "beyond the 20 steps" in done.stderr
    assert json.loads(done.stdout)["failed"][0]["state"] == "failed"


def test_a_store_that_cannot_be_written_ends_with_1_and_the_mend(tmp_path):
    (tmp_path / "file").write_text("")
    done = call("run", "--method", "random", store=tmp_path / "file")
    assert done.returncode == 1
    assert "cannot be written" in done.stderr
    assert "PRUNEVIZ_STORE" in done.stderr


def test_doctor_reports_a_healthy_store(tmp_path):
    found = json.loads(call("doctor", "--json", store=tmp_path).stdout)
    assert found["store_health"] == "ok"
    assert found["data"]["digits"] is True
    assert "cpu" in found["devices"]


def test_every_command_is_in_the_readme():
    commands = re.findall(r"^    (\w+)", call("--help").stdout, re.MULTILINE)
    assert {"run", "compare", "serve"} <= set(commands)
    readme = (ROOT / "README.md").read_text()
    assert [c for c in commands if f"pruneviz {c}" not in readme] == []


def test_a_sparsity_out_of_reach_is_skipped_with_its_reason_and_the_rest_is_reported(tmp_path):
    quick = ("--model", "digits-cnn", "--sparsity", "0.3,0.99", "--epochs", "1", "--tune-epochs", "1")
    arguments = ("compare", "--methods", "magnitude,l1-filters", "--seed", "0,1", *quick)
    done = call(*arguments, "--json", store=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    (row,) = found["skipped"]
    assert (row["method"], row["sparsity"]) == ("l1-filters", 0.99)
    assert "reaches at most 95.6%" in row["reason"]
    assert {(r["method"], r["sparsity"], r["seeds"]) for r in found["summary"]} == {
        ("magnitude", 0.3, 2), ("magnitude", 0.99, 2), ("l1-filters", 0.3, 2),
    }  # fmt: skip
    assert {"speedup_256", "latency_1"} <= next(r for r in found["runs"] if r["method"] == "l1-filters").keys()
    told = call(*arguments, store=tmp_path)
    assert told.returncode == 0
    assert "skipped l1-filters at 0.99: Asked for sparsity 0.99" in told.stdout


def test_ratios_of_stages_and_layers_to_skip_are_switches(tmp_path):
    quick = ("--model", "digits-cnn", "--sparsity", "0.02", "--epochs", "1", "--tune-epochs", "0", "--json")
    done = call(
        "run", "--method", "l1-filters", "--set", "per_stage=1=0.5,2=0.25", "--set", "skip=2", *quick, store=tmp_path
    )
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)["runs"]
    assert call("export", row["id"], "--to", str(tmp_path / "out"), store=tmp_path).returncode == 0
    params = json.loads((tmp_path / "out" / row["id"] / "run.json").read_text())["config"]["params"]
    assert params | {"per_stage": {"1": 0.5, "2": 0.25}, "skip": ["2"]} == params
    wrong = call("run", "--method", "l1-filters", "--set", "per_stage=half", *quick, store=tmp_path)
    assert wrong.returncode == 2
    assert "per_stage is written 1=0.5,4=0.5" in wrong.stderr

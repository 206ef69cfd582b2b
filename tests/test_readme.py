"""README tells the truth: its Python runs as it stands, and its table is what the samples say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import pruneviz as pv
from pruneviz.methods import METHODS
from pruneviz.store import SAMPLES, Store
from pruneviz.store.outcome import report

README = (Path(__file__).resolve().parent.parent / "README.md").read_text()
HEAD = "| weights removed |"


@pytest.fixture(scope="module")
def namespace(tmp_path_factory) -> dict[str, Any]:
    """What README's blocks of Python leave behind, carried out in order in an empty folder with a store of its own."""
    folder = tmp_path_factory.mktemp("readme")
    found: dict[str, Any] = {"folder": folder}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("PRUNEVIZ_STORE", str(folder / "store"))
        for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL):
            exec(compile(block, "README.md", "exec"), found)
    return found


def test_the_first_block_prunes_to_the_sparsity_it_says_and_draws_the_samples(namespace):
    pruned, data = namespace["pruned"], namespace["data"]
    assert pruned.mask.sparsity == pytest.approx(0.9, abs=1e-4)
    assert pruned.report["threshold"] > 0
    assert len(data.train[0]) == len(namespace["x"])
    assert "plotly" in (namespace["folder"] / "saliency.html").read_text().lower()
    assert len(namespace["runs"]) == 3


def test_the_second_block_makes_a_smaller_network_and_reads_it_back(namespace):
    small, x = namespace["small"], namespace["x"]
    assert small.after.flops < small.before.flops
    assert small.speedup[256] > 0
    assert namespace["again"](x[:5]).equal(small.model(x[:5]))


def rows() -> dict[str, list[str]]:
    """The comparison's table: label -> cells."""
    lines = README[README.index(HEAD) :].split("\n\n")[0].splitlines()
    parts = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {label: cells for label, *cells in [parts[0], *parts[2:]]}


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> dict[str, Any]:
    store = Store(tmp_path_factory.mktemp("samples"), samples=SAMPLES)
    shown = [row for row in store.runs().itertuples() if (row.model, row.dataset) == ("lenet-300-100", "digits")]
    found = report(store, [str(row.id) for row in shown])
    store.close()
    return found


def test_the_table_of_methods_has_the_samples_medians_over_three_seeds(measured):
    (_, heads), *table = rows().items()
    sparsities = [float(head.rstrip("%")) / 100 for head in heads]
    medians = {(r["method"], r["start"], r["sparsity"]): r for r in measured["summary"]}
    told, found = {}, {}
    for label, cells in table:
        title = label.split(",")[0]
        (method,) = (key for key, card in METHODS.items() if card.title == title)
        start = str(METHODS[method].starts)
        if method == "random":
            start = "init" if "before training" in label else "trained"
        told[method, start] = cells
        of = [medians.get((method, start, sparsity)) for sparsity in sparsities]
        found[method, start] = [f"{100 * row['median']:.1f}" if row else "–" for row in of]
    assert told == found
    assert set(told) == {(method, start) for method, start, _ in medians}
    assert {row["seeds"] for row in medians.values()} == {3}


def test_the_dense_network_has_the_accuracy_that_is_told(measured):
    accuracies = sorted(row["test_accuracy"] for row in measured["dense"])
    (told,) = re.findall(r"LeNet-300-100 on digits \(dense: ([\d.]+)\)", README)
    assert f"{100 * accuracies[len(accuracies) // 2]:.1f}" == told


def test_every_method_and_every_command_of_the_table_of_methods_is_there():
    told = re.findall(
        r"^\| ([^|]+) \| .+ \|$", README[README.index("| method | paper |") :].split("\n\n")[0], re.MULTILINE
    )
    assert set(told[1:]) == {card.title for card in pv.METHODS.values()}

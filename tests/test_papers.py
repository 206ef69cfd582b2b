"""Reproductions: the rule by which they decide, what is recorded, the command and the page."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import get_args

import pytest
import torch
from torch.func import functional_call, jacrev

import pruneviz as pv
from pruneviz import papers
from pruneviz.cli import main
from pruneviz.datasets import DATASETS
from pruneviz.methods import method_class
from pruneviz.papers import PAPERS, obs_monks, recorded
from pruneviz.papers.base import Claim, Result, Table, Verdict
from pruneviz.papers.obs_monks import MONKS, Network, Problem

ROOT = Path(__file__).resolve().parent.parent
KEYS = [f"monks-{n}-{what}" for n in (1, 2, 3) for what in ("weights", "train", "test")]
needs_monks = pytest.mark.skipif(
    not all(DATASETS[p.data].present for p in MONKS),
    reason="the MONK's problems are not here: set PRUNEVIZ_DATA to a folder with monks/",
)


def call(*arguments: str, **variables: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "pruneviz", *arguments],
        cwd=ROOT, env=os.environ | variables, capture_output=True, text=True, check=False,
    )  # fmt: skip


# what is registered and recorded


@pytest.mark.parametrize("key", PAPERS)
def test_a_reproduction_names_data_that_there_is_and_the_time_it_takes(key: str):
    found = PAPERS[key]
    assert found.key == key
    assert found.data
    assert set(found.data) <= set(DATASETS)
    assert 0 < found.minutes[0] <= found.minutes[1]
    assert found.question.endswith("?")


@pytest.mark.parametrize("path", sorted(papers.RECORDED.glob("*.json")), ids=lambda p: p.stem)
def test_what_is_recorded_is_of_todays_form(path: Path):
    found = recorded(path.stem)
    assert found is not None
    assert found["reproduction"] == path.stem
    assert {"budget", "date", "device", "seconds", "versions"} <= found.keys()
    assert {"pruneviz", "torch"} <= found["versions"].keys()
    keys = [claim["key"] for claim in found["claims"]]
    assert len(keys) == len(set(keys)) > 0
    for claim in found["claims"]:
        assert set(claim) == {field.name for field in fields(Claim)}
        assert claim["verdict"] in get_args(Verdict)
        assert claim["text"]
        assert claim["command"].startswith(f"python -m pruneviz papers {path.stem}")
        for name in ("ours", "paper", "low", "high"):
            assert claim[name] is None or math.isfinite(claim[name])
        if claim["low"] is not None:
            assert claim["low"] <= claim["high"]
    for table in found["tables"]:
        assert {len(row) for row in table["rows"]} == {len(table["columns"])}


def test_what_is_recorded_of_monks_has_the_contracts_keys_and_the_papers_figures():
    found = recorded("obs-monks")
    assert found is not None
    claims = {claim["key"]: claim for claim in found["claims"]}
    assert list(claims) == [*KEYS, "xor-weights", "xor-networks"]
    assert [claims[f"monks-{n}-weights"]["paper"] for n in (1, 2, 3)] == [14, 15, 4]
    assert [claims[key]["paper"] for key in ("monks-3-train", "monks-3-test")] == [114 / 122, 420 / 432]


def test_a_result_is_recorded_and_read_again(tmp_path, monkeypatch):
    monkeypatch.setattr(papers, "RECORDED", tmp_path)
    result = Result(
        (Claim("one", "It holds", 0.5, low=0.4, high=0.6, seeds=5),), (Table("t", "T", ("a", "b"), ((1, None),)),)
    )
    assert recorded("obs-monks") is None
    path = papers.record("obs-monks", result, full=True, seconds=61.234)
    found = recorded("obs-monks")
    assert path.parent == tmp_path
    assert found is not None
    assert (found["budget"], found["seconds"], found["device"]) == ("full", 61.2, "cpu")
    assert found["claims"] == result.plain()["claims"]
    assert found["tables"][0]["rows"] == [[1, None]]
    with pytest.raises(ValueError, match="not JSON compliant"):
        papers.record("obs-monks", Result((Claim("one", "Not a number", math.nan),)), full=True, seconds=1)
    assert recorded("obs-monks") == found


def test_a_table_whose_rows_do_not_fit_its_columns_is_refused():
    with pytest.raises(ValueError, match="2 columns, and a row has 1"):
        Table("t", "T", ("a", "b"), ((1,),))


# OBS on small networks


def brain_surgeon(network: torch.nn.Module, x: torch.Tensor, alpha: float) -> list[torch.Tensor]:
    """The flat parameters after each deletion: the paper's step with the dense inverse of the whole Hessian."""
    theta = {name: p.detach().clone() for name, p in network.named_parameters()}
    names, shapes = list(theta), [p.shape for p in theta.values()]
    flat = torch.cat([p.flatten() for p in theta.values()])

    def outputs(values: torch.Tensor) -> torch.Tensor:
        parts = values.split([s.numel() for s in shapes])
        return functional_call(network, {n: p.view(s) for n, p, s in zip(names, parts, shapes, strict=True)}, x)[:, 0]

    alive, found = list(range(len(flat))), []
    while len(alive) > 1:
        J = jacrev(outputs)(flat)[:, alive]  # [n, alive]
        inverse = torch.linalg.inv(2 * J.T @ J / len(x) + alpha * torch.eye(len(alive), dtype=flat.dtype))
        q = int((flat[alive] ** 2 / (2 * inverse.diagonal())).argmin())
        flat = flat.clone()
        flat[alive] -= flat[alive][q] / inverse[q, q] * inverse[:, q]
        flat[alive.pop(q)] = 0
        found.append(flat)
    return found


def test_the_way_down_is_the_papers_algorithm_with_the_hessian_computed_anew():
    network = obs_monks.trained("xor", "mlp-2-2-1", 1e-3, 0)
    x, y = pv.load("xor").train
    by_hand = brain_surgeon(network, x.double(), 1e-2)
    method = method_class("obs").from_params({"loss": "squared", "alpha": 1e-2, "include_bias": True})
    sizes = []
    for size, expected in zip(obs_monks.deleted(network, method, x.double(), y), by_hand, strict=True):
        flat = torch.cat([p.detach().flatten() for p in network.parameters()])
        torch.testing.assert_close(flat, expected, rtol=1e-8, atol=1e-8)  # two inverses of condition about 1e3
        assert int((flat != 0).sum()) == size
        sizes.append(size)
    assert sizes == list(range(8, 0, -1))


def network(size: int, train: int, test: int, ties: int = 0, error: float = 0.0) -> Network:
    return Network(1e-3, 0, size, train, test, ties, error, {})


PROBLEM = Problem("monks-3", "mlp-17-2-1", 4, (8, 10), (16, 20))


def test_the_smallest_network_as_good_as_the_papers_speaks_for_the_claims():
    way = [network(9, 10, 18), network(6, 9, 17), network(5, 8, 16), network(4, 8, 15), network(3, 7, 19)]
    findings = obs_monks.monks(PROBLEM, [way, [network(9, 7, 20)]])
    assert findings.best == way[2]
    assert [claim.ours for claim in findings.claims] == [5, 0.8, 0.8]
    assert [claim.verdict for claim in findings.claims] == ["does not hold", "holds", "holds"]
    assert [(claim.low, claim.high) for claim in findings.claims] == [(4, 4), (0.8, 0.8), (0.75, 0.75)]
    assert findings.found == ("MONK's problem 3", 9, 4, 2, 1, 0, 5)
    assert findings.alone == ("MONK's problem 3", 4, 0.75, 1, 0.75, 0.75)
    better = replace(way[3], test=16, ties=2)
    assert obs_monks.monks(PROBLEM, [[*way[:3], better]]).found[-2:] == (1, 5)  # found, but only with outputs at 0.5


def test_where_no_network_is_as_good_the_nearest_speaks_and_the_claim_does_not_hold():
    small = [network(9, 10, 15), network(4, 8, 13), network(3, 8, 12)]
    assert obs_monks.witness([small], PROBLEM) == small[1]
    large = [network(9, 10, 15), network(7, 9, 15), network(6, 7, 15)]
    findings = obs_monks.monks(PROBLEM, [large])
    assert findings.best == large[1]
    assert [claim.verdict for claim in findings.claims] == ["does not hold", "holds", "does not hold"]
    unable = [network(9, 5, 15), network(8, 6, 14)]
    assert obs_monks.monks(PROBLEM, [unable]).claims[1].verdict == "does not hold"


def test_training_samples_alone_choose_by_size_then_by_training_error():
    ways = [[network(4, 9, 14, error=0.2)], [network(4, 8, 19, error=0.1)], [network(5, 10, 20, error=0.0)]]
    assert obs_monks.monks(PROBLEM, ways).alone == ("MONK's problem 3", 4, 0.95, 2, 0.7, 0.95)


@needs_monks
@pytest.mark.parametrize(("problem", "decay", "seeds"), [(MONKS[0], 3e-3, 4), (MONKS[1], 1e-3, 4), (MONKS[2], 1e-2, 8)])
def test_a_network_as_small_and_as_good_as_the_papers_exists(problem: Problem, decay: float, seeds: int, monkeypatch):
    monkeypatch.setattr(obs_monks, "DECAYS", (decay,))
    switches = {"loss": "squared", "alpha": obs_monks.ALPHA}
    grid = list(obs_monks.ways(problem.data, problem.model, problem.train[0], seeds, "obs", **switches))
    best = obs_monks.witness(grid, problem)
    assert best.size <= problem.weights
    assert best.train >= problem.train[0]
    assert best.test >= problem.test[0]
    assert len(list(obs_monks.survivors("", best))) == best.size


# the command


def test_the_command_runs_a_reproduction_and_prints_one_document(monkeypatch, capsys):
    monkeypatch.setattr(obs_monks, "MONKS", ())
    monkeypatch.setattr(obs_monks, "SEEDS", (4, 4))
    threads = torch.get_num_threads()
    assert main(["papers", "obs-monks", "--json"]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    claims = {claim["key"]: claim for claim in found["claims"]}
    assert claims.keys() == {"xor-weights", "xor-networks"}
    assert {claim["reproduction"] for claim in found["claims"]} == {"obs-monks"}
    assert claims["xor-weights"]["low"] <= claims["xor-weights"]["ours"] < 9
    assert claims["xor-networks"]["verdict"] == "holds"
    rows = {row[0]: row for row in found["tables"][-1]["rows"]}
    assert rows["OBS"][1:3] == rows["OBD"][1:3] == rows["magnitude"][1:3]  # the same networks
    assert found["budgets"][0]["budget"] == "quick"
    assert "obs-monks: XOR, OBS" in err
    assert torch.get_num_threads() == threads


def test_without_a_name_the_command_prints_what_is_recorded():
    done = call("papers", "--json")
    found = json.loads(done.stdout)
    assert done.returncode == 0
    assert [about["reproduction"] for about in found["budgets"]] == [key for key in PAPERS if recorded(key)]
    assert {claim["key"] for claim in found["claims"] if claim["reproduction"] == "obs-monks"} >= set(KEYS)
    table = call("papers")
    assert table.returncode == 0
    assert "monks-3-weights" in table.stdout
    assert "MONK's problems by weight decay" in table.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("obs-monk",), "No reproduction called 'obs-monk'. Did you mean 'obs-monks'?"),
        (("--record",), "name a reproduction, or add --quick or --full"),
        (("obs-monks", "--quick", "--full"), "not allowed with"),
    ],
)
def test_bad_arguments_end_with_2_and_the_mend(arguments: tuple[str, ...], message: str):
    done = call("papers", *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stdout == ""


def test_data_that_cannot_be_read_end_with_1_and_the_loaders_words(tmp_path):
    (tmp_path / "monks").mkdir()
    (tmp_path / "monks" / "monks-1.train").write_text("not the published file")
    done = call("papers", "obs-monks", "--json", PRUNEVIZ_DATA=str(tmp_path))
    assert done.returncode == 1
    assert "pruneviz: obs-monks:" in done.stderr
    assert "monks-1.train" in done.stderr
    assert "Traceback" not in done.stderr
    assert json.loads(done.stdout)["claims"] == []


# the page


def test_the_page_shows_every_claim_beside_the_papers_figure():
    testing = pytest.importorskip("streamlit.testing.v1", reason="streamlit is not installed")
    page = testing.AppTest.from_file(str(ROOT / "pages" / "papers.py"), default_timeout=30).run()
    assert not page.exception
    for key in PAPERS:
        page.selectbox(key="paper").select(key).run()
        assert not page.exception
        assert page.header[0].value == PAPERS[key].title
        assert f"python -m pruneviz papers {key}" in page.code[0].value
        found = recorded(key)
        assert len(page.table) == (1 if found else 0)
        if found:
            shown = page.table[0].value
            assert list(shown.index) == [claim["text"] for claim in found["claims"]]
            assert all(claim["verdict"] in v for claim, v in zip(found["claims"], shown["Verdict"], strict=True))
            assert len(page.dataframe) == 1 + len(found["tables"])


@pytest.mark.parametrize(("loss", "verdict"), [(0.12, "holds"), (0.2, "does not hold")])
def test_verdicts_without_retraining_follow_from_the_numbers(loss: float, verdict: str):
    from pruneviz.papers import obs_lenet

    after = {obs_lenet.SIZE: 3.0, obs_lenet.OBD: 2.0, obs_lenet.OBS: loss}
    rows = [
        {
            "recipe": str(obs_lenet.RECIPES[0]), "seed": seed, "method": method, "sparsity": s, "dense_loss": 0.1,
            "loss": after[method], "seconds": 2.0,
        }
        for seed in obs_lenet.SEEDS for method in after for s in obs_lenet.SPARSITIES
    ]  # fmt: skip
    found = {claim.key: claim for claim in obs_lenet.claims(rows)}
    assert found["obs-rise-90"].verdict == verdict
    assert found["obs-rise-90"].ours == pytest.approx(loss - 0.1)
    assert found["obs-below-obd-95"].verdict == "holds"
    assert {claim.seeds for claim in found.values()} == {3}

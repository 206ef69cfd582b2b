"""Figures and ``pv.show`` of what ``pv.prune`` gives: what they draw is counted from scores and masks by numpy."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import pruneviz as pv
from pruneviz.basics.errors import InvalidSetting
from pruneviz.figures import given
from pruneviz.records.arrays import Saliency


@pytest.fixture
def problem():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 36, 10))
    data = pv.load("digits")
    return net, data.train[0][:150], data.train[1][:150]


@pytest.mark.parametrize(("method", "sparsity"), [("magnitude", 0.7), ("snip", 0.4), ("obd", 0.5)])
def test_histograms_count_the_scores_kept_and_removed(problem, method, sparsity):
    net, x, y = problem
    made = pv.prune(net, x, y, method=method, sparsity=sparsity)
    (run,) = given.runs_of(made)
    found = run.read(Saliency, sparsity)
    assert found is not None
    assert found.layers == ("0.weight", "3.weight")
    for i, name in enumerate(("0.weight", "3.weight")):
        keep, told = (
            made.mask[name].numpy(),
            made.scores[name].numpy() != 0,
        )  # a score of 0 has no place on a logarithmic axis
        assert int(found.kept[i].sum()) == int((keep & told).sum())
        assert int(found.removed[i].sum()) == int((~keep & told).sum())
        assert int(found.removed[i].sum()) > 0
    assert run.config.method == method
    assert run.config.sparsities == (sparsity,)


def test_layers_draw_the_sparsity_of_the_mask(problem):
    made = [pv.prune(*problem, method=method, sparsity=0.6) for method in ("magnitude", "snip")]
    table = pv.figures.layers.data(given.runs_of(made), sparsity=0.6)
    for one, method in zip(made, ("Magnitude", "SNIP"), strict=True):
        rows = table[table["label"].str.startswith(method)]
        assert len(rows) == 2
        shares = sorted(float((~one.mask[n]).float().mean()) for n in ("0.weight", "3.weight"))
        number = rows.select_dtypes("number")
        assert any(
            np.allclose(sorted(number[c] if number[c].max() <= 1 else number[c] / 100), shares, atol=1e-6)
            for c in number
        )


def test_whole_units_and_runs_stand_beside_each_other(problem, store):
    from pruneviz.jobs.recording import record

    config = pv.RunConfig(
        method="magnitude", sparsities=(0.5,), rounds=1, train={"epochs": 1}, tune={"epochs": 0}, probes=("saliency",)
    )
    store.queue([config])
    record(store, [config.id], device="cpu")
    made = [
        pv.prune(*problem, method=m, sparsity=s)
        for m, s in (("kron-obd", 0.5), ("l1-filters", 0.4), ("eigendamage", 0.01))
    ]
    shown = pv.show(store.run(config.id), made, sparsity=0.5)
    assert len(shown.runs) == 4
    for title in ("Magnitude", "Kron-OBD", "L1 filters", "EigenDamage"):
        assert title in shown.text
    assert "<iframe srcdoc=" in shown._repr_html_()
    assert "allow-same-origin" not in shown._repr_html_()


def test_every_figure_takes_them_and_what_is_not_there_is_left_empty(problem):
    made = pv.prune(*problem, method="magnitude", sparsity=0.5)
    drawn = {key: len(figure([made]).data) for key, figure in pv.figures.FIGURES.items()}
    assert drawn["saliency"] > 0
    assert drawn["layers"] > 0
    assert drawn["curves"] == drawn["spectra"] == 0


def test_a_file_is_written_or_it_is_told_why_not(problem, tmp_path):
    shown = pv.show(pv.prune(*problem, method="magnitude", sparsity=0.5))
    assert shown.save(tmp_path / "x.html").read_text() == shown.text
    with pytest.raises(InvalidSetting, match="cannot be written"):
        shown.save(tmp_path / "nowhere" / "x.html")
    with pytest.raises(InvalidSetting, match="found a int"):
        pv.show(3)
    with pytest.raises(InvalidSetting, match="1 to 6 runs"):
        pv.show()


def test_what_was_written_down_goes_with_the_network(problem):
    made = pv.prune(*problem, method="magnitude", sparsity=0.5)
    (run,) = given.runs_of(made)
    assert given.runs_of(made)[0] is run
    folder = Path(run.folder)
    assert folder.is_dir()
    del made
    gc.collect()
    assert not folder.exists()

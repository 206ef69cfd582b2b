"""What the tour says holds on the sample runs: each claim is computed anew from their numbers."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

from pruneviz.figures import FIGURES, base, two_weights
from pruneviz.figures._neuron import Neuron
from pruneviz.store import Run
from pruneviz.ui import tour

SEEDS = 3
ROOT = Path(__file__).resolve().parent.parent


def accuracy(runs: list[Run], method: str, stage: str, sparsity: float, metric: str = "accuracy") -> np.ndarray:
    """One number a seed."""
    m = [
        run.metrics.set_index(["stage", "sparsity", "split", "metric"])["value"]
        for run in runs
        if run.config.method == method
    ]
    return np.array([values[stage, sparsity, "test", metric] for values in m])


def numbers(text: str) -> list[float]:
    return [float(found.replace(",", "")) for found in re.findall(r"\d[\d,]*\.?\d*", text)]


def test_the_samples_have_what_every_step_needs():
    counts = {step: len(tour.runs(tour.samples(), step)) for step in range(1, 6)}
    assert counts == {1: SEEDS, 2: 3, 3: 2 * SEEDS, 4: 0, 5: 3 * SEEDS}


def test_each_step_is_short_and_the_field_s_words_are_said_plainly_first():
    for step in tour.STEPS:
        assert len(step.text.split()) <= 65, step.title
    first = " ".join(step.text.lower() for step in tour.STEPS)
    for word in ("sparsity", "accuracy", "score", "loss", "curvature", "rank correlation"):
        assert first.index(f"**{word}**") == first.index(word) - 2, word


def test_most_weights_can_go():
    runs = tour.runs(tour.samples(), 1)
    dense, at_80 = accuracy(runs, "magnitude", "dense", 0.0).mean(), accuracy(runs, "magnitude", "tuned", 0.8).mean()
    assert at_80 > dense - 0.01
    said = numbers(tour.most_can_go(FIGURES["curves"].data(runs), 50_200))
    assert said[:2] == [50_200, round(100 * dense, 1)]
    assert said[2] >= 80


@pytest.mark.parametrize("sparsity", [0.8, 0.9, 0.95])
def test_weights_removed_by_lot_cost_more_than_the_smallest(sparsity: float):
    runs = tour.runs(tour.samples(), 2)
    size, chance = (accuracy([run], run.config.method, "tuned", sparsity)[0] for run in runs[1:])
    assert [run.config.method for run in runs] == ["magnitude", "magnitude", "random"]
    assert size > chance + 0.02
    layer = base.chosen(runs[:1], None)
    said = tour.which_leave(FIGURES["saliency"].data(runs[:1], sparsity, layer), runs, sparsity)
    assert f"**{100 * size:.1f}%**" in said
    assert f"**{100 * chance:.1f}%**" in said
    same = (
        runs[1].config.after_pruning == runs[2].config.after_pruning and runs[1].config.rounds == runs[2].config.rounds
    )
    assert ("saw the data" in said) == (not same)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_obd_foretells_how_much_the_loss_changes_and_not_which_way(seed: int):
    runs = [run for run in tour.runs(tour.samples(), 3) if run.config.seed == seed]
    found = {}
    for run in runs:
        a = run.arrays("change-start")
        found[run.config.method] = [
            spearmanr(a["predicted"], values).statistic for values in (np.abs(a["measured"]), a["measured"])
        ]
    assert found["obd"][0] > 0.9
    assert found["magnitude"][0] < 0.6
    assert max(abs(found["obd"][1]), abs(found["magnitude"][1])) < 0.5
    said = tour.score_is_right(FIGURES["change"].data(runs))
    assert numbers(said)[:2] == [pytest.approx(found[m][0], abs=0.006) for m in ("obd", "magnitude")]


@pytest.mark.parametrize("together", [0.0, 0.5, 0.8, 0.9, 0.95])
def test_moving_the_other_weight_helps_as_far_as_the_inputs_go_together(together: float):
    ends = Neuron(together, tour.SIZE).removals()
    said = tour.survivors_help(two_weights.data(Neuron(together, tour.SIZE)))
    assert numbers(said)[:2] == [round(ends[key].real, 3) for key in ("obd", "obs")]
    assert ("no gain" in said) == (ends["obs"].real > 0.95 * ends["obd"].real) == (together < 0.7)


def test_obs_beats_obd_right_after_pruning_in_every_network_at_every_sparsity():
    runs = tour.runs(tour.samples(), 5)
    for sparsity in (0.8, 0.9, 0.95):
        assert (accuracy(runs, "obs", "pruned", sparsity) > accuracy(runs, "obd", "pruned", sparsity)).all()
        losses = [accuracy(runs, method, "pruned", sparsity, "loss") for method in ("obs", "obd")]
        assert (losses[0] < losses[1]).all()
        assert (losses[0] < accuracy(runs, "obs", "zeroed", sparsity, "loss")).all(), "its moves lower the loss"
    said = tour.surgeon_wins(runs, "accuracy", unmoved=False)
    assert f"**OBS {100 * accuracy(runs, 'obs', 'pruned', 0.9).mean():.1f}%**" in said
    assert f"in {SEEDS} of {SEEDS} networks" in said
    behind = accuracy(runs, "obd", "pruned", 0.9).mean() < accuracy(runs, "magnitude", "pruned", 0.9).mean()
    assert ("falls behind plain size" in said) == behind
    assert all(run.config.tune.epochs == 0 and run.config.rounds == 1 for run in runs)


def test_without_samples_the_steps_that_need_them_have_no_runs():
    assert [tour.runs({}, step) for step in range(1, 6)] == [[]] * 5


@pytest.mark.parametrize("step", [1, 2, 3, 5])
def test_a_step_without_its_runs_says_so_and_the_tour_goes_on(monkeypatch, tmp_path, step: int):
    testing = pytest.importorskip("streamlit.testing.v1")
    monkeypatch.setenv("PRUNEVIZ_STORE", str(tmp_path / "store"))
    monkeypatch.setattr(tour, "samples", dict)
    page = testing.AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
    page.switch_page("pages/tour.py")
    page.query_params["step"] = str(step)
    page.run()
    assert not page.exception
    assert "shows sample runs, which are not here" in page.info[0].value
    assert page.header[0].value == tour.STEPS[step - 1].title
    assert [button.label.split(":")[0] for button in page.button] == ["Back"] * (step > 1) + ["Next"] * (step < 5)

"""Agreement of masks and scores, and the first layer as images: against masks counted by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr
from test_figures import HandMade

from pruneviz import figures
from pruneviz.plan.config import RunConfig
from pruneviz.store import Store

COUNTS = np.array([600, 400], np.int32)


def run(method: str, kept: np.ndarray, order: np.ndarray, **more: Any) -> HandMade:
    """A run that sampled 1,000 weights of two layers."""
    start = {"order": order.astype(np.uint16), "counts": COUNTS, **more.pop("start", {})}
    after = {"kept": np.packbits(kept), **more.pop("after", {})}
    config = RunConfig(method=method, sparsities=(0.9,), **more)
    return HandMade(config, {"masks-start": (start, ["1", "3"]), "masks-0.9": (after, ["1", "3"])}, {0.9: 0.9})


@pytest.fixture
def pair() -> list[HandMade]:
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 1000)) < np.repeat([0.1, 0.6], COUNTS)
    return [run("snip", a, rng.permutation(1000) + 1), run("magnitude", b, rng.integers(1, 40, 1000))]


def bits(made: HandMade) -> np.ndarray:
    return np.unpackbits(made.arrays("masks-0.9")["kept"], count=1000).astype(bool)


@pytest.mark.parametrize(("layer", "inside"), [(None, slice(0, 1000)), ("1", slice(0, 600)), ("3", slice(600, 1000))])
def test_pairs_are_compared_over_the_network_or_one_layer(pair, layer, inside):
    table = figures.agreement.data(pair, 0.9, layer)
    assert len(table) == 2  # both ways
    a, b = (set(np.flatnonzero(bits(made)[inside])) for made in pair)
    assert table["jaccard"].tolist() == [len(a & b) / len(a | b)] * 2
    orders = [made.arrays("masks-start")["order"][inside] for made in pair]
    assert table["correlation"].to_numpy() == pytest.approx(spearmanr(*orders).statistic)


def test_chance_is_what_random_masks_with_the_layers_densities_come_to(pair):
    rng, (a, b) = np.random.default_rng(1), map(bits, pair)
    found = []
    for _ in range(400):
        one, two = (np.concatenate([rng.permutation(part) for part in np.split(m, [600])]) for m in (a, b))
        found.append((one & two).sum() / (one | two).sum())
    assert figures.agreement.data(pair)["chance"].iloc[0] == pytest.approx(np.mean(found), abs=0.003)


def test_the_same_run_agrees_with_itself_and_its_inverse_does_not(pair):
    order = pair[0].arrays("masks-start")["order"]
    same, inverse = run("obd", bits(pair[0]), order), run("grasp", ~bits(pair[0]), 1001 - order)
    table = figures.agreement.data([pair[0], same, inverse]).set_index(["label", "with_label"])
    assert table.loc[("SNIP", "Optimal Brain Damage"), ["jaccard", "correlation"]].tolist() == pytest.approx([1, 1])
    assert table.loc[("SNIP", "GraSP"), ["jaccard", "correlation"]].tolist() == pytest.approx([0, -1])


def test_weights_that_one_method_does_not_score_are_left_out(pair):
    order = pair[0].arrays("masks-start")["order"].copy()
    order[600:] = 0  # filters of the last layer are not scored
    some = run("l1-filters", bits(pair[0]), order, model="digits-cnn")
    table = figures.agreement.data([pair[0], some])
    assert table["scored"].tolist() == [600, 600]
    assert table["correlation"].iloc[0] == pytest.approx(1)
    assert figures.agreement.data([pair[0], some], layer="3")["correlation"].isna().all()


def test_directions_other_networks_and_unknown_layers_have_nothing_to_compare(pair):
    turned = HandMade(RunConfig(method="eigendamage"), {"masks-start": ({}, ["1", "3"])}, {0.9: 0.9})
    other = run("snip", bits(pair[0]), pair[0].arrays("masks-start")["order"], seed=1)
    other.probes["masks-start"] = (other.arrays("masks-start"), ["0", "2"])
    for runs in ([pair[0], turned], [pair[0], other], pair[:1], []):
        assert figures.agreement.data(runs).empty
        drawn = figures.agreement(runs)
        assert not drawn.data
        assert "nothing to show" in figures.alt(drawn)
    assert figures.agreement.data(pair, layer="99").empty


def test_the_drawing_says_each_value_and_numbers_its_columns(pair):
    drawn = figures.agreement(pair)
    value = figures.agreement.data(pair)["jaccard"].iloc[0]
    assert len(drawn.data) == 2
    assert drawn.data[0].text[0][1] == f"{value:.2f}"
    assert np.isnan(drawn.data[0].z[0][0])
    assert f"{value:.2f}" in figures.alt(drawn)
    assert "1,000 weights" in figures.note(drawn)


def test_the_first_layer_is_shown_once_before_and_after_each_run_removed_weights_apart():
    start = np.arange(1.0, 2 * 2 * 3 + 1).reshape(2, 1, 2, 3)
    kept, order = np.ones(1000, bool), np.arange(1, 1001)
    made = []
    for method in ("snip", "magnitude"):
        after = start.copy()
        after[0, 0, 0, 0] = 0
        pixels = np.full((1, 2, 3), 51, np.uint8)
        pixels[0, 1, 2] = 0
        made.append(run(method, kept, order, start={"weights": start}, after={"weights": after, "pixels": pixels}))
    table = figures.first.data(made)
    assert table.groupby(["run", "when"], sort=False).ngroups == 3
    assert table[table["when"] == "after"].groupby("run")["removed"].sum().tolist() == [1, 1]
    drawn = figures.first(made)
    assert [np.nansum(trace.z) for trace in drawn.data if trace.coloraxis == "coloraxis"] == [78, 77, 77]
    assert sum(np.asarray(trace.z).sum() for trace in drawn.data if trace.coloraxis == "coloraxis2") == 2
    read = figures.inputs.data(made)
    assert read.groupby("run")["kept"].sum().tolist() == pytest.approx([1, 1])
    assert "1 of 6 inputs read by none" in figures.alt(figures.inputs(made))


@pytest.mark.parametrize("figure", ["first", "inputs", "agreement"])
def test_nothing_recorded_draws_an_empty_titled_figure(figure):
    bare = HandMade(RunConfig(method="snip", probes=()), {}, {0.9: 0.8})
    drawn = figures.FIGURES[figure]([bare])
    assert not drawn.data
    assert drawn.layout.title.text


def test_on_the_samples_scores_that_share_a_start_agree_more_than_those_that_do_not(tmp_path):
    store = Store(tmp_path, readonly=False)
    table = store.runs()
    rows = table[(table["model"] == "lenet-300-100") & (table["dataset"] == "digits") & (table["seed"] == 0)]
    starts = {"snip": "init", "grasp": "init", "magnitude": "trained", "obs": "trained", "random": "init"}
    ids = {
        key: rows.loc[(rows["method"] == key) & (rows["start"] == start), "id"].iloc[0] for key, start in starts.items()
    }
    found = figures.agreement.data([store.run(id_) for id_ in ids.values()]).set_index(["run", "with_run"])
    random = [found.loc[(ids["random"], ids[key]), "correlation"] for key in ("snip", "grasp", "magnitude", "obs")]
    assert max(map(abs, random)) < 0.03  # 20,000 weights: four standard errors
    assert found.loc[(ids["magnitude"], ids["obs"]), "correlation"] > 0.3
    for key in ("snip", "magnitude"):
        pair = found.loc[(ids["random"], ids[key])]
        assert abs(pair["jaccard"] - pair["chance"]) < 0.03
    store.close()

"""The moving grid: the numbers that its payload holds, and how much of them goes to a browser."""

from __future__ import annotations

import json
from base64 import b64decode
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from handmade import LAYERS, SPARSITIES, HandMade, long_run, run, signed_run, structured

from pruneviz.figures.grid import masks, payload
from pruneviz.plan.config import RunConfig


@pytest.fixture
def four() -> list[Any]:
    return [run(method) for method in ("random", "magnitude", "lottery-ticket", "snip")]


def test_the_payload_holds_every_layer_and_sparsity_of_every_run(four):
    sent = payload(four)
    assert sent["sparsities"] == list(SPARSITIES)
    assert [layer["name"] for layer in sent["layers"]] == LAYERS
    assert sent["layers"][sent["layer"]]["size"] == max(layer["size"] for layer in sent["layers"])
    for sending in sent["runs"]:
        assert len(sending["saliency"]) == len(sending["spectra"]["tuned"]) == len(sending["jacobians"]["pruned"]) == 3
        bars = sending["saliency"][1]["layers"][0]
        assert sum(bars["kept"]) == bars["alive"] == 100
        assert sum(bars["removed"]) == 900
        assert sending["tuned"] == [0.96, 0.9, 0.5]
        assert sending["spectra"]["start"][0]["A"]["rank"] == pytest.approx(10)
    assert json.loads(json.dumps(sent, allow_nan=False)) == sent


def test_the_share_removed_of_each_layer_is_sent_beside_that_of_all_weights(four):
    sent = payload(four)["runs"][0]
    assert sent["removed"] == [pytest.approx([s, s]) for s in SPARSITIES]
    assert sent["overall"] == list(SPARSITIES)


def test_only_a_layer_that_lost_everything_has_lost_all_of_it():
    made = run()
    bars = made.probes["saliency-0.9"][0]
    bars["sizes"], bars["alive"] = np.array([10**6, 200]), np.array([1, 0])
    assert payload([made])["runs"][0]["removed"][1] == [0.9999, 1]


def blocks(sent: dict[str, Any], *, sparsity: int = 0, layer: int = 0) -> np.ndarray:
    """A mask as the browser reads it."""
    images = sent["runs"][0]["masks"]
    sides = [len(sent["edges"][str(n)]) - 1 for n in images["shapes"][layer]]
    return np.frombuffer(b64decode(images["kept"][sparsity][layer]), np.uint8).reshape(sides)


def test_a_mask_is_a_byte_a_block_and_says_which_rows_and_columns_it_holds(four):
    sent = payload(four)
    assert sent["runs"][0]["masks"]["shapes"] == [[100, 10], [20, 10]]
    assert blocks(sent).shape == (32, 10)
    assert blocks(sent)[0, 0] == 255
    assert set(blocks(sent).flat[1:]) == {round(255 * 0.5)}
    assert set(blocks(sent, sparsity=2, layer=1).flat) == {round(255 * 0.02)}
    assert sent["edges"]["10"] == list(range(11))


@pytest.mark.parametrize("size", [1, 7, 32, 33, 100, 784])
def test_the_blocks_are_those_of_array_split(size):
    parts = np.array_split(np.arange(size), min(size, 32))
    assert masks.edges(size) == [part[0] for part in parts] + [size]
    assert masks.edges(size, 4) == [part[0] for part in parts[::4]] + [size]


@pytest.mark.parametrize(("outputs", "inputs"), [(100, 300), (33, 5), (3, 4608)])
def test_merged_blocks_keep_the_share_of_the_weights_that_they_hold(outputs, inputs):
    mask = np.random.default_rng(0).random((outputs, inputs)) < 0.3

    def shares(merge: int) -> np.ndarray:
        rows, columns = (masks.edges(n, merge) for n in mask.shape)
        return np.array([
            [mask[a:b, c:d].mean() for c, d in pairwise(columns)] for a, b in pairwise(rows)
        ])  # fmt: skip

    found = masks.merged(255 * shares(1), outputs, inputs, 2)
    assert found == pytest.approx(255 * shares(2), abs=0.51)


def test_a_merged_block_is_empty_or_whole_only_where_all_of_it_is():
    most, least = np.full((32, 32), 255), np.zeros((32, 32), int)
    most[0, 0], least[0, 0] = 254, 1
    assert masks.merged(most, 3200, 3200, 4)[0, :2].tolist() == [254, 255]
    assert masks.merged(least, 3200, 3200, 4)[0, :2].tolist() == [1, 0]


def test_a_run_without_masks_sends_none():
    made = run()
    for s in SPARSITIES:
        del made.probes[f"masks-{s:g}"]
    assert "masks" not in payload([made])["runs"][0]


def test_a_layer_without_a_mask_has_none_beside_one_that_has():
    made = run()
    arrays, _ = made.probes["masks-0.9"]
    made.probes["masks-0.9"] = arrays, LAYERS[:1]
    kept = payload([made])["runs"][0]["masks"]["kept"][1]
    assert [image is None for image in kept] == [False, True]


def test_methods_have_the_mean_over_their_seeds_and_its_range():
    seeds = [run(seed=seed, accuracy=dict(zip(SPARSITIES, tuned, strict=True))) for seed, tuned in enumerate(
        [(0.96, 0.9, 0.5), (0.94, 0.9, 0.2), (0.95, 0.87, 0.8)])]  # fmt: skip
    sent = payload(seeds[:1], {seeds[0].id: seeds})["runs"][0]
    assert sent["tuned"] == [0.96, 0.9, 0.5]  # the first seed's own
    assert sent["over"]["seeds"] == [0, 1, 2]
    assert sent["over"]["tuned"] == pytest.approx([0.95, 0.89, 0.5])
    assert sent["over"]["pruned"] == pytest.approx([0.475, 0.445, 0.25])
    assert (sent["over"]["low"], sent["over"]["high"]) == ([0.94, 0.87, 0.2], [0.96, 0.9, 0.8])
    assert sent["over"]["dense"] == pytest.approx(0.97)
    assert "over" not in payload(seeds)["runs"][0]


def test_a_method_s_other_views_are_those_of_its_first_seed():
    bare = HandMade(RunConfig(method="snip", sparsities=SPARSITIES, seed=1, probes=()), {}, {0.5: 0.9, 0.9: 0.8})
    sent = payload([bare], {bare.id: [run(seed=0), bare]})["runs"][0]
    assert sent["id"] == bare.id
    assert sent["removed"][0] == [0.5, 0.5]


def test_a_seed_that_did_not_reach_a_sparsity_is_left_out_of_its_mean():
    first, second = run(seed=0), run(seed=1, accuracy={0.5: 0.9})
    over = payload([first], {first.id: [first, second]})["runs"][0]["over"]
    assert over["tuned"] == pytest.approx([0.93, 0.9, 0.5])
    assert over["low"] == [0.9, 0.9, 0.5]


@pytest.mark.parametrize("layers", [3, 16, 60])
def test_the_payload_stays_small(layers):
    runs = [long_run(layers, 500, method) for method in ("snip", "random", "magnitude", "lottery-ticket")]
    sent = payload(runs)
    assert len(json.dumps(sent, separators=(",", ":"))) <= 300_000
    quantiles = sent["runs"][0]["jacobians"]["start"][0]
    assert (len(quantiles) - 1) % 4 == 0  # quartiles are among them
    assert len(sent["layers"]) + sent["left_out"] == layers
    assert (
        sum(sent["runs"][0]["saliency"][0]["layers"][0]["kept"])
        == long_run(layers, 500).probes["saliency-0.5"][0]["kept"][0].sum()
    )


@pytest.mark.parametrize("layers", [3, 16])
def test_six_runs_with_all_their_seeds_stay_small_too(layers):
    runs = [
        long_run(layers, 500, method) for method in ("snip", "random", "magnitude", "obd", "grasp", "lottery-ticket")
    ]
    seeds = {made.id: [made, *(long_run(1, 8, made.config.method, seed) for seed in (1, 2))] for made in runs}
    assert len(json.dumps(payload(runs, seeds), separators=(",", ":"))) <= 300_000


def test_a_run_without_probes_still_has_its_curve():
    bare = HandMade(RunConfig(method="snip", sparsities=SPARSITIES, probes=()), {}, {0.5: 0.9, 0.9: 0.8})
    sent = payload([bare, run()])
    assert sent["runs"][0]["saliency"] == [None, None]
    assert sent["runs"][0]["tuned"] == [0.9, 0.8]


def test_scores_with_a_sign_say_how_their_axis_was_made():
    sent = payload([signed_run(), run()])["runs"][0]["saliency"][0]
    assert (sent["log"], sent["linear"]) == (2, 1e-4)


def test_a_repair_is_a_moment_of_its_own():
    sent = payload([run("snip", repair="isometry"), run("snip")])["runs"]
    assert sent[0]["jacobians"]["pruned"][1][0][-1] == pytest.approx(sent[0]["jacobians"]["repaired"][1][0][-1] / 10)
    assert "repaired" not in sent[1]["jacobians"]
    assert sent[0]["zeroed"] == pytest.approx([0.24, 0.225, 0.125])
    assert "zeroed" not in sent[1]


@pytest.mark.parametrize(
    ("method", "noun"), [("obd", "weights"), ("kron-obd", "filters"), ("eigendamage", "directions")]
)
def test_a_column_says_what_its_method_removes(method: str, noun: str):
    assert payload([structured(method)])["runs"][0]["unit"] == noun


def test_whole_units_have_a_speed_and_may_leave_a_layer_unscored():
    sent = payload([structured(), run("snip")])["runs"]
    assert sent[0]["saliency"][0]["layers"][1] is None
    assert sent[0]["removed"][0] == [0.5, None]
    assert sent[0]["speedup"] == [2.0, 0.8]
    assert "speedup" not in sent[1]

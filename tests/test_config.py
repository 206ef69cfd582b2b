"""Configurations: complete, canonical, and refused with the mend."""

from __future__ import annotations

import json
import math
from itertools import pairwise

import pytest

from pruneviz.basics.errors import InvalidSetting, UnknownName, Unsuitable
from pruneviz.plan.comparison import plan
from pruneviz.plan.config import ID, SPARSITIES, RunConfig
from pruneviz.plan.departures import told
from pruneviz.plan.schedule import round_targets


def test_what_is_left_out_comes_from_the_cards():
    run = RunConfig(method="lottery-ticket")
    assert (run.start, run.survivors, run.scope) == ("trained", "rewind", "layer")
    assert run.rounds == math.ceil(math.log(0.02) / math.log(0.8))
    assert run.departures == ()


def test_the_id_follows_everything_but_the_note():
    run = RunConfig(method="snip", sparsities=[0.9, 0.5])
    assert ID.fullmatch(run.id)
    assert run.id.startswith("snip-lenet-300-100-digits-")
    assert run.id == RunConfig(method="snip", sparsities=(0.5, 0.9), note="for class 3").id
    others = [
        {"seed": 1}, {"sparsities": [0.5]}, {"params": {"batches": 2}}, {"train": {"epochs": 1}}, {"model": "digits-cnn"},
        {"control": "invert"}, {"probes": ()}, {"rounds": 4}, {"survivors": "reinit"}, {"scope": "layer"}, {"start": "trained"},
    ]  # fmt: skip
    ids = {RunConfig(**{"method": "snip", "sparsities": [0.5, 0.9], **other}).id for other in others}
    assert len(ids | {run.id}) == len(others) + 1


def test_the_width_is_part_of_what_a_run_and_its_dense_network_are():
    plain, narrow = (RunConfig(method="snip", model="resnet-20", width=width) for width in (1, 1 / 8))
    assert plain == RunConfig(method="snip", model="resnet-20")
    assert '"width":0.125' in narrow.canonical
    assert narrow.id != plain.id
    assert narrow.dense_key != plain.dense_key
    assert narrow.departures == ()


def test_a_comparison_takes_the_width_to_every_run():
    configs = plan(["random", "magnitude"], model="conv-2", width=0.5, seeds=[0, 1]).configs
    assert {config.width for config in configs} == {0.5}
    with pytest.raises(InvalidSetting, match="width: 'lenet-300-100' comes in one width"):
        plan(["random"], width=0.5)


def test_a_configuration_survives_json():
    run = RunConfig(method="magnitude", model="vgg-16", dataset="mnist", width=1 / 3, tune={"epochs": 3}, seed=7)
    again = RunConfig(**json.loads(run.model_dump_json()))
    assert again == run
    assert again.id == run.id


def test_departures_are_named():
    run = RunConfig(method="magnitude", rounds=1, params={"scale": "none"})
    assert run.departures == ("rounds 1 instead of 5", "scale none instead of std")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "snipp"}, "Did you mean 'snip'?"),
        ({"method": "snip", "model": "lenet-300"}, "Did you mean 'lenet-300-100'?"),
        ({"method": "snip", "dataset": "digit"}, "Did you mean 'digits'?"),
        ({"method": "snip", "sparsities": []}, "at least one sparsity"),
        ({"method": "snip", "sparsities": [95]}, "below 1; found 95. Did you mean 0.95?"),
        ({"method": "snip", "sparsities": [1.0]}, "at least 0 and below 1; found 1"),
        ({"method": "snip", "sparsities": "half"}, "Sparsities are numbers"),
        ({"method": "snip", "params": {"batch": 3}}, "Did you mean 'batches'?"),
        ({"method": "snip", "params": {"batches": 0}}, "batches: input should be greater than or equal to 1, found 0"),
        ({"method": "snip", "start": "middle"}, "start: input should be 'init' or 'trained', found 'middle'"),
        ({"method": "snip", "train": {"epochs": -1}}, "epochs: input should be greater than or equal to 0"),
        ({"method": "snip", "note": "<script>"}, "note"),
        ({"method": "snip", "rounds": 0}, "rounds: input should be greater than or equal to 1"),
        ({"method": "snip", "model": "lenet-5-caffe"}, "at least 16 x 16 pixels"),
        (
            {"method": "snip", "width": 2},
            "'lenet-300-100' comes in one width, 1; found 2. Leave it out, or try resnet-20",
        ),
        ({"method": "snip", "model": "resnet-20", "width": 0}, "width: input should be greater than 0, found 0"),
        (
            {"method": "snip", "model": "resnet-20", "width": 9},
            "width: input should be less than or equal to 8, found 9",
        ),
        ({"method": "snip", "model": "resnet-20", "width": "wide"}, "width: input should be a valid number"),
        ({"method": "snip", "model": "vgg-16"}, "at least 17 x 17 pixels"),
        ({}, "needs a method"),
    ],
)
def test_bad_settings_are_refused_with_the_mend(settings: dict, message: str):
    with pytest.raises((InvalidSetting, UnknownName, Unsuitable)) as error:
        RunConfig(**settings)
    assert message in str(error.value)


def test_round_targets_are_geometric_and_pass_through_every_sparsity():
    targets = round_targets((0.5, 0.8, 0.9, 0.95, 0.98), 18)
    assert len(targets) == 18
    assert [t for t, asked in targets if asked] == [0.5, 0.8, 0.9, 0.95, 0.98]
    kept = [1.0, *(1 - t for t, _ in targets)]
    assert all(0.75 < b / a < 0.85 for a, b in pairwise(kept))
    assert round_targets((0.75,), 2) == [(0.5, False), (0.75, True)]
    assert round_targets((0.1, 0.2, 0.98), 3) == [(0.1, True), (0.2, True), (0.98, True)]
    assert round_targets((0.0, 0.5), 2) == [(0.0, True), (0.5, True)]


def test_epochs_spent_count_what_the_start_cost():
    magnitude, snip = RunConfig(method="magnitude"), RunConfig(method="snip")
    assert magnitude.epochs_spent(magnitude.steps[2]) == 30 + 3 * 15
    assert snip.epochs_spent(snip.steps[2]) == 30


def test_a_comparison_shows_random_from_both_starts_only_where_a_trained_method_is_compared():
    starts = [(c.method, str(c.start)) for c in plan(["random", "magnitude", "snip"], seeds=[0]).configs]
    assert starts == [("random", "init"), ("random", "trained"), ("magnitude", "trained"), ("snip", "init")]
    assert [(c.method, str(c.start)) for c in plan(["random", "snip"]).configs] == [
        ("random", "init"),
        ("snip", "init"),
    ]
    with pytest.raises(InvalidSetting, match="at least one method"):
        plan([])


def test_a_run_s_repair_is_one_departure_not_two():
    said = RunConfig(method="isometry", repair="rescale").departures
    assert [text for text in said if "repair" in text] == ["repair rescale instead of none"]


def test_a_copy_with_another_value_has_an_id_of_its_own():
    one = RunConfig(method="snip")
    assert one.id == RunConfig(method="snip", sparsities=SPARSITIES, seed=0).id  # said or not
    two = one.model_copy(update={"seed": 3})
    assert two.given["seed"] == 3
    assert two.id == RunConfig(method="snip", seed=3).id != one.id


def test_an_id_hashes_what_was_said_and_nothing_that_a_later_version_adds():
    """A setting of tomorrow with today's behaviour as its default leaves every id as it is."""
    said = RunConfig(method="obs", params={"blocks": 50}, sparsities=(0.5, 0.9), train={"epochs": 3}).given
    assert said == {
        "dataset": "digits", "model": "lenet-300-100", "method": "obs", "seed": 0, "sparsities": (0.5, 0.9),
        "train": {"epochs": 3}, "params": {"blocks": 50},
    }  # fmt: skip

    class Tomorrow(RunConfig):
        schedule: str = "constant"

    for given in ({"method": "snip"}, {"method": "lottery-ticket", "rounds": 3, "scope": "layer", "seed": 2}):
        assert Tomorrow(**given).id == RunConfig(**given).id != Tomorrow(**given, schedule="cosine").id
    assert RunConfig(method="snip").id == "snip-lenet-300-100-digits-b535d644c1ba"


def test_rounds_without_training_and_layers_left_alone_are_part_of_the_id_where_they_say_something():
    plain = RunConfig(method="snip", rounds=4)
    assert RunConfig(method="snip", rounds=4, skip=(), recalibrate=False, between="train").id == plain.id
    others = [{"skip": "head"}, {"skip": ("a", "head")}, {"recalibrate": True}, {"between": "none"}]
    assert len({plain.id, *(RunConfig(method="snip", rounds=4, **each).id for each in others)}) == 5
    assert RunConfig(method="snip", skip=["head", "a", "a"]).id == RunConfig(method="snip", skip=("a", "head")).id
    assert RunConfig(method="snip", between="none").id == RunConfig(method="snip").id  # one shot: nothing lies between
    with pytest.raises(InvalidSetting, match="skip is a list of layers"):
        RunConfig(method="snip", skip=3)


def test_epochs_are_those_that_are_trained():
    settings = {"train": {"epochs": 7}, "tune": {"epochs": 2}, "sparsities": (0.5, 0.9)}
    assert RunConfig(method="magnitude", rounds=10, **settings).epochs == 7 + 10 * 2
    alone = RunConfig(method="magnitude", rounds=10, between="none", **settings)
    assert alone.epochs == 7 + 2 * 2
    assert {alone.epochs_spent(step) for step in alone.steps if step.requested} == {9}
    assert RunConfig(method="snip", rounds=10, between="none", **settings).epochs == 7 + 2 * 7


def test_each_setting_that_departs_is_told_once_with_what_it_changes():
    config = RunConfig(method="l1-filters", model="digits-cnn", skip=("1",), recalibrate=True, rounds=3, between="none")
    assert config.params["skip"] in (["1"], ("1",))
    said = [told(text, config.method) for text in config.departures]
    assert sorted(each.what for each in said) == ["between", "recalibrate", "rounds", "skip"]
    assert all(": " in each.rest for each in said)

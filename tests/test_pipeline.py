"""The one loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import pruneviz as pv
from pruneviz.basics.errors import InvalidSetting, Unsuitable
from pruneviz.basics.events import Arrays, Done, Failed, Metric, Progress, Weights
from pruneviz.curvature.task import Task, generator_for
from pruneviz.datasets.base import Splits
from pruneviz.methods import METHODS, method_class
from pruneviz.methods.base import Unit
from pruneviz.models import MODELS
from pruneviz.run.dense import DenseCache, state_of
from pruneviz.run.loop import Resume
from pruneviz.run.probes import BINS, change

QUICK = {"train": {"epochs": 2}, "tune": {"epochs": 1}, "sparsities": (0.5, 0.9)}


def run(method: str, cache: DenseCache | None = None, **settings):
    config = pv.RunConfig(method=method, **{**QUICK, **settings})
    return config, list(pv.execute([config], cache=cache or DenseCache(), device="cpu"))


def numbers(events) -> dict:
    """All but what a clock gave."""
    return {
        (e.sparsity, e.stage, e.split, e.metric): e.value
        for e in events
        if isinstance(e, Metric) and not e.metric.startswith(("latency", "speedup"))
    }


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[k], b[k], equal_nan=True) for k in a)


@pytest.mark.parametrize("model", ["lenet-300-100", "digits-cnn"])
@pytest.mark.parametrize("method", list(METHODS))
def test_every_method_runs_end_to_end_and_fills_the_four_views(method: str, model: str):
    if method == "l1-filters" and not MODELS[model].convolutions:
        with pytest.raises(Unsuitable, match="L1 filters needs a convolution; 'lenet-300-100' has none"):
            run(method, model=model)
        return
    whole = METHODS[method].unit is not Unit.WEIGHT
    low, high = (0.3, 0.5) if whole else QUICK["sparsities"]
    config, events = run(method, model=model, sparsities=(low, high))
    assert [e for e in events if isinstance(e, Failed)] == []
    assert isinstance(events[-1], Done)
    found = numbers(events)
    for s in config.sparsities:
        for stage in ("pruned", "tuned"):
            assert 0 <= found[s, stage, "test", "accuracy"] <= 1
            assert s - 0.08 * whole <= found[s, stage, "", "reached"] + 1e-4
            assert found[s, stage, "", "reached"] <= s + 1e-4
    arrays = {e.name: e for e in events if isinstance(e, Arrays)}
    assert {f"saliency-{low}", f"saliency-{high}", "spectra-start", f"spectra-tuned-{high}", "jacobians-start",
            f"jacobians-pruned-{high}", f"jacobians-tuned-{high}"} <= arrays.keys()  # fmt: skip
    saliency = arrays[f"saliency-{high}"]
    layers = saliency.meta["layers"].split("\n")
    assert saliency.arrays["kept"].shape == (len(layers), BINS)
    total = saliency.arrays["kept"].sum(1) + saliency.arrays["zeros"][:, 0]
    assert total.tolist() == saliency.arrays["alive"].tolist()
    fractions = [e.fraction for e in events if isinstance(e, Progress)]
    assert fractions == sorted(fractions)
    assert all(torch.isfinite(torch.from_numpy(a)).all() for e in arrays.values() for a in e.arrays.values())


@pytest.mark.parametrize("model", [key for key, card in MODELS.items() if card.convolutions])
def test_every_method_that_claims_a_convolutional_network_runs_on_it(model: str, monkeypatch):
    """Deep networks at width 1/8, in batches of 8, on a few random images: from training to the last measurement."""
    generator = torch.Generator().manual_seed(0)
    dataset, shape = ("digits", (1, 8, 8)) if model == "digits-cnn" else ("mnist", (1, 28, 28))
    parts = [(torch.rand(n, *shape, generator=generator), torch.arange(n) % 10) for n in (24, 10, 10)]
    made = Splits(*parts, classes=tuple("0123456789"), shape=shape)
    monkeypatch.setattr("pruneviz.run.given.load", lambda _: made)
    settings = {"dataset": dataset, "model": model, "width": 1 / 8 if MODELS[model].widths else 1.0, "sparsities": (0.2,), "rounds": 1,
                "train": {"epochs": 1, "batch_size": 8}, "tune": {"epochs": 1}, "probes": ("saliency",)}  # fmt: skip
    configs = []
    for method in METHODS:
        method_class(method).suits(MODELS[model])
        params = {"blocks": 50} if method == "obs" else {"repair": False} if method == "isometry" else {}
        configs.append(pv.RunConfig(method=method, params=params, **settings))
    events = list(pv.execute(configs, device="cpu"))
    assert [e.message for e in events if isinstance(e, Failed)] == []
    assert [e.run for e in events if isinstance(e, Done)] == [config.id for config in configs]
    reached = {e.run: e.value for e in events if isinstance(e, Metric) and (e.stage, e.metric) == ("tuned", "reached")}
    most = {e.run: e.value for e in events if isinstance(e, Metric) and e.metric == "most"}
    for config in configs:  # thin layers have few directions to lose before their rotations outweigh them
        assert most[config.id] < 0.2 if config.id in most else 0.05 <= reached[config.id] <= 0.2001, config.method
    assert {config.method for config in configs if config.id in most} <= {"eigendamage"}


def test_the_same_seed_gives_the_same_numbers():
    assert same(numbers(run("snip")[1]), numbers(run("snip")[1]))


def test_each_seed_gives_other_numbers():
    assert not same(numbers(run("random")[1]), numbers(run("random", seed=1)[1]))


@pytest.mark.parametrize(
    ("method", "rounds"), [("magnitude", 4), ("snip", 1), ("l1-filters", 3), ("kron-obs", 1), ("eigendamage", 3)]
)
def test_a_resumed_run_equals_an_uninterrupted_one(method: str, rounds: int):
    settings = {} if METHODS[method].unit is Unit.WEIGHT else {"model": "digits-cnn", "sparsities": (0.3, 0.5)}
    config, whole = run(method, rounds=rounds, **settings)
    stages = [e for e in whole if isinstance(e, Weights)]
    assert len(stages) == len(config.steps)
    for done in range(1, len(stages)):
        kept = {e.stage: e.arrays for e in stages[:done]}
        resume = Resume(frozenset(kept), lambda stage, kept=kept: kept[stage])
        rest = list(pv.execute([config], resume=lambda _, r=resume: r, cache=DenseCache(), device="cpu"))
        cut = next(i for i, e in enumerate(whole) if e is stages[done - 1])
        before = numbers(e for e in whole[:cut])
        assert same(before | numbers(rest), numbers(whole))
        assert isinstance(rest[-1], Done)


def test_rewinding_trains_from_the_initial_weights_and_reinit_does_not():
    cache = DenseCache()
    config = pv.RunConfig(method="lottery-ticket", **{**QUICK, "train": {"epochs": 0}}, rounds=2)
    initial = state_of(pv.build(config.model, pv.load("digits"), seed=0))

    def weights(**settings) -> dict[str, np.ndarray]:
        _, events = run("lottery-ticket", cache, train={"epochs": 0}, rounds=2, **settings)
        return next(e for e in events if isinstance(e, Weights)).arrays

    def survivors(arrays: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        first = initial["1.weight"].numpy()
        keep = np.unpackbits(arrays["mask/1.weight"], count=first.size).astype(bool).reshape(first.shape)
        assert (arrays["weight/1.weight"][~keep] == 0).all()
        return arrays["weight/1.weight"][keep], first[keep]

    now, before = survivors(weights())
    assert np.array_equal(now, before)
    now, before = survivors(weights(survivors="reinit"))
    assert not np.isclose(now, before).any()
    now, before = survivors(weights(survivors="reinit-sign"))
    assert np.array_equal(np.sign(now), np.sign(before))
    assert not np.isclose(now, before).any()


def test_late_rewinding_goes_back_to_the_weights_after_k_steps():
    _, events = run("lottery-ticket", rewind_step=7, rounds=2, train={"epochs": 1})
    assert isinstance(events[-1], Done)
    _, events = run("lottery-ticket", rewind_step=10**6, rounds=2, train={"epochs": 1})
    assert isinstance(events[-1], Failed)
    assert "beyond the 20 steps" in events[-1].message


def test_dense_networks_are_trained_once_and_read_back(tmp_path, monkeypatch):
    first = run("magnitude", DenseCache(tmp_path))[1]
    with monkeypatch.context() as patch:
        patch.setattr("pruneviz.run.dense.fit", None)
        again = run("magnitude", DenseCache(tmp_path))[1]
    assert same(numbers(first), numbers(again))
    dense = [
        [e.values for e in events if isinstance(e, Progress) and e.stage == "dense" and e.values]
        for events in (first, again)
    ]
    assert dense[0] == dense[1] != []
    for path in tmp_path.glob("*-trained.safetensors"):
        path.write_bytes(b"damaged")
    assert same(numbers(run("magnitude", DenseCache(tmp_path))[1]), numbers(first))


def test_a_control_shuffles_within_layers_or_inverts():
    plain, shuffled, inverted = (
        {e.name: e.arrays for e in run("magnitude", control=c, rounds=1)[1] if isinstance(e, Arrays)}["saliency-0.9"]
        for c in ("none", "shuffle", "invert")
    )
    assert plain["alive"].tolist() == shuffled["alive"].tolist()
    assert inverted["alive"].tolist() != plain["alive"].tolist()


def test_collapse_is_warned_of_with_the_layer_s_name():
    events = run("random", control="none", sparsities=(0.9999,))[1]
    warned = [e.message for e in events if isinstance(e, Progress) and e.warning]
    assert warned
    assert isinstance(events[-1], Done)
    assert numbers(events)[0.9999, "pruned", "", "connected"] == 0.0


def test_an_error_ends_its_own_run_alone(monkeypatch):
    from pruneviz.methods.snip import Snip

    def broken(*_):
        raise RuntimeError("a bug")

    monkeypatch.setattr(Snip, "score", broken)
    configs = [pv.RunConfig(method=m, **QUICK, probes=()) for m in ("snip", "random")]
    events = list(pv.execute(configs, device="cpu"))
    failed = [e for e in events if isinstance(e, Failed)]
    assert [e.run for e in failed] == [configs[0].id]
    assert "RuntimeError: a bug" in failed[0].message
    assert "broken" in failed[0].traceback
    assert events[-1] == Done(configs[1].id)


def test_runs_that_are_not_wanted_any_more_are_left_out():
    configs = [pv.RunConfig(method=m, **QUICK, probes=()) for m in ("snip", "random")]
    events = list(pv.execute(configs, wanted=lambda id_: id_ == configs[1].id, device="cpu"))
    assert {e.run for e in events} == {configs[1].id}


def arrays_of(events) -> dict[str, dict[str, np.ndarray]]:
    return {e.name: e.arrays for e in events if isinstance(e, Arrays)}


@pytest.mark.parametrize("repair", ["isometry", "rescale"])
def test_a_repair_is_measured_before_and_after(repair: str):
    _, events = run("snip", repair=repair, sparsities=(0.9,), probes=("jacobians",))
    found, recorded = numbers(events), arrays_of(events)
    assert found[0.9, "zeroed", "test", "loss"] != found[0.9, "pruned", "test", "loss"]
    zeroed, repaired = recorded["jacobians-zeroed-0.9"], recorded["jacobians-pruned-0.9"]
    assert (repaired["mean"] > zeroed["mean"]).all()
    assert recorded["jacobians-start"]["end"].shape == (65,)


def test_without_a_repair_nothing_is_measured_twice():
    _, events = run("snip", sparsities=(0.9,), probes=("jacobians",))
    assert not [key for key in numbers(events) if key[1] == "zeroed"]
    assert not [name for name in arrays_of(events) if "zeroed" in name]


def test_the_run_s_repair_takes_the_place_of_the_method_s_own():
    assert pv.RunConfig(method="isometry").params["repair"] is True
    assert pv.RunConfig(method="isometry", repair="rescale").params["repair"] is False
    assert "repair rescale instead of none" in pv.RunConfig(method="isometry", repair="rescale").departures


def test_rewound_survivors_are_repaired_after_they_went_back():
    settings = {"train": {"epochs": 0}, "rounds": 1, "sparsities": (0.5,), "probes": ()}
    _, events = run("lottery-ticket", repair="rescale", **settings)
    weights = next(e for e in events if isinstance(e, Weights)).arrays
    for name in ("1.weight", "3.weight", "5.weight"):
        values = np.linalg.svd(weights[f"weight/{name}"], compute_uv=False)
        assert values.mean() == pytest.approx(1, rel=1e-5)


def test_single_removals_are_measured_with_the_method_s_own_update():
    recorded = {
        m: arrays_of(run(m, sparsities=(0.5,), probes=("change",))[1])["change-start"] for m in ("magnitude", "obs")
    }
    assert np.array_equal(recorded["magnitude"]["measured"], recorded["magnitude"]["zeroed"])
    obs = recorded["obs"]
    assert abs(obs["measured"]).mean() < abs(obs["zeroed"]).mean()
    assert len(obs["predicted"]) == len(obs["layer"]) == 199  # as many as 2e10 operations on 1,000 samples allow
    assert not obs["all"][0]


def test_in_a_small_network_every_single_removal_is_measured():
    _, events = run("obd", dataset="xor", model="mlp-2-2-1", sparsities=(0.5,), probes=("change",))
    found = arrays_of(events)["change-start"]
    assert found["all"][0]
    assert len(found["measured"]) == 2 * 2 + 2


def test_normalised_pixels_are_another_network_and_another_run():
    plain, normalised = (pv.RunConfig(method="snip", normalise=n) for n in (False, True))
    assert plain.dense_key != normalised.dense_key
    assert plain.id != normalised.id
    assert not same(numbers(run("snip", probes=())[1]), numbers(run("snip", normalise=True, probes=())[1]))


def test_the_cost_of_scoring_is_told_before_it_begins():
    _, events = run("obs", sparsities=(0.5,), probes=())
    said = [e.message for e in events if isinstance(e, Progress)]
    assert any(text.startswith("scoring: ") and "inverses of up to 301 weights" in text for text in said)


def test_the_samples_on_which_change_is_measured_are_those_of_the_score(monkeypatch):
    from pruneviz.methods.snip import Snip

    seen = {}
    ordinary = Snip.score

    def watching(self, model, task, mask):
        seen.setdefault("batches", [len(x) for x, _ in task.batches()])
        return ordinary(self, model, task, mask)

    monkeypatch.setattr(Snip, "score", watching)
    _, events = run("snip", sparsities=(0.5,), probes=("change",))
    assert seen["batches"] == [100]
    assert arrays_of(events)["change-start"]["samples"][0] == 100


def test_a_sparsity_that_whole_units_cannot_reach_is_told_and_the_rest_runs():
    _, events = run("eigendamage", model="digits-cnn", sparsities=(0.3, 0.9))
    found = numbers(events)
    assert isinstance(events[-1], Done)
    assert 0.5 < found[0.9, "pruned", "", "most"] < 0.9
    assert (0.9, "tuned", "test", "accuracy") not in found
    assert found[0.3, "tuned", "", "reached"] <= 0.3
    assert any(e.warning and "reaches at most" in e.message for e in events if isinstance(e, Progress))


def test_where_filters_leave_parameters_flops_and_latency_are_the_smaller_network_s():
    _, events = run("l1-filters", model="digits-cnn", sparsities=(0.5,))
    found = {(e.sparsity, e.stage, e.metric): e.value for e in events if isinstance(e, Metric)}
    assert found[0.5, "tuned", "parameters"] < 0.51 * found[0.0, "dense", "parameters"]
    assert found[0.5, "tuned", "flops"] < 0.6 * found[0.0, "dense", "flops"]
    for batch in (1, 256):
        assert found[0.0, "dense", f"latency_{batch}"] > 0
        assert found[0.5, "pruned", f"latency_{batch}"] > 0
        assert found[0.5, "pruned", f"speedup_{batch}"] > 0
    arrays = {e.name: e.arrays for e in events if isinstance(e, Arrays)}
    assert arrays["sensitivity-start"]["accuracy"].shape == (2, len(arrays["sensitivity-start"]["ratios"]))
    assert arrays["directions-start"]["vectors0"].shape == (6, 1, 3, 3)


def test_both_counts_of_eigendamage_are_recorded_and_its_directions_flagged():
    _, events = run("eigendamage", model="digits-cnn", sparsities=(0.5,))
    found = numbers(events)
    assert found[0.5, "pruned", "", "reached_compacted"] == pytest.approx(found[0.5, "pruned", "", "reached"])
    assert found[0.5, "pruned", "", "reached_core"] > found[0.5, "pruned", "", "reached_compacted"]
    cut = next(e.arrays for e in events if isinstance(e, Arrays) and e.name == "directions-pruned-0.5")
    kept = sum(int(cut[f"kept{side}{i}"].sum()) for side in "AS" for i in range(3))
    saliency = next(e.arrays for e in events if isinstance(e, Arrays) and e.name == "saliency-0.5")
    assert kept == saliency["alive"].sum()
    assert all((np.diff(cut[f"{side}{i}"]) <= 1e-6).all() for side in "AS" for i in range(3))


def test_directions_can_be_neither_rewound_nor_repaired():
    for setting in ({"survivors": "rewind"}, {"repair": "isometry"}, {"scope": "layer"}):
        with pytest.raises(InvalidSetting, match=next(iter(setting))):
            pv.RunConfig(method="eigendamage", **setting)


@pytest.mark.parametrize("method", ["magnitude", "obs", "l1-filters"])
def test_a_chain_that_runs_from_the_changed_layer_on_changes_as_one_that_runs_whole(method: str):
    class Whole(torch.nn.Sequential):
        """The same layers, but who knows what its code does with them."""

    data = pv.load("digits")
    chain = pv.build("digits-cnn", data)
    found = []
    for model in (chain, Whole(*chain)):
        chosen = method_class(method)()
        task = Task(lambda: [tuple(t[:100] for t in data.train)], generator_for(0, "score"))
        mask = chosen.full(model, task)
        found.append(change(chosen, model, task, mask, generator_for(0, "change"), 100))
    assert same(*(one.write()[0] for one in found))
    assert np.ptp(found[0].measured) > 0


def test_runs_that_score_the_same_network_share_one_sweep(monkeypatch):
    from pruneviz.curvature.statistic import Diagonal, Kronecker, Rows
    from pruneviz.run import statistics

    asked, passing = [], statistics.passing

    def watched(model, batches, wanted, **options):
        asked.append(tuple(wanted))
        return (yield from passing(model, batches, wanted, **options))

    monkeypatch.setattr(statistics, "passing", watched)
    settings = {**QUICK, "model": "lenet-300-100", "sparsities": (0.5,), "probes": ()}
    parts = [("obd", {"rounds": 1}), ("obs", {"params": {"blocks": 50}}), ("kron-obs", {}), ("kron-obd", {})]
    configs = [pv.RunConfig(method=method, **settings, **more) for method, more in parts]
    alone = [numbers(run(c.method, **settings, **more)[1]) for c, (_, more) in zip(configs, parts, strict=True)]
    asked.clear()
    events = list(pv.execute(configs, cache=DenseCache(), device="cpu"))
    # obd and obs draw the same thousand samples, the Kronecker methods the same two thousand
    assert asked == [(Diagonal("ggn"), Rows()), (Kronecker("sampled", 1),)]
    for config, expected in zip(configs, alone, strict=True):
        assert same(numbers([e for e in events if e.run == config.id]), expected)


def test_scoring_says_how_far_it_is():
    _, events = run("obd", rounds=1, sparsities=(0.5,), probes=())
    said = [e.message for e in events if isinstance(e, Progress) and "samples" in e.message]
    assert said == ["scoring: 500 of 1,000 samples"]


def test_rounds_without_training_between_prune_on_from_the_untrained_network():
    """SNIP in rounds at initialisation: each sparsity is scored on what the last round left, and trained by itself."""
    settings = {**QUICK, "model": "lenet-300-100", "sparsities": (0.5, 0.9), "probes": ("masks",)}
    config = pv.RunConfig(method="snip", rounds=4, between="none", **settings)
    assert [config.epochs_spent(step) for step in config.steps if step.requested] == [config.train.epochs] * 2
    events = list(pv.execute([config], cache=DenseCache(), device="cpu"))
    assert isinstance(events[-1], Done)
    weights = {e.stage: e.arrays for e in events if isinstance(e, Weights)}
    assert list(weights) == [step.name for step in config.steps if step.requested]
    # by hand: the same rounds on the initial network, and nothing else
    method = method_class("snip").from_params(config.params)
    data = pv.load("digits")
    model = pv.build("lenet-300-100", data, seed=0)
    mask = None
    for step in config.steps:
        generator = generator_for(0, f"score {step.name}")
        batches = list(method.draw(data.train, generator))
        task = Task(lambda batches=batches: batches, generator)
        mask = mask or method.full(model, task)
        mask = method.choose(model, task, method.score(model, task, mask), mask, step.target)
        mask.apply_(model)
        if step.requested:
            kept = {n: torch.from_numpy(weights[step.name][f"weight/{n}"]) != 0 for n in mask}
            assert all(not bool((kept[n] & ~keep).any()) for n, keep in mask.items())
    resumed = Resume(
        frozenset({config.steps[0].name}) | {s.name for s in config.steps if s.target == 0.5}, lambda _: {}
    )
    again = list(pv.execute([config], resume=lambda _: resumed, cache=DenseCache(), device="cpu"))
    (last,) = (e.arrays for e in again if isinstance(e, Weights))
    assert all((last[n] == weights[config.steps[-1].name][n]).all() for n in last)


def test_skipped_layers_stay_whole_in_a_run_and_recalibration_keeps_the_mask():
    settings = {**QUICK, "model": "lenet-300-100", "sparsities": (0.5,), "probes": ()}
    _, events = run("magnitude", rounds=1, skip=("3",), **settings)
    (weights,) = (e.arrays for e in events if isinstance(e, Weights))
    assert (weights["weight/3.weight"] != 0).all()
    reached = next(e.value for e in events if isinstance(e, Metric) and e.metric == "reached")
    assert reached == pytest.approx(0.5, abs=1e-4)
    with pytest.raises(Unsuitable, match=r"skip names 'hed'.*Did you mean 'head'|no layer with weights is called so"):
        _failed(run("magnitude", rounds=1, skip=("hed",), **settings)[1])


def test_an_unknown_layer_is_told_before_any_training():
    _, events = run("magnitude", rounds=1, skip=("hed",))
    assert not any(isinstance(e, Progress) and e.epoch is not None for e in events)
    assert "skip names 'hed'" in next(e.message for e in events if isinstance(e, Failed))


@pytest.mark.parametrize("method", ["kron-obd", "eigendamage", "obd", "l1-filters"])
def test_a_skipped_layer_stays_whole_for_every_kind_of_unit(method: str):
    settings = {**QUICK, "model": "digits-cnn", "sparsities": (0.3,), "probes": (), "train": {"epochs": 1}}
    name = next(
        n for n, m in pv.build("digits-cnn", pv.load("digits")).named_modules() if isinstance(m, torch.nn.Conv2d)
    )
    _, events = run(method, rounds=1, skip=(name,), **settings)
    assert isinstance(events[-1], Done), events[-1]
    (weights,) = (e.arrays for e in events if isinstance(e, Weights))
    assert (weights[f"weight/{name}.weight"] != 0).all()


def test_l1_filters_leaves_a_convolution_alone_by_its_number_too():
    settings = {**QUICK, "model": "digits-cnn", "sparsities": (0.3,), "probes": (), "train": {"epochs": 1}}
    data = pv.load("digits")
    name = next(n for n, m in pv.build("digits-cnn", data).named_modules() if isinstance(m, torch.nn.Conv2d))
    _, events = run("l1-filters", rounds=1, skip="1", **settings)
    (weights,) = (e.arrays for e in events if isinstance(e, Weights))
    assert (weights[f"weight/{name}.weight"] != 0).any(axis=(1, 2, 3)).all()


def test_recalibrated_statistics_are_those_of_the_pruned_network_on_the_scored_samples():
    """Means over batches by hand, of what enters each normalisation of the pruned network in training mode."""
    settings = {"model": "resnet-20", "width": 1 / 8, "sparsities": (0.6,), "probes": (), "rounds": 1}
    budgets = {"train": {"epochs": 1}, "tune": {"epochs": 0}}
    found = {}
    for again in (False, True):
        _, events = run("magnitude", **settings, **budgets, recalibrate=again)
        (found[again],) = (e.arrays for e in events if isinstance(e, Weights))
        assert isinstance(events[-1], Done)
    assert found[False].keys() == found[True].keys()
    weights = [n for n in found[True] if n.startswith("weight/") and "running" not in n and "num_batches" not in n]
    assert all((found[True][n] == found[False][n]).all() for n in weights)
    data = pv.load("digits")
    model = pv.build("resnet-20", data, seed=0, width=1 / 8)
    state = {n.removeprefix("weight/").removeprefix("buffer/"): torch.from_numpy(v) for n, v in found[True].items()}
    known = {n: state[n].view_as(v).to(v.dtype) for n, v in model.state_dict().items() if n in state}
    assert len(known) > 20
    model.load_state_dict(known, strict=False)
    norm = next(m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d))
    name = next(n for n, m in model.named_modules() if m is norm)
    seen = []
    norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].double()))
    model.train()
    x = data.train[0]
    with torch.no_grad():
        for part in x.split(500):
            model(part)
    mean = torch.stack([z.mean((0, 2, 3)) for z in seen]).mean(0)
    assert torch.allclose(known[f"{name}.running_mean"].double(), mean, atol=1e-5)


def test_ties_at_the_cut_are_told_once_and_what_is_scored_whole_is_not():
    warned = {}
    for method in ("snip", "magnitude"):
        _, events = run(method, rounds=1, sparsities=(0.02, 0.03), probes=())
        warned[method] = [e.message for e in events if isinstance(e, Progress) and e.warning]
    assert sum("tied at the cut: chance decides" in text for text in warned["snip"]) == 1  # pixels that are always dark
    assert warned["magnitude"] == []


def test_a_sparsity_about_little_of_the_network_is_told(monkeypatch):
    monkeypatch.setattr("pruneviz.run.measure.share", lambda network, names, *, skip: 0.4)
    _, events = run("magnitude", rounds=1, sparsities=(0.5,), probes=())
    warned = [e.message for e in events if isinstance(e, Progress) and e.warning]
    assert warned == ["only 40% of the matrix weights are scored and counted"]


def _failed(events):
    raise Unsuitable(next(e.message for e in events if isinstance(e, Failed)))

"""Masks that hold, and training that repeats."""

from __future__ import annotations

import pytest
import torch

import pruneviz as pv
from pruneviz.basics.errors import InvalidSetting
from pruneviz.curvature.task import generator_for
from pruneviz.run.training import evaluate, fit, train
from pruneviz.units.masks import Mask
from pruneviz.units.weights import prunable


@pytest.fixture(scope="module")
def digits():
    return pv.load("digits")


@pytest.mark.parametrize(
    "settings", [{"optimizer": "sgd", "lr": 0.1}, {"optimizer": "adam"}], ids=lambda s: s["optimizer"]
)
def test_pruned_weights_stay_zero_through_momentum_and_weight_decay(digits, settings):
    model = pv.build("digits-cnn", digits, seed=1)
    generator = torch.Generator().manual_seed(0)
    params = dict(model.named_parameters())
    mask = Mask({n: torch.rand(params[n].shape, generator=generator) < 0.3 for n in prunable(model)})
    before = {n: params[n].detach().clone() for n in mask}
    history = train(model, digits, epochs=2, mask=mask, weight_decay=0.01, **settings)
    for name, keep in mask.items():
        assert (params[name].detach()[~keep] == 0).all()
        assert not torch.equal(params[name].detach()[keep], before[name][keep])
    assert list(history["epoch"]) == [1, 2]


def test_training_learns_and_repeats(digits):
    one, two = (pv.build("lenet-300-100", digits, seed=0) for _ in range(2))
    first = pv.train(one, digits, epochs=3, seed=5)
    torch.rand(7)  # what others draw in between does not matter
    again = pv.train(two, digits, epochs=3, seed=5)
    assert first.equals(again)
    assert first["val_accuracy"].iloc[-1] > 0.85
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))


def test_keeping_the_best_epoch_goes_by_validation_data(digits):
    model = pv.build("lenet-300-100", digits, seed=0)
    history = train(model, digits, epochs=6, keep="best", lr=0.01)
    assert evaluate(model, *digits.val)["accuracy"] == history["val_accuracy"].max()


def test_evaluation_is_in_evaluation_mode_and_puts_the_mode_back(digits):
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Dropout(0.9), torch.nn.Linear(64, 10)).train()
    assert evaluate(model, *digits.val) == evaluate(model, *digits.val)
    assert model.training


def test_a_snapshot_is_asked_for_before_each_step(digits):
    model, steps = pv.build("lenet-300-100", digits), []
    list(
        fit(
            model,
            digits,
            pv.RunConfig(method="snip", train={"epochs": 1}).train,
            generator=generator_for(0, "x"),
            at_step=steps.append,
        )
    )
    assert steps == list(range(-(-1257 // 64) + 1))


def test_a_bad_budget_names_the_range(digits):
    with pytest.raises(InvalidSetting, match="lr: input should be greater than 0, found -1"):
        pv.train(pv.build("lenet-300-100", digits), digits, epochs=1, lr=-1)

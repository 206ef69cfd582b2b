"""The contract of every registered method, and each method against an oracle written differently."""

from __future__ import annotations

import math
import re
from typing import Literal, get_origin

import pytest
import torch
import torch.nn.functional as F
from problems import samples
from torch import nn

import pruneviz as pv
from pruneviz.basics.errors import InvalidSetting, UnknownName, Unsuitable
from pruneviz.methods import METHODS, method_class
from pruneviz.methods.base import Unit
from pruneviz.methods.lottery_ticket import removed_shares
from pruneviz.units.choice import count

KEYS = list(METHODS)


def _initial(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: torch.full_like(value, 0.1) for name, value in model.state_dict().items()}


def flat(scores: dict) -> dict[str, torch.Tensor]:
    """Scores by name: of weights as they are, of filters and directions by layer and axis."""
    return {
        f"{name} {axis}" if axis is not None else name: value
        for name, found in scores.items()
        for axis, value in (found.items() if isinstance(found, dict) else [(None, found)])
    }


def shapes(method: str, model: nn.Module) -> dict[str, tuple[int, ...]]:
    """What the contract promises of each unit, from the layers alone."""
    layers = {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)}
    inner = dict(list(layers.items())[:-1])
    match METHODS[method].unit:
        case Unit.WEIGHT:
            return {f"{n}.weight": tuple(m.weight.shape) for n, m in layers.items()}
        case Unit.FILTER:
            kinds = nn.Conv2d if method == "l1-filters" else (nn.Conv2d, nn.Linear)
            return {f"{n} 0": (len(m.weight),) for n, m in inner.items() if isinstance(m, kinds)}
        case Unit.EIGENBASIS:
            return {f"{n} {axis}": (m.weight.shape[axis],) for n, m in inner.items() for axis in (0, 1)}


def refused(method: str, kind: str) -> bool:
    """L1 filters on a network without convolutions."""
    return method == "l1-filters" and kind == "mlp"


# the contract


@pytest.mark.parametrize("kind", ["mlp", "cnn"])
@pytest.mark.parametrize("method", KEYS)
def test_scores_are_finite_repeatable_and_leave_everything_untouched(method: str, kind: str, request):
    model = request.getfixturevalue(kind)
    if refused(method, kind):
        with pytest.raises(Unsuitable, match="needs a convolution"):
            pv.score(model, *samples(model), method=method)
        return
    x, y = samples(model)
    model.train()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    rng = torch.random.get_rng_state()
    first = flat(pv.score(model, x, y, method=method, initial=_initial(model), seed=3))
    again = flat(pv.score(model, x, y, method=method, initial=_initial(model), seed=3))
    for name, value in first.items():
        assert torch.isfinite(value).all()
        assert torch.equal(value, again[name])
        assert value.dtype == torch.float64
    assert {name: tuple(value.shape) for name, value in first.items()} == shapes(method, model)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(torch.equal(p.grad, torch.ones_like(p)) for p in model.parameters() if p.grad is not None)
    assert all(p.grad is not None and p.requires_grad for p in model.parameters())
    assert model.training
    assert torch.equal(rng, torch.random.get_rng_state())


@pytest.mark.filterwarnings("ignore::pruneviz.basics.errors.PruningWarning")  # GraSP of ReLUs that are off: many zeros
@pytest.mark.parametrize("sparsity", [0.0, 0.37, 0.9])
@pytest.mark.parametrize("method", [key for key in KEYS if METHODS[key].unit is Unit.WEIGHT])
def test_prune_removes_exactly_what_was_asked_and_keeps_the_original(method: str, sparsity: float, cnn):
    x, y = samples(cnn)
    before = {k: v.clone() for k, v in cnn.state_dict().items()}
    found = pv.prune(cnn, x, y, method=method, sparsity=sparsity, initial=_initial(cnn))
    assert found.mask.removed == count(sparsity, found.mask.size)
    params = dict(found.model.named_parameters())
    assert all((params[name][~keep] == 0).all() for name, keep in found.mask.items())
    assert found.report["reached"] == found.mask.sparsity
    assert found.report["parameters"] == sum(p.numel() for p in cnn.parameters()) - found.mask.removed
    assert all(torch.equal(v, before[k]) for k, v in cnn.state_dict().items())


@pytest.mark.parametrize("method", KEYS)
def test_unknown_switches_and_bad_values_are_refused_with_the_mend(method: str, cnn):
    x, y = samples(cnn)
    with pytest.raises(UnknownName, match=f"No switch of '{method}' called 'nonsense'"):
        pv.score(cnn, x, y, method=method, nonsense=1)
    for name, field in method_class(method).model_fields.items():
        wrong = "no such value" if get_origin(field.annotation) is Literal or field.annotation is int else object()
        with pytest.raises(InvalidSetting, match=name):
            pv.score(cnn, x, y, method=method, **{name: wrong})


@pytest.mark.parametrize("method", KEYS)
def test_a_card_says_what_the_catalogue_shows(method: str):
    card = METHODS[method]
    assert card.key == method
    assert card.title
    assert card.idea.endswith(".")
    assert card.formula
    assert len(card.steps) >= 3
    assert method == "random" or (
        card.paper and card.paper.citation.endswith(".") and card.paper.bibtex.startswith("@")
    )


def test_an_unknown_method_suggests_the_nearest(mlp):
    with pytest.raises(UnknownName, match=re.escape("No method called 'snipp'. Did you mean 'snip'?")):
        pv.score(mlp, *samples(mlp), method="snipp")


@pytest.mark.parametrize("method", KEYS)
def test_float32_stays_float32(method: str, cnn):
    cnn.float()
    found = flat(pv.score(cnn, *samples(cnn), method=method, initial=_initial(cnn)))
    assert {value.dtype for value in found.values()} == {torch.float32}


# random


def test_random_depends_on_the_seed_alone(mlp):
    x, y = samples(mlp)
    one, two = (pv.score(mlp, x, y, method="random", seed=s)["0.weight"] for s in (0, 1))
    assert not torch.equal(one, two)


# magnitude


def test_magnitude_is_one_common_threshold_on_abs_w_over_std(mlp):
    with torch.no_grad():
        mlp[2].weight.mul_(50)
    found = pv.prune(mlp, *samples(mlp), method="magnitude", sparsity=0.6)
    c = found.report["threshold"]
    for layer, name in ((mlp[0], "0.weight"), (mlp[2], "2.weight")):
        w = layer.weight.detach().numpy()
        assert ((abs(w) > c * w.std() * (1 + 1e-12)) == found.mask[name].numpy()).all()


def test_gaussian_layer_loses_erf_c_over_sqrt_2():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(1000, 400)).double()
    nn.init.normal_(model[0].weight)
    found = pv.prune(model, torch.zeros(1, 1000).double(), torch.zeros(1).long(), method="magnitude", sparsity=0.9)
    assert math.erf(found.report["threshold"] / math.sqrt(2)) == pytest.approx(
        0.9, abs=2e-3
    )  # sampling error of 400,000 draws


def test_magnitude_std_none_ranks_abs_w_and_a_constant_layer_counts_as_std_1(mlp):
    with torch.no_grad():
        mlp[2].weight.fill_(-0.25)
    plain = pv.score(mlp, *samples(mlp), method="magnitude", scale="none")
    scaled = pv.score(mlp, *samples(mlp), method="magnitude")
    assert torch.equal(plain["0.weight"], mlp[0].weight.detach().abs())
    assert torch.equal(scaled["2.weight"], torch.full_like(scaled["2.weight"], 0.25))


def test_negative_weights_are_judged_by_their_size(mlp):
    with torch.no_grad():
        mlp[0].weight.copy_(-torch.arange(1.0, 31.0).view(5, 6))
    found = pv.prune(mlp, *samples(mlp), method="magnitude", sparsity=0.5)
    assert found.mask["0.weight"].flatten().tolist() == sorted(found.mask["0.weight"].flatten().tolist())


def test_include_bias_counts_biases(mlp):
    found = pv.prune(mlp, *samples(mlp), method="magnitude", sparsity=0.5, include_bias=True)
    assert found.mask.size == 6 * 5 + 5 + 5 * 3 + 3
    assert found.mask.removed == count(0.5, 53)


# the lottery ticket


def test_the_paper_s_schedule_for_lenet_300_100():
    paper = "100 80.0 64.1 51.3 41.1 32.9 26.3 21.1 16.9 13.5 10.8 8.7 7.0 5.6 4.5 3.6 2.9 2.3 1.9 1.5 1.2"
    sizes = [784 * 300, 300 * 100, 1000]
    for n, expected in enumerate(paper.split()):
        kept = sum(size * rate**n for size, rate in zip(sizes, (0.8, 0.8, 0.9), strict=True)) / sum(sizes)
        assert 100 * kept == pytest.approx(float(expected), abs=0.051)  # one printed digit
        removed = removed_shares(sizes, 1 - kept, 0.5)
        assert [1 - r / s for r, s in zip(removed, sizes, strict=True)] == pytest.approx(
            [0.8**n, 0.8**n, 0.9**n], rel=1e-9
        )


def test_lottery_criteria_are_what_they_say(mlp):
    x, y = samples(mlp)
    initial = {k: v * 0.5 - 0.1 for k, v in mlp.state_dict().items()}
    final, first = mlp[0].weight.detach(), initial["0.weight"]

    def scored(criterion: str) -> torch.Tensor:
        return pv.score(mlp, x, y, method="lottery-ticket", initial=initial, criterion=criterion)["0.weight"]

    assert torch.equal(scored("final"), final.abs())
    assert torch.equal(scored("increase"), final.abs() - first.abs())
    assert torch.equal(scored("movement"), (final - first).abs())
    assert torch.equal(scored("initial"), first.abs())


def test_a_criterion_without_the_initial_weights_says_what_is_missing(mlp):
    with pytest.raises(Unsuitable, match="criterion=movement reads the weights before training"):
        pv.score(mlp, *samples(mlp), method="lottery-ticket", criterion="movement")


def test_the_output_layer_loses_at_half_the_rate(cnn):
    found = pv.prune(cnn, *samples(cnn), method="lottery-ticket", sparsity=0.2)
    layers = found.mask.per_layer()
    assert layers["5.weight"] < layers["0.weight"] == pytest.approx(layers["2.weight"], abs=0.04)


# SNIP


@pytest.mark.parametrize("kind", ["mlp", "cnn"])
def test_snip_is_the_slope_at_a_gate_on_each_weight(kind: str, request):
    model = request.getfixturevalue(kind)
    x, y = samples(model)
    found = pv.score(model, x, y, method="snip")
    step = 1e-6
    for name, parameter in model.named_parameters():
        if not name.endswith("weight"):
            continue
        with torch.no_grad():
            flat = parameter.view(-1)
            for i in range(0, flat.numel(), 3):
                value = flat[i].clone()
                losses = []
                for gate in (1 + step, 1 - step):
                    flat[i] = value * gate
                    losses.append(F.cross_entropy(model(x), y))
                flat[i] = value
                slope = abs(float(losses[0] - losses[1])) / (2 * step)
                assert float(found[name].view(-1)[i]) == pytest.approx(slope, rel=1e-6, abs=1e-9)  # central differences


def test_snip_scores_a_fresh_network_only_when_asked(mlp):
    x, y = samples(mlp)
    same, fresh = (pv.score(mlp, x, y, method="snip", score_init=s)["0.weight"] for s in ("same", "fresh"))
    assert not torch.allclose(same, fresh)


def test_snip_bn_mode_matters_only_with_normalisation(mlp):
    x, y = samples(mlp)
    assert torch.equal(*(pv.score(mlp, x, y, method="snip", bn_mode=m)["0.weight"] for m in ("train", "eval")))
    model = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3)).double()
    one, two = (pv.score(model, x, y, method="snip", bn_mode=m)["0.weight"] for m in ("train", "eval"))
    assert not torch.allclose(one, two)
    assert torch.equal(model[1].running_mean, torch.zeros(5).double())


def test_snip_draws_the_paper_s_mini_batches():
    snip = method_class("snip")(batches=2)
    grey = (torch.zeros(500, 1, 8, 8), torch.zeros(500).long())
    colour = (torch.zeros(500, 3, 8, 8), torch.zeros(500).long())
    assert [len(x) for x, _ in snip.draw(grey, torch.Generator())] == [100, 100]
    assert [len(x) for x, _ in snip.draw(colour, torch.Generator())] == [128, 128]

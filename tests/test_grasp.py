"""GraSP and the product of Hessian and vector, against dense Hessians and finite differences in float64."""

from __future__ import annotations

import re
from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from problems import samples
from torch import Tensor, nn

import pruneviz as pv
from pruneviz.basics.errors import Unsuitable, UnsupportedLayer
from pruneviz.curvature.hvp import _few, hessian_gradient, hessian_vector_product
from pruneviz.curvature.task import Task, generator_for
from pruneviz.door.loss import CROSS_ENTROPY, SQUARED
from pruneviz.methods import method_class
from pruneviz.models._torch.initialisation import initialise_
from pruneviz.units.choice import select
from pruneviz.units.masks import Mask, Scores
from pruneviz.units.weights import prunable

Batch = tuple[Tensor, Tensor]


def flat(tensors: dict[str, Tensor]) -> Tensor:
    return torch.cat([t.flatten() for t in tensors.values()])


def dense(model: nn.Module, of: Callable[[Callable], Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Weights [P], gradient [P] and Hessian [P, P] of a loss written with the network as a function; biases are constants."""
    model = deepcopy(model)
    weights = {n: p.detach() for n, p in model.named_parameters() if n in prunable(model)}
    shapes = [w.shape for w in weights.values()]

    def loss(theta: Tensor) -> Tensor:
        parts = theta.split([s.numel() for s in shapes])
        named = {n: part.view(s) for n, part, s in zip(weights, parts, shapes, strict=True)}
        return of(lambda x: torch.func.functional_call(model, named, (x,)))

    theta = flat(weights)
    g = torch.autograd.functional.jacobian(loss, theta)
    return theta, g, torch.autograd.functional.hessian(loss, theta)


def grasp(model: nn.Module, x: Tensor, y: Tensor, **switches) -> Tensor:
    return flat(pv.score(model, x, y, method="grasp", **switches))


def task_of(x: Tensor, y: Tensor, loss=CROSS_ENTROPY) -> Task:
    return Task(lambda: [(x, y)], generator_for(0, "score"), loss=loss)


def normalised(seed: int = 0) -> nn.Module:
    """A small network with batch normalisation whose running statistics are not those of the samples."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 3)
    ).double()


def digits_cnn(**activation) -> nn.Module:
    """Convolutions, max-pools and no bias but zero, as before training."""
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(**activation), nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 3, padding=1), nn.MaxPool2d(2), nn.ReLU(**activation),
        nn.Flatten(), nn.Linear(24, 10),
    )  # fmt: skip
    return initialise_(model, torch.Generator().manual_seed(0)).double()


def digits(n: int = 40) -> Batch:
    x, y = pv.load("digits").train
    return x[:n].double(), y[:n]


# the product


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("sizes", [(5, 3), (40,), (1,) * 50, (30, 8, 200), (150, 150, 100)])
def test_the_check_takes_few_samples_spread_over_all(sizes: tuple[int, ...], mode: str):
    """In training mode of one batch, which normalisation needs whole or at least as a batch."""
    every = torch.arange(sum(sizes)).split(sizes)
    found = torch.cat([y for _, y in _few([(y[:, None], y) for y in every], mode)])
    assert len(found) <= 32
    assert len(found.unique()) == len(found)
    if sum(sizes) <= 32:
        assert len(found) == sum(sizes)
    elif mode == "eval":
        assert int(found.diff().max()) == int(found.diff().min())
        assert int(found[0]) == 0
        assert int(found[-1]) >= sum(sizes) - -(-sum(sizes) // 32)
    elif max(sizes) > 1:
        assert len(found) > 1


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_the_product_is_the_dense_hessian_times_the_vector(mode: str, cnn):
    """Also where batch normalisation differentiates its batch's mean and variance."""
    for model in (cnn, normalised()):
        x, y = samples(model)
        model.train(mode == "train")
        theta, _, H = dense(model, lambda f: F.cross_entropy(f(x), y))  # noqa: B023
        v = torch.randn(len(theta), generator=torch.Generator().manual_seed(1)).double()
        parts = v.split([dict(model.named_parameters())[n].numel() for n in prunable(model)])
        vector = {
            n: part.view_as(dict(model.named_parameters())[n]) for n, part in zip(prunable(model), parts, strict=True)
        }
        model.train(mode != "train")
        found = hessian_vector_product(model, [(x, y)], F.cross_entropy, vector, mode=mode, checked=True)
        torch.testing.assert_close(flat(found), H @ v, rtol=1e-10, atol=1e-13)


def test_the_product_does_not_depend_on_how_samples_are_batched(cnn):
    x, y = samples(cnn)
    vector = {"0.weight": torch.ones_like(cnn[0].weight), "5.weight": torch.ones_like(cnn[5].weight)}
    whole = hessian_vector_product(cnn, [(x, y)], F.cross_entropy, vector)
    parts = hessian_vector_product(cnn, [(x[:2], y[:2]), (x[2:], y[2:])], F.cross_entropy, vector)
    assert list(whole) == ["0.weight", "5.weight"]
    torch.testing.assert_close(flat(parts), flat(whole), rtol=1e-10, atol=1e-15)


def test_a_batch_that_normalises_itself_is_never_cut():
    """150 samples in training mode: their Hessian is that of one mean and one variance."""
    model = normalised()
    x = torch.randn(150, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    y = torch.arange(150) % 3
    model.train()
    _, g, H = dense(model, lambda f: F.cross_entropy(f(x), y))
    model.eval()
    found = hessian_gradient(model, [(x, y)], CROSS_ENTROPY, names=prunable(model), mode="train", checked=True)
    torch.testing.assert_close(flat(found), H @ g, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("sizes", [(230,), (20, 210), (1, 1, 228)])
def test_samples_that_go_in_portions_weigh_the_same(sizes: tuple[int, ...], cnn):
    """More than go at once, in one batch and in several of unequal size, checked and unchecked."""
    x = torch.randn(230, 1, 6, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    y = torch.arange(230) % 3
    theta, g, H = dense(cnn, lambda f: F.cross_entropy(f(x), y))
    batches = list(zip(x.split(sizes), y.split(sizes), strict=True))
    for checked in (True, False):
        found = hessian_gradient(cnn, batches, CROSS_ENTROPY, names=prunable(cnn), checked=checked)
        torch.testing.assert_close(flat(found), H @ g, rtol=1e-9, atol=1e-14)
    assert len(theta) == len(g)


def test_the_product_within_some_entries_takes_their_rows_and_columns(mlp):
    x, y = samples(mlp)
    theta, _, H = dense(mlp, lambda f: F.cross_entropy(f(x), y))
    keep = torch.arange(len(theta)) % 3 > 0
    within = {"0.weight": keep[:30].view(5, 6), "2.weight": keep[30:].view(3, 5)}
    vector = {name: torch.ones_like(k, dtype=torch.float64) for name, k in within.items()}
    found = flat(hessian_vector_product(mlp, [(x, y)], F.cross_entropy, vector, within=within))
    torch.testing.assert_close(found, keep * (H @ keep.double()), rtol=1e-10, atol=1e-14)


def test_a_linear_loss_has_the_product_zero(mlp):
    vector = {"0.weight": torch.ones(5, 6).double()}
    model = nn.Sequential(nn.Linear(6, 5)).double()
    found = hessian_vector_product(model, [samples(model)], lambda z, _: z.mean(), vector, checked=True)
    assert torch.equal(found["0.weight"], torch.zeros(5, 6).double())


def test_float32_is_computed_to_its_own_precision(cnn):
    x, y = samples(cnn)
    exact = pv.score(cnn, x, y, method="grasp")
    single = pv.score(cnn.float(), x.float(), y, method="grasp")
    assert {v.dtype for v in single.values()} == {torch.float32}
    torch.testing.assert_close(
        flat(single).double(), flat(exact), rtol=1e-4, atol=1e-5 * float(flat(exact).abs().max())
    )


# operations without a second derivative, in place or at a jump


class _Overwrites(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.a(x))
        h += 1  # tanh's derivative reads its output
        return self.b(h)


class _Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g):
        return g * 2


class _Unfinished(_Overwrites):
    def forward(self, x: Tensor) -> Tensor:
        return self.b(_Once.apply(torch.tanh(self.a(x))))


def test_an_operation_in_place_that_destroys_what_is_read_is_refused_with_the_mend():
    torch.manual_seed(0)
    model = _Overwrites().double()
    x, y = torch.randn(7, 6).double(), torch.arange(7) % 3
    vector = {name: torch.ones_like(p) for name, p in model.named_parameters() if p.dim() == 2}
    with pytest.raises(UnsupportedLayer, match=r"in-place operation has overwritten.*inplace=False.*y = y \+ x"):
        hessian_vector_product(model, [(x, y)], F.cross_entropy, vector)
    with pytest.raises(UnsupportedLayer, match="in-place operation"):
        pv.score(model, x, y, method="grasp")


def test_an_operation_that_can_be_differentiated_once_only_is_refused():
    torch.manual_seed(0)
    model = _Unfinished().double()
    with pytest.raises(UnsupportedLayer, match=r"not the derivative.*has no second derivative.*such as SNIP"):
        pv.score(model, torch.randn(7, 6).double(), torch.arange(7) % 3, method="grasp")


def test_activations_in_place_that_destroy_nothing_give_the_same_scores():
    x, y = digits()
    apart, inplace = digits_cnn(), digits_cnn(inplace=True)
    inplace.load_state_dict(apart.state_dict())
    assert torch.equal(grasp(inplace, x, y), grasp(apart, x, y))


def test_an_error_that_is_none_of_these_keeps_its_name(mlp):
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        hessian_gradient(mlp, [(torch.zeros(2, 4).double(), torch.zeros(2).long())], CROSS_ENTROPY)


def test_ties_of_equal_patches_and_blank_inputs_are_no_jumps():
    """In digits many windows tie, and many units lie exactly at their kink: none of them moves with the weights."""
    x, y = digits()
    model = digits_cnn()
    with torch.no_grad():
        before = model[0](x)
        windows = F.unfold(before.relu().reshape(-1, 1, 8, 8), 2, stride=2)
    assert float((before == 0).double().mean()) > 0.05
    assert float(((windows == windows.amax(1, keepdim=True)).sum(1) > 1).double().mean()) > 0.05
    assert bool(torch.isfinite(grasp(model, x, y)).all())


def test_ties_of_different_patches_in_a_max_pool_are_refused_by_name():
    """A filter of equal weights answers alike to different patches with the same sum."""
    x, y = digits()
    model = digits_cnn()
    with torch.no_grad():
        model[0].weight.fill_(0.1)
    with pytest.raises(UnsupportedLayer) as refused:
        pv.score(model, x, y, method="grasp")
    assert re.search(r": different patches tie for a maximum in the max-pool '2' \(\d+ times\)\. ", str(refused.value))
    assert "kink" not in str(refused.value)  # blank pixels leave units there, and they do not move


def test_units_at_their_kink_that_weights_do_move_are_refused_by_name():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5, bias=False), nn.ReLU(), nn.Linear(5, 3)).double()
    with torch.no_grad():
        model[0].weight.copy_(torch.ones(5, 6))
    x, y = torch.randn(9, 6).double().round(), torch.arange(9) % 3
    x[0] = torch.tensor([1, -1, 2, -2, 0, 0])  # its sum is zero, and it is not blank
    with pytest.raises(UnsupportedLayer, match="exactly at the kink of the activation '1'"):
        pv.score(model, x, y, method="grasp")


# the score


@pytest.mark.parametrize("temperature", [1.0, 200.0])
@pytest.mark.parametrize("kind", ["mlp", "cnn"])
def test_grasp_is_theta_times_the_explicit_hessian_times_the_gradient(kind: str, temperature: float, request):
    model = request.getfixturevalue(kind)
    x, y = samples(model)
    theta, g, H = dense(model, lambda f: F.cross_entropy(f(x) / temperature, y))
    expected = theta * (H @ g)
    found = grasp(model, x, y, temperature=temperature)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9 * float(expected.abs().max()))
    assert (found < 0).any()
    assert (found > 0).any()


def test_the_hessian_is_of_the_survivors_alone(mlp):
    x, y = samples(mlp)
    names = prunable(mlp)
    scores = Scores.of_weights({n: dict(mlp.named_parameters())[n].abs() for n in names})
    mask = select(scores, Mask.full(mlp, names), 0.4)
    mask.apply_(mlp)
    theta, g, H = dense(mlp, lambda f: F.cross_entropy(f(x) / 200, y))
    keep = flat(dict(mask)).double()
    found = method_class("grasp")().score(mlp, task_of(x, y), mask)
    expected = theta * keep * (H @ (keep * g))
    assert not torch.allclose(expected, theta * (H @ g), rtol=1e-3, atol=0.0)
    torch.testing.assert_close(torch.cat(list(found.values.values())), expected, rtol=1e-8, atol=1e-18)


@pytest.mark.parametrize("kind", ["mlp", "cnn"])
def test_removing_a_weight_changes_the_squared_gradient_by_minus_twice_its_score(kind: str, request):
    """To first order: the slope of |g|^2 at a gate on the weight, by central differences."""
    model = request.getfixturevalue(kind)
    x, y = samples(model)
    scores = pv.score(model, x, y, method="grasp", temperature=1)

    def squared() -> float:
        weights = [dict(model.named_parameters())[n] for n in scores]
        found = torch.autograd.grad(F.cross_entropy(model(x), y), weights)
        return float(sum(g.square().sum() for g in found))

    step = 1e-5
    for name, score in scores.items():
        weight = dict(model.named_parameters())[name].data.view(-1)
        for q in range(0, len(weight), 4):
            value = float(weight[q])
            weight[q] = value * (1 - step)  # the first step of its removal
            less = squared()
            weight[q] = value * (1 + step)
            more = squared()
            weight[q] = value
            change = (less - more) / (2 * step)
            assert change == pytest.approx(-2 * float(score.view(-1)[q]), rel=1e-5, abs=1e-9)


def test_removing_the_lowest_scores_lengthens_the_gradient_and_the_highest_shortens_it():
    """The paper removes the lowest tenth: measured with gates on it, closed a little and closed for good."""
    x, y = digits(100)
    model = digits_cnn()
    scores = pv.score(model, x, y, method="grasp")
    order = flat(scores).argsort()
    lowest, highest = order[: len(order) // 10], order[-(len(order) // 10) :]

    def rise(of: Tensor, closed: float) -> float:
        gates = torch.ones(2, len(order)).double()
        gates[1, of] = 1 - closed
        squared = []
        for gate in gates:
            copy = deepcopy(model)
            weights = [dict(copy.named_parameters())[n] for n in scores]
            with torch.no_grad():
                for weight, part in zip(weights, gate.split([w.numel() for w in weights]), strict=True):
                    weight *= part.view_as(weight)
            slopes = torch.autograd.grad(F.cross_entropy(copy(x) / 200, y), weights)
            squared.append(float(sum(g.square().sum() for g in slopes)))
        return squared[1] - squared[0]

    for part in (lowest, highest):
        first_order = -2 * float(flat(scores)[part].sum())
        assert rise(part, 1e-6) / 1e-6 == pytest.approx(first_order, rel=1e-3)  # larger steps cross ReLU's kinks
    assert rise(lowest, 1.0) > 0 > rise(highest, 1.0)


def test_with_the_identity_as_hessian_grasp_is_snip_without_the_absolute_value():
    """Squared error of a linear unit whose inputs have second moment 1/2: the Hessian is the identity."""
    n = 5
    x = torch.eye(n).double() * (n / 2) ** 0.5
    y = torch.tensor([0, 1, 1, 0, 1])
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(n, 1, bias=False)).double()
    mask = Mask.full(model, prunable(model))
    signed, absolute = (
        next(iter(method_class(key)().score(model, task_of(x, y, SQUARED), mask).values.values()))
        for key in ("grasp", "snip")
    )
    (g,) = torch.autograd.grad(SQUARED(model(x), y), [model[0].weight])
    torch.testing.assert_close(signed, (model[0].weight.detach() * g).flatten(), rtol=1e-12, atol=0.0)
    torch.testing.assert_close(signed.abs(), absolute, rtol=1e-12, atol=0.0)
    assert (signed < 0).any()


def test_max_pool_networks_agree_with_finite_differences_on_digits():
    """The gradient's central difference along itself, on weights moved by hand."""
    x, y = digits()
    model = digits_cnn()
    weights = {n: p for n, p in model.named_parameters() if n in prunable(model)}

    def gradient(by: float, along: list[Tensor]) -> list[Tensor]:
        copy = deepcopy(model)
        moved = [dict(copy.named_parameters())[n] for n in weights]
        with torch.no_grad():
            for w, v in zip(moved, along, strict=True):
                w += by * v
        return list(torch.autograd.grad(F.cross_entropy(copy(x) / 200, y), moved))

    g = gradient(0.0, [torch.zeros_like(w) for w in weights.values()])
    step = 1e-5
    ahead, behind = gradient(step, g), gradient(-step, g)
    expected = [w.detach() * (a - b) / (2 * step) for w, a, b in zip(weights.values(), ahead, behind, strict=True)]
    expected = torch.cat([e.flatten() for e in expected])
    # rounding of the gradients over the step
    torch.testing.assert_close(grasp(model, x, y), expected, rtol=1e-6, atol=1e-7 * float(expected.abs().max()))


def test_a_single_output_is_a_probability_whose_log_odds_are_divided():
    torch.manual_seed(2)
    model = nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 1), nn.Sigmoid()).double()
    x, y = samples(model)[0], torch.tensor([0, 1, 1, 0, 1, 0, 0])

    def loss(f: Callable) -> Tensor:
        p = f(x)[:, 0]
        return F.binary_cross_entropy_with_logits((p / (1 - p)).log() / 200, y.double())

    theta, g, H = dense(model, loss)
    torch.testing.assert_close(grasp(model, x, y), theta * (H @ g), rtol=1e-8, atol=1e-18)
    with pytest.raises(Unsuitable, match="reads it as a probability"):
        pv.score(model[:3], 5 * x, y, method="grasp")


# the switches


def test_split_only_multiplies_the_scores_by_four_without_batch_statistics(cnn):
    for n in (6, 7):  # also where the halves are not equal
        x, y = samples(cnn, n)
        plain, split = (grasp(cnn, x, y, split=s) for s in ("none", "by-class"))
        torch.testing.assert_close(split, 4 * plain, rtol=1e-9, atol=1e-20)
        masks = [pv.prune(cnn, x, y, method="grasp", sparsity=0.5, split=s).mask for s in ("none", "by-class")]
        assert all(torch.equal(keep, masks[1][name]) for name, keep in masks[0].items())


def test_split_with_batch_statistics_is_the_authors_sum_over_class_sorted_halves():
    model = normalised()
    x = torch.randn(12, 6, generator=torch.Generator().manual_seed(1)).double()
    y = torch.tensor([2, 0, 1, 1, 0, 2, 2, 2, 0, 1, 0, 1])
    order = [i for label in range(3) for i in range(12) if y[i] == label]
    model.train()
    parts = [dense(model, lambda f: F.cross_entropy(f(x[h]) / 200, y[h])) for h in (order[:6], order[6:])]  # noqa: B023
    theta = parts[0][0]
    g = parts[0][1] + parts[1][1]
    expected = theta * (parts[0][2] @ g + parts[1][2] @ g)
    found = grasp(model, x, y, split="by-class", bn_mode="train")
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-12 * float(expected.abs().max()))
    plain = grasp(model, x, y, bn_mode="train")
    assert not torch.allclose(found / found.norm(), plain / plain.norm(), rtol=1e-2, atol=1e-3)


def test_bn_mode_matters_only_with_normalisation(mlp):
    x, y = samples(mlp)
    assert torch.equal(*(grasp(mlp, x, y, bn_mode=m) for m in ("eval", "train")))
    model = normalised()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    one, two = (grasp(model, x, y, bn_mode=m) for m in ("eval", "train"))
    assert not torch.allclose(one, two, rtol=1e-2)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_bn_mode_train_is_repeatable_where_there_is_dropout():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 50), nn.ReLU(), nn.Dropout(0.5), nn.Linear(50, 3)).double()
    x, y = samples(model)
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)  # what came before must not matter
        found.append(grasp(model, x, y, bn_mode="train"))
    assert torch.equal(*found)
    assert not torch.equal(found[0], grasp(model, x, y, bn_mode="train", seed=1))


def test_temperature_changes_the_scores_and_hardly_their_order():
    x, y = digits(100)
    model = digits_cnn()
    one, two, warm = (grasp(model, x, y, temperature=t) for t in (100, 200, 1))
    assert not torch.allclose(one, two, rtol=0.1, atol=0.0)

    def agreement(a: Tensor, b: Tensor) -> float:
        ranks = torch.stack([v.argsort().argsort().double() for v in (a, b)])
        return float(torch.corrcoef(ranks)[0, 1])

    assert agreement(one, two) > 0.999
    assert agreement(one, two) > agreement(warm, two)


def test_reinit_classifier_scores_a_copy_with_another_last_layer(cnn):
    x, y = samples(cnn)
    before = deepcopy(cnn.state_dict())
    found = pv.score(cnn, x, y, method="grasp", reinit_classifier=True, seed=4)
    assert all(torch.equal(value, before[name]) for name, value in cnn.state_dict().items())
    copy = deepcopy(cnn)
    fresh = nn.init.xavier_normal_(torch.empty(3, 16), generator=generator_for(4, "score"))
    copy[5].weight.data = fresh.double()
    expected = pv.score(copy, x, y, method="grasp", seed=4)
    assert all(torch.equal(value, expected[name]) for name, value in found.items())
    plain = pv.score(cnn, x, y, method="grasp", seed=4)
    assert not any(torch.allclose(value, plain[name], rtol=1e-2) for name, value in found.items())
    with pytest.raises(Unsuitable, match="redraws the last dense layer, and this network has none"):
        pv.score(nn.Sequential(cnn[0], cnn[1], cnn[2], nn.Flatten()), x, y, method="grasp", reinit_classifier=True)


def test_reinit_classifier_leaves_pruned_weights_at_zero(mlp):
    x, y = samples(mlp)
    mask = Mask({"0.weight": torch.ones(5, 6).bool(), "2.weight": torch.arange(15).view(3, 5) % 2 == 0})
    mask.apply_(mlp)
    found = method_class("grasp")(reinit_classifier=True).score(mlp, task_of(x, y), mask)
    copy = deepcopy(mlp)
    fresh = nn.init.xavier_normal_(torch.empty(3, 5), generator=generator_for(0, "score")).double()
    copy[2].weight.data = fresh * mask["2.weight"]
    expected = method_class("grasp")().score(copy, task_of(x, y), mask)
    for one, two in zip(found.values.values(), expected.values.values(), strict=True):
        assert torch.equal(one, two)


def test_a_run_draws_the_same_number_of_each_class():
    x = torch.arange(600.0)[:, None]
    y = torch.arange(600) % 30 % 4  # classes of different sizes
    draw = method_class("grasp")(per_class=25).draw
    batches = draw((x, y), torch.Generator().manual_seed(3))
    labels = torch.cat([b for _, b in batches])
    assert torch.bincount(labels).tolist() == [25] * 4
    places = torch.cat([a for a, _ in batches])[:, 0].long()
    assert places.unique().numel() == 100
    assert torch.equal(y[places], labels)
    again, other = (draw((x, y), torch.Generator().manual_seed(s)) for s in (3, 4))
    assert torch.equal(torch.cat([a for a, _ in again])[:, 0].long(), places)
    assert not torch.equal(torch.cat([a for a, _ in other])[:, 0].long(), places)
    whole = method_class("grasp")(per_class=50, bn_mode="train").draw((x, y), torch.Generator())
    assert [len(b) for _, b in whole] == [200]


def test_the_smallest_class_limits_all_so_that_the_draw_stays_balanced():
    x, y = torch.zeros(25, 3), torch.tensor([0] * 20 + [7] * 5)
    labels = torch.cat([b for _, b in method_class("grasp")().draw((x, y), torch.Generator())])
    assert torch.bincount(labels).tolist() == [5, 0, 0, 0, 0, 0, 0, 5]


class _Casts(nn.Module):
    """A norm in float32, whatever the network is in, as language models have it; ``kink``: a unit that lies at its kink."""

    def __init__(self, *, kink: bool = False):
        super().__init__()
        self.a, self.b = nn.Linear(6, 8, bias=not kink), nn.Linear(8, 3)
        self.act = nn.ReLU() if kink else nn.Tanh()

    def forward(self, x: Tensor) -> Tensor:
        h = self.act(self.a(x)).float()
        return self.b((h * torch.rsqrt(h.square().mean(-1, keepdim=True) + 1e-6)).to(x.dtype))


def test_a_norm_in_float32_inside_is_no_jump():
    torch.manual_seed(0)
    model, x, y = _Casts().double(), torch.randn(9, 6).double(), torch.arange(9) % 3
    found = flat(pv.score(model, x, y, method="grasp", temperature=1.0))
    weights = {n: p.detach() for n, p in model.named_parameters() if p.dim() == 2}

    def loss(a: Tensor, b: Tensor) -> Tensor:  # the same in float64 throughout
        h = torch.tanh(x @ a.T + model.a.bias.detach())
        h = h / torch.sqrt((h * h).mean(1, keepdim=True) + 1e-6)
        return F.cross_entropy(h @ b.T + model.b.bias.detach(), y)

    values = tuple(weights.values())
    slopes = torch.autograd.functional.jacobian(loss, values)
    _, product = torch.autograd.functional.hvp(loss, values, slopes)
    expected = torch.cat([(w * h).flatten() for w, h in zip(values, product, strict=True)])
    assert float((found - expected).norm() / expected.norm()) < 1e-5


def test_a_kink_is_found_beside_a_norm_in_float32():
    torch.manual_seed(0)
    model = _Casts(kink=True).double()
    with torch.no_grad():
        model.a.weight[:6].fill_(1.0)
    x, y = torch.randn(9, 6).double().round(), torch.arange(9) % 3
    x[0] = torch.tensor([1, -1, 2, -2, 0, 0])
    with pytest.raises(UnsupportedLayer, match="exactly at the kink of the activation 'act'"):
        pv.score(model, x, y, method="grasp")


def test_halves_by_class_of_samples_that_are_a_mapping():
    torch.manual_seed(0)
    x, y = torch.randn(8, 6).double(), torch.arange(8) % 3

    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(6, 5), nn.Linear(5, 3)

        def forward(self, *, values: Tensor) -> Tensor:
            return self.b(torch.tanh(self.a(values)))

    named = Named().double()
    plain = nn.Sequential(named.a, nn.Tanh(), named.b)
    one = pv.score(named, {"values": x}, y, method="grasp", split="by-class")
    assert torch.equal(flat(one), flat(pv.score(plain, x, y, method="grasp", split="by-class")))


def test_halves_by_class_need_a_class_for_each_sample():
    model, x, y = nn.Conv1d(2, 3, 1).double(), torch.randn(6, 2, 5).double(), torch.randint(0, 3, (6, 5))
    with pytest.raises(Unsuitable, match=r"split=by-class.*these have 5 targets each"):
        pv.score(model, x, y, method="grasp", split="by-class")

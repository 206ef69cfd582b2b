"""Networks: the papers' sizes, what fits them, and that they learn what they were made for."""

from __future__ import annotations

from math import prod

import pytest
import torch
from torch import nn

import pruneviz as pv
from pruneviz.config import RunConfig
from pruneviz.dense import DenseCache
from pruneviz.errors import Unsuitable
from pruneviz.events import Done, Failed, Metric
from pruneviz.loss import LOSSES
from pruneviz.masks import Mask, connected, prunable
from pruneviz.models.base import ModelCard
from pruneviz.task import generator_for
from pruneviz.training import evaluate, fit

needs_monks = pytest.mark.skipif(
    not all(pv.DATASETS[f"monks-{i}"].present for i in (1, 2, 3)),
    reason="the MONK's problems are not here: set PRUNEVIZ_DATA to a folder with monks/",
)
GREY, SMALL, CURVE, ROBOT, PAIR = (1, 28, 28), (1, 8, 8), (40,), (17,), (2,)


@pytest.mark.parametrize(
    ("key", "shape", "classes", "weights", "all_"),
    [
        ("lenet-300-100", GREY, 10, 266_200, 266_610),
        ("lenet-5-caffe", GREY, 10, 430_500, 431_080),
        ("mlp-7x100", GREY, 10, 784 * 100 + 5 * 100 * 100 + 1000, 130_010),
        ("mlp-1d", CURVE, 10, 4000 + 10_000 + 1000, 15_210),
        ("mlp-17-3-1", ROBOT, 2, 54, 58),
        ("mlp-17-2-1", ROBOT, 2, 36, 39),
        ("mlp-2-2-1", PAIR, 2, 6, 9),
    ],
)
def test_models_have_the_papers_sizes(key: str, shape: tuple, classes: int, weights: int, all_: int):
    model = pv.build(key, shape=shape, classes=classes)
    assert Mask.full(model, prunable(model)).size == weights
    assert sum(p.numel() for p in model.parameters()) == all_


def test_the_deep_network_has_seven_layers_with_tanh_between_them():
    layers = list(pv.build("mlp-7x100", shape=GREY, classes=10))
    assert [type(m) for m in layers] == [nn.Flatten, *[nn.Linear, nn.Tanh] * 6, nn.Linear]


@pytest.mark.parametrize(("key", "shape"), [("mlp-2-2-1", PAIR), ("mlp-17-3-1", ROBOT), ("mlp-17-2-1", ROBOT)])
def test_a_network_of_one_output_computes_a_probability(key: str, shape: tuple):
    model = pv.build(key, shape=shape, classes=2, seed=4).double()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1)  # biases too
    x = torch.randn(5, *shape, dtype=torch.float64)
    first, second = (m for m in model if isinstance(m, nn.Linear))
    drive = torch.einsum("h,nh->n", second.weight[0], torch.tanh(x @ first.weight.T + first.bias)) + second.bias
    assert torch.allclose(model(x), 1 / (1 + torch.exp(-drive))[:, None], rtol=1e-12)


def test_the_same_seed_builds_the_same_network():
    one, two, other = (pv.build("digits-cnn", shape=SMALL, classes=10, seed=s) for s in (0, 0, 1))
    assert torch.equal(one[0].weight, two[0].weight)
    assert not torch.equal(one[0].weight, other[0].weight)


# what fits


@pytest.mark.parametrize("card", list(pv.MODELS.values()), ids=lambda card: card.key)
@pytest.mark.parametrize(
    ("shape", "classes"),
    [(GREY, 10), (SMALL, 2), ((3, 32, 32), 10), ((1, 3, 3), 2), (CURVE, 10), (ROBOT, 2), (ROBOT, 3), (PAIR, 2)],
)  # fmt: skip
def test_what_fits_passes_through_and_the_rest_is_refused(card: ModelCard, shape: tuple, classes: int):
    if card.fits(shape, classes):
        outputs = pv.build(card.key, shape=shape, classes=classes).eval()(torch.zeros(2, *shape))
        assert outputs.shape == (2, card.outputs or classes)
        assert outputs.shape[1] == classes or (outputs.shape[1], classes) == (1, 2)
        return
    with pytest.raises(Unsuitable, match="Try lenet-300-100"):
        pv.build(card.key, shape=shape, classes=classes)
    assert pv.MODELS["lenet-300-100"].fits(shape, classes)


@pytest.mark.parametrize(
    ("key", "shape", "classes", "reason"),
    [
        ("mlp-17-3-1", SMALL, 10, "has 17 inputs, and a sample has 64 numbers"),
        ("mlp-2-2-1", ROBOT, 2, "has 2 inputs, and a sample has 17 numbers"),
        ("mlp-2-2-1", PAIR, 4, "tells 2 classes apart, and there are 4"),
        ("lenet-5-caffe", SMALL, 10, "needs images of at least 16 x 16 pixels, and these have 8 x 8"),
        ("digits-cnn", CURVE, 10, r"needs images, and a sample has shape \(40,\)"),
    ],
)
def test_a_refusal_says_what_was_wanted_and_what_was_found(key: str, shape: tuple, classes: int, reason: str):
    assert not pv.MODELS[key].fits(shape, classes)
    with pytest.raises(Unsuitable, match=f"{key!r} {reason}"):
        pv.MODELS[key].check(shape, classes)


def test_a_run_on_data_that_do_not_fit_is_refused():
    with pytest.raises(Unsuitable, match="has 17 inputs"):
        RunConfig(method="random", dataset="digits", model="mlp-17-3-1")


@pytest.mark.parametrize("data", list(pv.DATASETS.values()), ids=lambda card: card.key)
def test_a_data_set_s_usual_network_fits_and_is_what_a_run_takes(data):
    assert pv.MODELS[data.model].fits(data.shape, len(data.classes))
    run = RunConfig(method="random", dataset=data.key)
    assert run.model == data.model
    assert run.train.epochs == data.epochs
    assert run.tune.epochs == data.tune_epochs


def test_a_run_takes_the_network_s_learning_rate_unless_told_otherwise():
    card = pv.MODELS["mlp-2-2-1"]
    run = RunConfig(method="random", dataset="xor")
    assert (run.train.lr, run.train.batch_size, run.tune.lr) == (card.lr, card.batch_size, card.lr / 2)
    told = RunConfig(method="random", dataset="xor", train={"lr": 0.01, "batch_size": 4})
    assert (told.train.lr, told.train.batch_size, told.tune.lr) == (0.01, 4, 0.005)
    usual = RunConfig(method="random", dataset="xor", model="lenet-300-100")
    assert (usual.train.lr, usual.train.batch_size) == (1.2e-3, 64)


# what they learn


def trained(dataset: str, model: str, seed: int):
    """The dense network of a run and its data."""
    data = pv.load(dataset)
    network = pv.build(model, data, seed=seed)
    budget = RunConfig(method="random", dataset=dataset, model=model, seed=seed).train
    loss = LOSSES[pv.MODELS[model].loss]
    list(fit(network, data, budget, generator=generator_for(seed, "dense"), loss=loss))
    return network, data


@pytest.mark.parametrize(
    ("dataset", "model", "reaches"),
    [
        ("xor", "mlp-2-2-1", 1.0),
        pytest.param("monks-1", "mlp-17-3-1", 1.0, marks=needs_monks),
        pytest.param("monks-2", "mlp-17-2-1", 1.0, marks=needs_monks),
        pytest.param("monks-3", "mlp-17-2-1", 0.93, marks=needs_monks),
    ],
)
def test_the_papers_small_networks_learn_their_problem_from_some_seed(dataset: str, model: str, reaches: float):
    # local minima hold many of them: of 40 seeds 25, 30, 12 and 40 got there, so ten all miss in 3% of trials at most
    best = 0.0
    for seed in range(10):
        network, data = trained(dataset, model, seed)
        best = max(best, evaluate(network, *data.train)["accuracy"])
        if best >= reaches:
            break
    assert best >= reaches


def test_mlp_1d_learns_mnist_1d():
    network, data = trained("mnist-1d", "mlp-1d", 0)
    assert (
        evaluate(network, *data.test)["accuracy"] > 0.58
    )  # 61 to 64% over seeds; the standard error on 1,000 samples is 1.5 points


# one output, all the way


@pytest.mark.parametrize(
    ("dataset", "model"), [("xor", "mlp-2-2-1"), pytest.param("monks-1", "mlp-17-3-1", marks=needs_monks)]
)
@pytest.mark.parametrize("method", ["random", "magnitude", "lottery-ticket", "snip"])
def test_methods_run_on_a_network_of_one_output(method: str, dataset: str, model: str):
    budget = {"train": {"epochs": 3}, "tune": {"epochs": 2}, "sparsities": (0.3, 0.5)}
    config = RunConfig(method=method, dataset=dataset, model=model, **budget)
    events = list(pv.execute([config], cache=DenseCache(), device="cpu"))
    assert [e for e in events if isinstance(e, Failed)] == []
    assert isinstance(events[-1], Done)
    found = {(e.sparsity, e.stage, e.split, e.metric): e.value for e in events if isinstance(e, Metric)}
    size = sum(a * b for a, b in ((17, 3), (3, 1))) if model == "mlp-17-3-1" else 6
    assert found[0, "dense", "", "flops"] == 2 * size
    assert found[0.5, "pruned", "", "flops"] == size
    assert 0 <= found[0.5, "tuned", "test", "loss"] <= 1  # squared error of a probability


def test_connection_is_seen_through_tanh_and_the_sigmoid():
    model = pv.build("mlp-17-3-1", shape=ROBOT, classes=2)
    sample = torch.zeros(1, prod(ROBOT))
    one = {
        name: torch.zeros_like(p, dtype=torch.bool) for name, p in model.named_parameters() if name.endswith("weight")
    }
    one["1.weight"][1, 5] = one["3.weight"][0, 1] = True
    assert connected(model, Mask(one), sample)
    one["3.weight"][0, 1], one["3.weight"][0, 2] = False, True
    assert not connected(model, Mask(one), sample)


def test_flops_of_a_masked_network_are_counted_by_hand():
    from pruneviz.cost import cost

    model = pv.build("digits-cnn", shape=SMALL, classes=10)
    x = torch.zeros(1, *SMALL)
    dense = 2 * (64 * 9 * 16 + 64 * 16 * 9 * 32 + 512 * 64 + 640)
    assert cost(model, x).flops == dense
    half = torch.zeros(16, 1, 3, 3, dtype=torch.bool)
    half[:8] = True
    assert cost(model, x, Mask({"0.weight": half})).flops == dense - 64 * 9 * 16

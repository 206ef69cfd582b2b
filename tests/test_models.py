"""Networks: the papers' sizes, what fits them, and that they learn what they were made for."""

from __future__ import annotations

import itertools
import math
from math import prod
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import pruneviz as pv
from pruneviz.basics.errors import InvalidSetting, Unsuitable
from pruneviz.basics.events import Done, Failed, Metric, Weights
from pruneviz.curvature.task import generator_for
from pruneviz.door.loss import LOSSES
from pruneviz.figures.names import labels
from pruneviz.models._torch.residual import BasicBlock, shortcut
from pruneviz.models.base import ModelCard, in_words
from pruneviz.plan.about import about
from pruneviz.plan.config import RunConfig
from pruneviz.run.dense import DenseCache
from pruneviz.run.training import evaluate, fit
from pruneviz.units.masks import Mask
from pruneviz.units.paths import connected
from pruneviz.units.weights import prunable

ROOT = Path(__file__).resolve().parent.parent
needs_monks = pytest.mark.skipif(
    not all(pv.DATASETS[f"monks-{i}"].present for i in (1, 2, 3)),
    reason="the MONK's problems are not here: set PRUNEVIZ_DATA to a folder with monks/",
)
GREY, COLOUR, SMALL, CURVE, ROBOT, PAIR = (1, 28, 28), (3, 32, 32), (1, 8, 8), (40,), (17,), (2,)
WIDE = [card for card in pv.MODELS.values() if card.widths]


@pytest.mark.parametrize(
    ("key", "shape", "classes", "weights", "all_"),
    [
        ("lenet-300-100", GREY, 10, 266_200, 266_610),
        ("lenet-5-caffe", GREY, 10, 430_500, 431_080),
        ("conv-2", COLOUR, 10, 38_592 + 64 * 256 * 256 + 256 * 256 + 2560, 4_301_642),
        ("conv-4", COLOUR, 10, 259_776 + 128 * 64 * 256 + 256 * 256 + 2560, 2_425_930),
        ("conv-6", COLOUR, 10, 1_144_512 + 256 * 16 * 256 + 256 * 256 + 2560, 2_262_602),
        ("vgg-16", COLOUR, 10, 14_977_728, 14_982_474 + 2 * (4224 + 512)),
        ("vgg-19", COLOUR, 10, 20_024_000, 20_024_010 + 2 * 5504),
        ("resnet-20", COLOUR, 10, 268_336, 269_722),
        ("resnet-32", COLOUR, 10, 461_872, 464_154),
        ("resnet-56", COLOUR, 10, 848_944, 853_018),
        ("resnet-110", COLOUR, 10, 1_719_856, 1_727_962),
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


def weights_and_biases(model: nn.Module) -> int:
    """Numbers in the Linear and Conv2d layers, as papers on filters count them: normalisation left out."""
    layers = [m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    return sum(p.numel() for layer in layers for p in layer.parameters(recurse=False))


@pytest.mark.parametrize(("key", "published"), [("vgg-16", 14_982_474), ("vgg-19", 20_024_010), ("resnet-56", 848_954)])
def test_weights_and_biases_are_those_that_papers_on_filters_count(key: str, published: int):
    assert weights_and_biases(pv.build(key, shape=COLOUR, classes=10)) == published


@pytest.mark.parametrize(("width", "projections", "millions"), [(2, 10_240, 1.86), (4, 40_960, 7.42)])
def test_wide_resnet_32_is_grasp_s_and_eigendamage_s_without_their_two_projections(
    width: float, projections: int, millions: float
):
    ours = weights_and_biases(pv.build("resnet-32", shape=COLOUR, classes=10, width=width))
    n = 16 * width
    assert projections == n * 2 * n + 2 * n * 4 * n  # 1 x 1 convolutions where ours subsamples and pads
    assert round((ours + projections) / 1e6, 2) == millions


def test_vgg_16_is_normalised_after_every_layer_but_the_last():
    layers = list(pv.build("vgg-16", shape=COLOUR, classes=10))
    kinds = [type(m) for m in layers if not isinstance(m, nn.ReLU)]
    stages = [kind for n in (2, 2, 3, 3, 3) for kind in [*[nn.Conv2d, nn.BatchNorm2d] * n, nn.MaxPool2d]]
    assert kinds == [*stages, nn.Flatten, nn.Linear, nn.BatchNorm1d, nn.Linear]
    assert all(m.bias is not None for m in layers if isinstance(m, nn.Conv2d | nn.Linear))


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


# width


@pytest.mark.parametrize("card", WIDE, ids=lambda card: card.key)
@pytest.mark.parametrize("width", [1 / 100, 1 / 8, 0.3, 1.25])
def test_width_multiplies_the_outputs_of_every_layer_but_the_last(card: ModelCard, width: float):
    def outputs(model: nn.Module) -> list[int]:
        return [len(m.weight) for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)]

    plain, wide = (pv.build(card.key, shape=GREY, classes=10, width=w) for w in (1, width))
    nearest = [max(1, math.floor(n * width + 0.5)) for n in outputs(plain)]
    assert outputs(wide) == [*nearest[:-1], 10]
    assert wide.eval()(torch.zeros(2, *GREY)).shape == (2, 10)


@pytest.mark.parametrize("width", [0, -1, 8.5, math.nan, math.inf])
def test_a_width_outside_its_range_is_refused(width: float):
    with pytest.raises(InvalidSetting, match=f"above 0 and at most 8; found {width:g}"):
        pv.build("resnet-20", shape=GREY, classes=10, width=width)


@pytest.mark.parametrize("card", [c for c in pv.MODELS.values() if not c.widths], ids=lambda card: card.key)
def test_a_network_of_one_width_refuses_another(card: ModelCard):
    card.check_width(1)
    with pytest.raises(InvalidSetting, match=rf"{card.key!r} comes in one width, 1; found 0\.5\. Leave it out, or try"):
        card.check_width(0.5)


@pytest.mark.parametrize(
    ("width", "words"), [(1 / 8, "1/8"), (0.1, "1/10"), (2 / 3, "2/3"), (0.123, "0.123"), (1.5, "1.5"), (2, "2")]
)
def test_widths_below_one_are_called_by_their_fraction(width: float, words: str):
    assert in_words(width) == words


def test_runs_of_two_widths_are_told_apart_by_name():
    configs = [RunConfig(method="snip", model="resnet-20", width=width) for width in (1, 1 / 8)]
    names = labels([SimpleNamespace(id=c.id, config=c, about=about(c)) for c in configs])
    assert list(names.values()) == ["SNIP", "SNIP · width 1/8"]


def test_a_run_trains_and_prunes_the_network_in_its_width():
    budget = {"train": {"epochs": 1}, "tune": {"epochs": 1}, "sparsities": (0.5,), "probes": ()}
    config = RunConfig(method="magnitude", model="resnet-20", width=1 / 8, rounds=1, **budget)
    events = list(pv.execute([config], cache=DenseCache(), device="cpu"))
    assert isinstance(events[-1], Done)
    narrow = pv.build("resnet-20", pv.load("digits"), width=1 / 8)
    found = {(e.stage, e.metric): e.value for e in events if isinstance(e, Metric) and not e.split}
    assert found["dense", "parameters"] == sum(p.numel() for p in narrow.parameters())
    (weights,) = (e.arrays for e in events if isinstance(e, Weights))
    assert weights["weight/0.weight"].shape == (2, 1, 3, 3)


def test_the_run_page_asks_for_a_width_only_where_the_network_has_one(tmp_path, monkeypatch):
    testing = pytest.importorskip("streamlit.testing.v1", reason="streamlit is not installed")
    monkeypatch.setenv("PRUNEVIZ_STORE", str(tmp_path))
    page = testing.AppTest.from_file(str(ROOT / "pages" / "run.py"), default_timeout=60).run()
    assert "width" not in {w.key for w in page.number_input}
    page.selectbox(key="model").set_value("resnet-20").run()
    page.number_input(key="width").set_value(0.25).run()
    assert not page.exception
    assert not page.error
    page.selectbox(key="model").set_value("lenet-300-100").run()
    assert not page.error
    assert "width" not in {w.key for w in page.number_input}


# residual networks


def test_the_shortcut_subsamples_and_adds_channels_of_zeros():
    x = torch.arange(2 * 2 * 5 * 4, dtype=torch.float64).reshape(2, 2, 5, 4)
    got = shortcut(x, torch.zeros(2, 5, 3, 2), 2)
    expected = torch.zeros(2, 5, 3, 2, dtype=torch.float64)
    for channel, row, column in itertools.product(range(2), range(3), range(2)):
        expected[:, 1 + channel, row, column] = x[:, channel, 2 * row, 2 * column]
    assert torch.equal(got, expected)
    assert torch.equal(shortcut(x, x, 1), x)


def block(inputs: int, outputs: int, stride: int) -> BasicBlock:
    """A block in evaluation mode whose normalisation does something."""
    made = BasicBlock(inputs, outputs, stride).double().eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in (*made.parameters(), *(b for b in made.buffers() if b.is_floating_point())):
            tensor.copy_(torch.rand(tensor.shape, generator=generator, dtype=tensor.dtype) + 0.1)
    return made


def test_a_block_that_adds_nothing_is_its_shortcut():
    made, x = block(4, 8, 2), torch.randn(3, 4, 6, 6, dtype=torch.float64)
    with torch.no_grad():
        made.norm2.weight.zero_()
        made.norm2.bias.zero_()
        assert torch.equal(made(x), torch.relu(shortcut(x, torch.zeros(3, 8, 3, 3), 2)))


def test_inner_filters_of_a_block_can_be_removed_for_real():
    made, x, keep = block(4, 8, 2), torch.randn(3, 4, 6, 6, dtype=torch.float64), [0, 3, 4]
    small = BasicBlock(4, 8, 2).double().eval()
    small.conv1, small.norm1 = nn.Conv2d(4, 3, 3, 2, 1, bias=False).double(), nn.BatchNorm2d(3).double().eval()
    small.conv2 = nn.Conv2d(3, 8, 3, 1, 1, bias=False).double()
    state = made.state_dict()
    for name in ("conv1.weight", *(f"norm1.{part}" for part in ("weight", "bias", "running_mean", "running_var"))):
        state[name] = state[name][keep]
    state["conv2.weight"] = state["conv2.weight"][:, keep]
    small.load_state_dict(state)
    with torch.no_grad():
        for tensor in (made.conv1.weight, made.norm1.weight, made.norm1.bias):
            tensor[[i for i in range(8) if i not in keep]] = 0
        assert torch.allclose(small(x), made(x), rtol=1e-12)


# depth


@pytest.mark.parametrize("key", ["vgg-16", "vgg-19", "resnet-110"])
@pytest.mark.parametrize("shape", [GREY, COLOUR])
def test_deep_networks_start_with_finite_losses_and_slopes(key: str, shape: tuple):
    model = pv.build(key, shape=shape, classes=10, width=1 / 4)
    y = torch.arange(8)
    loss = nn.functional.cross_entropy(model(torch.rand(8, *shape, generator=generator_for(0, "images"))), y)
    loss.backward()
    assert 0 < float(loss.detach()) < 30
    for name, parameter in model.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.any() or name.endswith("bias"), name  # normalisation takes biases before it away again


@pytest.mark.parametrize("card", WIDE, ids=lambda card: card.key)
def test_at_the_least_size_every_convolution_still_sees_two_pixels_by_two(card: ModelCard):
    def smallest(size: int) -> int:
        model = card.build((1, size, size), 10, 1 / 8).eval()
        seen: list[int] = []
        for layer in (m for m in model.modules() if isinstance(m, nn.Conv2d)):
            layer.register_forward_hook(lambda layer, inputs, output: seen.append(output.shape[-1]))
        model(torch.zeros(1, 1, size, size))
        return min(seen)

    assert smallest(card.min_size) == 2
    assert not card.fits((1, card.min_size - 1, 32), 10)
    if card.min_size > 2:
        assert smallest(card.min_size + 1) >= 2


# what fits


@pytest.mark.parametrize("card", list(pv.MODELS.values()), ids=lambda card: card.key)
@pytest.mark.parametrize(
    ("shape", "classes"),
    [(GREY, 10), (SMALL, 2), (COLOUR, 10), (COLOUR, 100), ((1, 3, 3), 2), (CURVE, 10), (ROBOT, 2), (ROBOT, 3), (PAIR, 2)],
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
        ("vgg-16", SMALL, 10, "needs images of at least 17 x 17 pixels, and these have 8 x 8"),
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
    from pruneviz.units.cost import cost

    model = pv.build("digits-cnn", shape=SMALL, classes=10)
    x = torch.zeros(1, *SMALL)
    dense = 2 * (64 * 9 * 16 + 64 * 16 * 9 * 32 + 512 * 64 + 640)
    assert cost(model, x).flops == dense
    half = torch.zeros(16, 1, 3, 3, dtype=torch.bool)
    half[:8] = True
    assert cost(model, x, Mask({"0.weight": half})).flops == dense - 64 * 9 * 16


def test_a_free_parameter_follows_the_seed_and_nothing_drawn_before():
    """A position embedding belongs to no module of torch: no rule draws it anew."""
    from pruneviz.models._torch.initialisation import free, initialise_, seeded

    class Placed(nn.Module):
        def __init__(self):
            super().__init__()
            self.places = nn.Parameter(torch.randn(4, 8))
            self.norm, self.words, self.out = nn.LayerNorm(8), nn.Embedding(5, 8), nn.Linear(8, 3)

    def built(seed: int) -> nn.Module:
        torch.rand(3)  # something drawn before
        with seeded(seed):
            made = Placed()
        return initialise_(made, torch.Generator().manual_seed(seed))

    one, two, other = built(0), built(0), built(1)
    before = torch.get_rng_state()
    assert free(one) == ["places"]
    for (name, a), b, c in zip(one.named_parameters(), two.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b), name
        assert torch.equal(a, c) == (name in ("norm.weight", "norm.bias", "out.bias")), name
    built(2)
    torch.set_rng_state(before)
    assert not torch.equal(one.words.weight, initialise_(built(0), torch.Generator().manual_seed(9)).words.weight)


def test_a_network_may_have_convolutions_and_take_no_images_and_the_other_way_round():
    from pruneviz.models.base import ModelCard

    def card(**given):
        return ModelCard("trial", "Trial", "", "", lambda shape, classes: nn.Identity(), **given)

    assert not card(convolutions=True).fits((40,), 2)
    assert card(convolutions=True, images=False).fits((40,), 2)
    assert not card(images=True).fits((40,), 2)
    assert card().fits((40,), 2)

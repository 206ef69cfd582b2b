"""Removing for real: the smaller network computes what the masked one does, costs what a hand count says, and comes back from disk."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

import pruneviz as pv
from pruneviz.basics.errors import Unreachable, Unsuitable
from pruneviz.door.samples import Inputs
from pruneviz.methods import METHODS, method_class
from pruneviz.methods.base import Unit
from pruneviz.models import MODELS
from pruneviz.papers.li_filters import PLANS, pruned
from pruneviz.units import compact as removal
from pruneviz.units.cost import cost, latencies

WHOLE = [key for key, card in METHODS.items() if card.unit is not Unit.WEIGHT]
SMALL = {"mlp-2-2-1": (2,), "mlp-17-3-1": (17,), "mlp-17-2-1": (17,), "digits-cnn": (1, 8, 8)}


def network(key: str) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """The network, thin where it is deep, with a normalisation that is not its first one, and samples."""
    card = MODELS[key]
    shape, classes = SMALL.get(key, (1, 28, 28)), 2 if card.outputs == 1 else 10
    model = pv.build(key, shape=shape, classes=classes, width=1 / 8 if card.widths else 1.0)
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._NormBase):
            for tensor, low in (
                (module.weight, 0.5),
                (module.bias, -0.5),
                (module.running_mean, -0.5),
                (module.running_var, 0.5),
            ):
                tensor.data.copy_(torch.rand(tensor.shape, generator=generator) + low)
    return model, torch.randn(4, *shape, generator=generator), torch.arange(4) % classes


TIES = pytest.mark.filterwarnings("ignore:.*tied at the cut")  # few samples of a network that has not learned


@TIES
@pytest.mark.parametrize("key", MODELS)
def test_masked_and_compacted_networks_agree_for_every_network_and_three_sparsities(key: str):
    """1e-5 of the largest logit in float32, 1e-10 in float64; parameters are those that the report counted."""
    model, x, y = network(key)
    squared = MODELS[key].loss == "squared"
    for method in ("l1-filters", "kron-obd", "eigendamage"):
        try:
            method_class(method).suits(MODELS[key])
        except Unsuitable:
            assert not MODELS[key].convolutions
            continue
        if squared and method != "kron-obd":
            continue
        y_ = y.float() if squared else y
        try:
            pv.prune(model, x, y_, method=method, sparsity=0.99999)
            raise AssertionError("everything left")
        except Unreachable as beyond:
            most = beyond.most
        for share in (0.3, 0.6, 1.0):
            found = pv.prune(model, x, y_, method=method, sparsity=share * most)
            small = pv.compact(found)
            inputs = torch.randn(16, *x.shape[1:], generator=torch.Generator().manual_seed(7))
            for dtype, tolerance in ((torch.float32, 1e-5), (torch.float64, 1e-10)):
                masked, compacted = found.model.to(dtype).eval(), small.model.to(dtype).eval()
                if dtype is torch.float64:  # from the same numbers: products are rounded to the network's own precision
                    compacted = removal.smaller(masked, found.sample.double())[0]
                a, b = masked(inputs.to(dtype)), compacted(inputs.to(dtype))
                assert (a - b).abs().max() <= tolerance * a.abs().max(), (method, share, dtype)
            assert small.after.parameters == found.report["parameters"]
            assert small.after.flops == found.report["flops"]
            assert small.before.parameters == sum(p.numel() for p in model.parameters())
            left = sum(m.weight.numel() for m in small.model.modules() if isinstance(m, nn.Linear | nn.Conv2d))
            counted = found.mask.size - found.mask.removed
            assert left <= counted if method == "eigendamage" else left == counted  # channels that were dead leave too
            assert share * most - 0.35 < found.report["reached"] <= share * most + 1e-9


@pytest.mark.parametrize("name", PLANS)
def test_li_et_al_s_counts_are_met_exactly(name: str):
    plan = PLANS[name]
    found = pv.compact(pruned(plan))
    assert (found.before.weights_and_biases, found.after.weights_and_biases) == plan.parameters
    assert 1 - found.after.weights_and_biases / found.before.weights_and_biases == pytest.approx(
        plan.reduction[0], abs=1.1e-3
    )
    assert 1 - found.after.flops / found.before.flops == pytest.approx(plan.reduction[1], abs=1.1e-3)
    kept = [len(m.weight) for m in found.model.modules() if isinstance(m, nn.Conv2d)]
    if name == "vgg-16-a":
        assert kept == [32, 64, 128, 128, *[256] * 9]
    else:
        widths = [16] * 19 + [32] * 18 + [64] * 18
        stage = [1] * 19 + [2] * 18 + [3] * 18
        for number, (n, width) in enumerate(zip(kept, widths, strict=True), 1):
            inner = number % 2 == 0 and number not in plan.skip
            assert n == (int(width * (1 - plan.per_stage[stage[number - 1]]) + 1e-9) if inner else width)


def test_parameters_and_flops_equal_a_hand_count():
    """Digits CNN, 8 and 16 of 16 and 32 filters, 64 units: 3 x 3 convolutions on 8 x 8 and, pooled, 4 x 4 pixels."""
    model = pv.build("digits-cnn", shape=(1, 8, 8), classes=10)
    x, y = torch.rand(4, 1, 8, 8), torch.arange(4)
    found = pv.compact(
        pv.prune(model, x, y, method="l1-filters", sparsity=1 - (72 + 1152 + 16384 + 640) / 38160 + 1e-9)
    )
    assert found.after.parameters == (72 + 8) + (1152 + 16) + (16 * 16 * 64 + 64) + (640 + 10)
    assert found.after.weights_and_biases == found.after.parameters
    assert found.after.flops == 2 * (64 * 72 + 64 * 1152 + 16 * 16 * 64 + 640)


@TIES
@pytest.mark.parametrize("method", WHOLE)
def test_a_compacted_network_comes_back_from_disk(method: str, tmp_path):
    model, x, y = network("vgg-16")
    small = pv.compact(pv.prune(model, x, y, method=method, sparsity=0.4))
    small.save(tmp_path / "small.safetensors")
    dense = pv.build("vgg-16", shape=(1, 28, 28), classes=10, width=1 / 8, seed=3)
    before = {name: value.clone() for name, value in dense.state_dict().items()}
    found = removal.load(tmp_path / "small.safetensors", dense).eval()
    assert torch.equal(found(x), small.model.eval()(x))
    assert cost(found, x[:1]).parameters == small.after.parameters < sum(p.numel() for p in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in dense.state_dict().items())
    with pytest.raises(Unsuitable, match="Build the network it was made from"):
        removal.load(tmp_path / "small.safetensors", pv.build("lenet-5-caffe", shape=(1, 28, 28), classes=10))


def test_single_weights_shrink_nothing_but_what_is_unread():
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
    with torch.no_grad():
        model[2].weight[:, [1, 4]] = 0.001  # the last to be kept by size
    x, y = torch.randn(6, 4), torch.arange(6) % 3
    found = pv.prune(model, x, y, method="magnitude", scale="none", sparsity=6 / 35)
    small = pv.compact(found)
    assert [m.weight.shape for m in small.model if isinstance(m, nn.Linear)] == [(3, 4), (3, 3)]
    torch.testing.assert_close(small.model(x), found.model(x))


def test_a_compacted_network_trains_on_its_rotations_too():
    model, x, y = network("lenet-5-caffe")
    small = pv.compact(pv.prune(model, x, y, method="eigendamage", sparsity=0.6, count="compacted")).model
    nn.functional.cross_entropy(small(x), y).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in small.parameters())
    assert any("before" in name for name, _ in small.named_parameters())


def test_what_is_pruned_stays_zero_while_the_network_trains():
    """Filters with their biases and normalisation, through momentum and weight decay."""
    data = pv.load("digits")
    model = pv.build("resnet-20", data, width=1 / 4)
    found = pv.prune(model, data.train[0][:64], data.train[1][:64], method="kron-obd", sparsity=0.3)
    assert any("norm1" in name for name in found.mask.coupled)
    pv.train(found.model, data, epochs=1, mask=found.mask, optimizer="sgd", lr=0.05, weight_decay=1e-3)
    params = dict(found.model.named_parameters())
    for name, keep in found.mask.everything.items():
        assert not params[name].detach()[~keep].any()
    assert pv.compact(found).after.parameters == found.report["parameters"]


def test_latency_is_measured_in_evaluation_mode_and_leaves_modes_alone():
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).train()
    found = latencies([model, model], torch.zeros(1, 4), 1)  # a batch of one would fail in training mode
    assert len(found) == 2
    assert all(seconds > 0 for seconds in found)
    assert model.training
    assert set(cost(model.eval(), torch.zeros(1, 4)).latency) == {1, 256}
    x, y = torch.randn(6, 4), torch.arange(6) % 2
    small = pv.compact(pv.prune(model, x, y, method="kron-obd", sparsity=0.3))
    assert set(small.speedup) == {1, 256}
    assert all(ratio > 0 for ratio in small.speedup.values())  # how large they are is for bench/ to say


# any network: precision, inputs, outputs, reasons


class Mixed(nn.Module):
    """Half precision with normalisation in float32, which the code casts to and back from."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.norm, self.b, self.head = (
            nn.Conv2d(3, 8, 3),
            nn.BatchNorm2d(8),
            nn.Conv2d(8, 6, 3),
            nn.Linear(6, 3),
        )
        self.register_buffer("shift", torch.tensor(0.25))
        self.to(torch.bfloat16).norm.float()
        self.norm.running_mean.normal_()
        self.norm.running_var.uniform_(0.5, 2.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.a(x).float()).to(self.b.weight.dtype)
        return self.head(torch.relu(self.b(torch.relu(x)) + self.shift).mean((2, 3)))


def halved(model: nn.Module, *layers: str) -> SimpleNamespace:
    """Every other filter of these convolutions is gone, with its bias and the normalisation behind it."""
    with torch.no_grad():
        for name in layers:
            layer = model.get_submodule(name)
            layer.weight[::2] = 0
            layer.bias[::2] = 0
        if hasattr(model, "norm"):
            for tensor in (model.norm.weight, model.norm.bias):
                tensor[::2] = 0
            model.b.weight[:, ::2] = 0
    return SimpleNamespace(model=model.eval())


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_every_tensor_keeps_its_precision_and_the_numbers_are_those_of_the_rows_kept(memory: torch.memory_format):
    net = Mixed().to(memory_format=memory)
    x = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(1)).bfloat16().to(memory_format=memory)
    pruned = halved(net, "a")
    small = pv.compact(SimpleNamespace(model=pruned.model, sample=x[:1])).model
    dense = net.state_dict()
    for name, value in small.state_dict().items():
        assert value.dtype == dense[name].dtype, name
        along = {"a.weight": (0,), "a.bias": (0,), "b.weight": (1,)}.get(name, (0,) if name.startswith("norm") else ())
        expected = dense[name]
        for axis in along if expected.dim() else ():
            expected = expected.index_select(axis, torch.arange(1, expected.shape[axis], 2))
        assert torch.equal(value, expected), name
    assert {value.dtype for value in dense.values()} == {torch.bfloat16, torch.float32, torch.int64}
    torch.testing.assert_close(small(x), net(x), rtol=0, atol=0)


def test_a_sample_in_float32_of_a_network_in_half_precision_is_brought_to_it():
    net = halved(Mixed(), "a").model
    found = pv.compact(SimpleNamespace(model=net, sample=torch.randn(1, 3, 8, 8)))
    assert found.after.parameters < found.before.parameters
    assert found.after.flops < found.before.flops


class Reads(nn.Module):
    """Words by keyword; logits and hidden numbers come out, in an object of its own."""

    def __init__(self, own: bool):
        super().__init__()
        torch.manual_seed(0)
        self.own, self.hides = own, False
        self.embed, self.a, self.b = nn.Embedding(7, 6), nn.Linear(6, 9), nn.Linear(9, 3)

    def forward(self, ids: torch.Tensor, rate: torch.Tensor):
        h = torch.relu(self.a(self.embed(ids)))
        found = {"logits": self.b(h).mean(1) * rate, "hidden": self.embed(ids) if self.hides else h}
        return SimpleNamespace(**found) if self.own else found


@pytest.mark.parametrize("own", [False, True])
def test_networks_of_token_ids_shrink_and_what_comes_out_beside_is_kept(own: bool):
    net = Reads(own)
    sample = Inputs({"ids": torch.tensor([[6, 0, 3]]), "rate": torch.rand(1, 3)})
    with torch.no_grad():
        net.a.weight[:4], net.a.bias[:4] = 0, 0
        net.b.weight[:, :4] = 0
    small, _ = removal.smaller(net, sample)
    assert small.a.weight.shape == (9, 6)  # its outputs are given out too
    net.hides = True
    small, _ = removal.smaller(net, sample)
    assert small.a.weight.shape == (5, 6)
    assert small.embed.weight.shape == (7, 6)


def test_ids_of_the_check_are_the_sample_s_own():
    seen = []

    class Ids(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.a, self.b = nn.Embedding(5, 4), nn.Linear(4, 6), nn.Linear(6, 2)

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            seen.append(ids)
            return self.b(torch.relu(self.a(self.embed(ids).mean(1))))

    net = Ids()
    with torch.no_grad():
        net.b.weight[:, ::2] = 0
    small, _ = removal.smaller(net, torch.tensor([[4, 2, 2]]))
    assert small.a.weight.shape == (3, 4)
    assert all(not ids.is_floating_point() and set(ids.unique().tolist()) <= {2, 4} for ids in seen)
    x = torch.tensor([[0, 1, 3], [4, 2, 0]])
    torch.testing.assert_close(small.eval()(x), net.eval()(x), rtol=0, atol=1e-6)


class Awkward(nn.Module):
    """Two layers, and in between whatever ``between`` makes of the network and its hidden numbers."""

    def __init__(self, between):
        super().__init__()
        torch.manual_seed(0)
        self.between = between
        self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 3)
        with torch.no_grad():
            self.b.weight[:, ::2] = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(self.between(self, torch.relu(self.a(x))))


def _known(net: Awkward, h: torch.Tensor) -> torch.Tensor:
    return h * {6: 1.0}[h.shape[1]]  # a KeyError with any other number


def _counted(net: Awkward, h: torch.Tensor) -> torch.Tensor:
    assert h.shape[1] == 6
    return h


def _halves(net: Awkward, h: torch.Tensor) -> torch.Tensor:
    return h * (1.0 if h.shape[1] == 6 else 0.5)


@pytest.mark.parametrize(
    ("between", "said"),
    [
        (_known, "KeyError: 3.*counts? its channels"),
        (_counted, "AssertionError.*count its channels"),
        (_halves, "change this network"),
    ],
)
def test_whatever_the_network_s_code_raises_is_told_in_one_sentence(between, said: str):
    with pytest.raises(Unsuitable, match=said):
        removal.smaller(Awkward(between), torch.randn(1, 4))


def test_a_network_that_does_not_run_in_float64_is_said_to():
    def only_float(net: Awkward, h: torch.Tensor) -> torch.Tensor:
        if net.a.weight.dtype is not torch.float32:
            raise NotImplementedError("float32 only")
        return h

    with pytest.raises(Unsuitable, match=r"does not run in float64.*float32 only"):
        removal.smaller(Awkward(only_float), torch.randn(1, 4))


def test_outputs_that_are_no_numbers_are_compared_as_such():
    net = Awkward(lambda net, h: h)
    net.between = lambda net, h: h * 0 + torch.log(-1 - h.sum(1, keepdim=True).abs())  # NaN throughout
    removal.smaller(net, torch.randn(1, 4))
    ones = Awkward(lambda net, h: h if h.shape[1] == 6 else h * float("nan"))
    with pytest.raises(Unsuitable, match="inf of its largest"):
        removal.smaller(ones, torch.randn(1, 4))


def test_weights_that_are_tied_stay_so_and_are_saved(tmp_path):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.a, self.b, self.head = (
                nn.Embedding(7, 4),
                nn.Linear(4, 6),
                nn.Linear(6, 4),
                nn.Linear(4, 7),
            )
            self.head.weight = self.embed.weight

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return self.head(self.b(torch.relu(self.a(self.embed(ids)))).mean(1))

    net, ids = Tied().half(), torch.tensor([[1, 5, 2]])
    with torch.no_grad():
        net.b.weight[:, 1:] = 0
    small = removal.Compacted(removal.smaller(net, ids)[0], *[cost(net, ids)] * 2)
    assert small.model.head.weight is small.model.embed.weight
    assert small.model.a.weight.shape == (1, 4)
    small.save(tmp_path / "tied.safetensors")
    found = removal.load(tmp_path / "tied.safetensors", Tied().half())
    torch.testing.assert_close(found.float()(ids), small.model.float()(ids), rtol=0, atol=0)


def test_networks_that_torch_s_own_pruning_has_changed_are_copied():
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3))
    prune.l1_unstructured(net[0], "weight", 0.5)
    with torch.no_grad():
        net[4].weight[:, :2] = 0
    x = torch.randn(5, 4)
    small, _ = removal.smaller(net, x[:1])
    assert small[2].weight.shape == (4, 6)
    torch.testing.assert_close(small(x), net(x))

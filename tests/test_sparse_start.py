"""Networks that are sparse already: what is gone stays gone, and what is asked counts it."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from problems import samples
from torch import Tensor, nn

import pruneviz as pv
from pruneviz.basics.errors import InvalidSetting, Unsuitable
from pruneviz.curvature.task import Task, generator_for
from pruneviz.methods import METHODS, method_class
from pruneviz.units.directions import rotated
from pruneviz.units.filters import Filters
from pruneviz.units.isometry import isometric, rescaled
from pruneviz.units.masks import Mask
from pruneviz.units.start import alive_at, partly_zero, whole_units

WEIGHTS = [key for key, card in METHODS.items() if card.unit == "weight"]
FILTERS = [key for key, card in METHODS.items() if card.unit == "filter"]
NAMES = ("0.weight", "2.weight", "5.weight")


def _how(method: str) -> dict[str, Any]:
    return {"fisher": "exact"} if method.startswith(("kron", "eigen")) else {}


def _holed(model: nn.Module, share: float = 0.3, *names: str) -> dict[str, Tensor]:
    """Zeros strewn into the weights named; which entries are left, by name."""
    draw, kept = torch.Generator().manual_seed(2), {}
    for name in names:
        weight = model.get_parameter(name)
        kept[name] = torch.rand(weight.shape, generator=draw) >= share
        weight.data.mul_(kept[name])
    return kept


def _zeros(model: nn.Module, names=NAMES) -> int:
    return sum(int((model.get_parameter(name) == 0).sum()) for name in names)


# which entries are there


def test_zeros_count_as_gone_from_one_in_a_hundred_to_all_but_one():
    for zeros, partly in ((0, False), (1, False), (2, True), (199, True), (200, False)):
        layer = nn.Linear(20, 10)
        layer.weight.data.fill_(1.0).view(-1)[:zeros] = 0
        assert partly_zero(layer.weight) is partly
        alive = alive_at(layer, ["weight"])["weight"]
        assert alive.dtype is torch.bool
        assert int((~alive).sum()) == (zeros if partly else 0)
        assert not partly or torch.equal(alive, layer.weight != 0)


def test_an_earlier_mask_counts_too_and_names_must_be_the_networks(mlp: nn.Module):
    holes = _holed(mlp, 0.3, "0.weight")["0.weight"]
    keep = torch.rand(5, 6, generator=torch.Generator().manual_seed(9)) < 0.6
    names = ["0.weight", "2.weight"]
    for given in (
        {"0.weight": keep},
        Mask({"0.weight": keep}),
        {"0.weight": keep.double()},
        {"0.weight": keep.numpy()},
    ):
        found = alive_at(mlp, names, given=given)  # pyright: ignore[reportArgumentType]
        assert list(found) == names
        assert torch.equal(found["0.weight"], holes & keep)
        assert found["2.weight"].all()
    beside = Mask({"0.weight": keep, "0.bias": torch.zeros(5).bool()}, coupled={"2.bias": torch.zeros(3).bool()})
    assert list(alive_at(mlp, names, given=beside)) == names
    for bad, said in (
        ({"0": keep}, "no parameter called '0'.* Did you mean '0.weight'|no parameter called '0'.* It has"),
        ({"module.0.weight": keep}, "Take 'module.' off"),
        ({"0.weight": keep.T}, r"'0.weight' is \[6, 5\], and the network's is \[5, 6\]"),
    ):
        with pytest.raises(Unsuitable, match=said):
            alive_at(mlp, names, given=bad)


def test_a_tied_weight_is_found_by_either_name():
    model = nn.ModuleDict({"embed": nn.Embedding(7, 4), "head": nn.Linear(4, 7, bias=False)})
    model["head"].weight = model["embed"].weight  # pyright: ignore[reportArgumentType]
    keep = torch.arange(28).view(7, 4) % 2 == 0
    assert torch.equal(alive_at(model, ["head.weight"], given={"head.weight": keep})["head.weight"], keep)
    assert torch.equal(Mask.full(model, ["head.weight"], {"head.weight": keep})["head.weight"], keep)


# single weights


@pytest.mark.parametrize("method", WEIGHTS)
def test_every_method_removes_the_rest_and_no_more(cnn: nn.Module, method: str):
    """Asked 60% of a network a quarter of which is gone: 60% are zero afterwards, and among them all that were."""
    x, y = samples(cnn)
    kept = _holed(cnn, 0.3, "2.weight", "5.weight")
    initial = {"initial": cnn.state_dict()} if METHODS[method].needs_initial else {}
    before = copy.deepcopy(cnn.state_dict())
    pruned = pv.prune(cnn, x, y, method=method, sparsity=0.6, **initial)
    assert all(torch.equal(a, b) for a, b in zip(cnn.state_dict().values(), before.values(), strict=True))
    assert _zeros(pruned.model) == pruned.mask.removed == round(0.6 * pruned.mask.size)
    assert pruned.report["reached"] == pruned.mask.sparsity
    for name, keep in kept.items():
        assert not (pruned.mask[name] & ~keep).any()
        assert torch.equal(pruned.model.get_parameter(name) == 0, ~pruned.mask[name])
    with pytest.raises(InvalidSetting, match="is pruned already and a mask only shrinks"):
        pv.prune(cnn, x, y, method=method, sparsity=0.1, **initial)


@pytest.mark.parametrize("method", ["magnitude", "obs", "isometry"])
def test_a_mask_given_for_a_dense_network_is_the_same_as_its_zeros(cnn: nn.Module, method: str):
    x, y = samples(cnn)
    holed = copy.deepcopy(cnn)
    kept = _holed(holed, 0.3, *NAMES)
    one = pv.prune(holed, x, y, method=method, sparsity=0.6)
    two = pv.prune(cnn, x, y, method=method, sparsity=0.6, mask=kept)
    assert all(torch.equal(one.mask[name], two.mask[name]) for name in one.mask)
    assert all(
        torch.equal(a, b) for a, b in zip(one.model.state_dict().values(), two.model.state_dict().values(), strict=True)
    )
    a, b = pv.score(holed, x, y, method=method), pv.score(cnn, x, y, method=method, mask=kept)
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_head_that_is_zero_throughout_is_there_and_may_be_repaired(mlp: nn.Module):
    x, y = samples(mlp)
    nn.init.zeros_(mlp[2].weight)
    pruned = pv.prune(mlp, x, y, method="magnitude", sparsity=0.0)
    assert pruned.report["reached"] == 0
    assert pruned.mask["2.weight"].all()


def test_obs_moves_survivors_as_if_what_is_gone_had_never_been():
    """Linear regression, two of six inputs gone: the refit without these, and without those that leave."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(50, 6, generator=draw, dtype=torch.float64)
    t = x @ torch.randn(6, 1, generator=draw, dtype=torch.float64) + 0.1 * torch.randn(50, 1, generator=draw).double()
    model = nn.Linear(6, 1, bias=False).double()
    there = torch.tensor([True, False, True, True, False, True])
    with torch.no_grad():
        model.weight.zero_()
        model.weight[0, there] = torch.linalg.lstsq(x[:, there], t).solution[:, 0]
    pruned = pv.prune(model, x, t, method="obs", loss="squared", alpha=1e-8, sparsity=4 / 6)
    keep = pruned.mask["weight"][0]
    assert int(keep.sum()) == 2
    assert not (keep & ~there).any()
    refit = torch.linalg.lstsq(x[:, keep], t).solution[:, 0]
    assert torch.allclose(pruned.model.weight[0, keep], refit, atol=1e-6)


def test_repairs_from_the_weights_alone_revive_nothing(cnn: nn.Module):
    kept = _holed(cnn, 0.4, *NAMES)
    mask = Mask.full(cnn, NAMES, alive_at(cnn, NAMES))
    for found in (isometric(cnn, mask)[0], rescaled(cnn, mask)):
        assert all(not found[name][~kept[name]].any() for name in NAMES)


# whole units


def test_what_is_gone_of_a_filter_network_is_counted_by_hand(cnn: nn.Module):
    """1 -> 3 -> 4 channels, 16 inputs of the head; without filter 1 of the first layer, entry by entry."""
    x, _ = samples(cnn)
    kept = _holed(cnn, 0.3, *NAMES)
    layout = Filters(cnn, x[:1], alive=alive_at(cnn, NAMES))
    full = layout.full()
    assert layout.size == full.size == 27 + 108 + 48
    assert full.removed == sum(int((~keep).sum()) for keep in kept.values())
    first, second = layout.groups
    for out, into in ([1], []), ([1, 2], [0]), ([], [3]):
        units = {group: torch.ones(group.size, dtype=torch.bool) for group in layout.groups}
        units[first][out] = False
        units[second][into] = False
        mask = layout.mask(units)
        left = {name: keep.numpy().copy() for name, keep in kept.items()}
        left["0.weight"][out] = False
        left["2.weight"][:, out] = False
        left["2.weight"][into] = False
        left["5.weight"].reshape(3, 4, 4)[:, into] = False
        assert mask.removed == layout.size - sum(int(keep.sum()) for keep in left.values())
        assert all(np.array_equal(mask[name].numpy(), left[name]) for name in NAMES)
        assert mask.per_layer() == pytest.approx({name: 1 - left[name].mean() for name in NAMES})


@pytest.mark.parametrize("method", FILTERS)
def test_filters_leave_a_sparse_network_and_no_single_weight_comes_back(cnn: nn.Module, method: str):
    x, y = samples(cnn)
    kept = _holed(cnn, 0.3, *NAMES)
    pruned = pv.prune(cnn, x, y, method=method, sparsity=0.65, **_how(method))
    start = sum(int((~keep).sum()) for keep in kept.values()) / 183
    assert start < pruned.report["reached"] <= 0.65
    assert _zeros(pruned.model) == pruned.mask.removed
    assert all(not pruned.model.get_parameter(name)[~kept[name]].any() for name in NAMES)
    assert _zeros(pv.compact(pruned).model, ("0.weight", "2.weight", "5.weight")) < _zeros(pruned.model)
    with pytest.raises(InvalidSetting, match="is pruned already"):
        pv.prune(cnn, x, y, method=method, sparsity=start - 0.05, **_how(method))


def test_kron_obs_moves_to_what_is_there_alone(cnn: nn.Module):
    """Its repair by itself, before anything is masked."""
    x, y = samples(cnn)
    kept = _holed(cnn, 0.3, *NAMES)
    task = Task(lambda: [(x, y)], generator_for(0, "score"), alive=alive_at(cnn, NAMES))
    method = method_class("kron-obs").from_params(_how("kron-obs"))
    full = method.full(cnn, task)
    scores = method.score(cnn, task, full)
    mask = method.choose(cnn, task, scores, full, 0.6)
    moved = method.repaired(cnn, task, scores, mask)
    assert moved
    for name, value in moved.items():
        assert not value[~kept[name]].any()
        assert not torch.equal(value, cnn.get_parameter(name) * mask[name])


# directions


def _net() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(8, 12), nn.Tanh(), nn.Linear(12, 10), nn.Tanh(), nn.Linear(10, 3)).double()


def test_eigendamage_leaves_layers_with_single_zeros_as_they_are():
    """Turned, they would be filled. The last layer is never turned: its zeros are counted and stay."""
    model = _net()
    x, y = samples(model)
    kept = _holed(model, 0.3, "2.weight", "4.weight")
    pruned = pv.prune(model, x, y, method="eigendamage", sparsity=0.35, **_how("eigen"))
    assert list(rotated(pruned.model)) == ["0"]
    gone = sum(int((~keep).sum()) for keep in kept.values())
    assert pruned.mask.size == 96 + 120 + 30
    layer = rotated(pruned.model)["0"]
    left = min(layer.pieces(*(int(k.sum()) for k in layer.kept())), 96)
    assert pruned.mask.removed == gone + 96 - left
    assert gone / 246 < pruned.report["reached"] <= 0.35
    for name, keep in kept.items():
        assert torch.equal(pruned.model.get_parameter(name) != 0, keep)
        assert torch.equal(pruned.mask[name], keep)
    _holed(model, 0.3, "0.weight")
    with pytest.raises(Unsuitable, match="'0', like all others here, has single weights that are zero already"):
        pv.prune(model, x, y, method="eigendamage", sparsity=0.5)


@pytest.mark.parametrize("count", ["compacted", "core"])
def test_eigendamage_turns_what_lost_whole_filters_and_brings_none_back(count: str):
    model = _net()
    x, y = samples(model)
    first = pv.prune(model, x, y, method="kron-obd", sparsity=0.4, **_how("kron"))
    before = first.mask.removed
    with torch.no_grad():
        (same,) = (
            pv.prune(first.model, x, y, method="eigendamage", sparsity=before / 246 + 1e-9, count=count).model(x),
        )
        assert torch.allclose(same, first.model(x), atol=1e-10)
    for more in (0.55, 0.7):
        pruned = pv.prune(first.model, x, y, method="eigendamage", sparsity=more, count=count, **_how("eigen"))
        assert before / 246 < pruned.report["reached"] <= more
        for name, layer in rotated(pruned.model).items():
            (kept_in, kept_out), merged = layer.kept(), layer.merged().weight
            there = first.mask[f"{name}.weight"]
            assert int(kept_in.sum()) <= int(there.any(0).sum())
            assert int(kept_out.sum()) <= int(there.any(1).sum())
            assert not merged[~there].any()
    with pytest.raises(InvalidSetting, match="is pruned already"):
        pv.prune(first.model, x, y, method="eigendamage", sparsity=0.2, count=count)


def test_eigendamage_twice_goes_on_from_the_directions_that_are_left():
    model = _net()
    x, y = samples(model)
    first = pv.prune(model, x, y, method="eigendamage", sparsity=0.3, **_how("eigen"))
    again = pv.prune(first.model, x, y, method="eigendamage", sparsity=0.6, **_how("eigen"))
    for name, layer in rotated(again.model).items():
        for now, then in zip(layer.kept(), rotated(first.model)[name].kept(), strict=True):
            assert int(now.sum()) <= int(then.sum())
    assert first.report["reached"] < again.report["reached"] <= 0.6


@pytest.mark.parametrize(
    ("rows", "columns", "groups", "whole"),
    [([], [], 1, True), ([1], [0, 2], 1, True), ([1], [], 2, False), ([1, 3], [2], 2, True), ([0, 1], [], 2, False)],
)
def test_whole_outputs_and_inputs_are_told_from_single_entries(
    rows: list[int], columns: list[int], groups: int, whole: bool
):
    alive = torch.ones(4, 3, 2, 2, dtype=torch.bool)
    alive[rows] = False
    alive[:, columns] = False
    assert whole_units(alive, groups) is whole
    alive[2, 1, 0, 1] = False
    assert not whole_units(alive, groups)

"""Exact selection by rank."""

from __future__ import annotations

import copy
import random
from pathlib import Path

import pytest
import torch
from problems import samples
from strange import Words
from torch import nn

import pruneviz as pv
from pruneviz.basics.errors import InvalidSetting, StoreError, Unsuitable
from pruneviz.units.choice import apportion, count, select, tie_ranks
from pruneviz.units.masks import Mask, Scores
from pruneviz.units.paths import connected


def _scores(**values: list[float]) -> tuple[Scores, Mask]:
    tensors = {name: torch.tensor(v, dtype=torch.float64) for name, v in values.items()}
    return Scores.of_weights(tensors), Mask({name: torch.ones_like(t, dtype=torch.bool) for name, t in tensors.items()})


@pytest.mark.parametrize("seed", [0, 7])
@pytest.mark.parametrize("removed", range(10))
def test_exactly_k_leave_and_ties_go_by_their_rank(removed: int, seed: int):
    values = [3.0, 1.0, 1.0, 2.0, 1.0, 1.0, 0.0, 2.0, 1.0, 1.0]
    scores, mask = _scores(w=values)
    ranks = tie_ranks(torch.tensor(values), "w", seed).tolist()
    order = sorted(range(10), key=lambda i: (values[i], ranks[i]))
    found = select(scores, mask, removed / 10, seed=seed)
    assert found["w"].tolist() == [i not in order[:removed] for i in range(10)]


def test_all_equal_scores_still_lose_exactly_nine_of_ten():
    scores, mask = _scores(a=[1.0] * 6, b=[1.0] * 4)
    assert select(scores, mask, 0.9).removed == 9


def test_global_scope_ranks_layers_together():
    scores, mask = _scores(a=[0.1, 0.2, 0.3, 0.4], b=[10.0, 20.0, 30.0, 40.0])
    assert select(scores, mask, 0.5).per_layer() == {"a": 1.0, "b": 0.0}


def test_layer_scope_removes_the_same_share_and_the_global_count():
    scores, mask = _scores(a=[float(i) for i in range(7)], b=[float(i) for i in range(5)])
    found = select(scores, mask, 0.5, scope="layer")
    assert found.removed == count(0.5, 12) == 6
    assert sorted(int((~k).sum()) for k in found.values()) in ([2, 4], [3, 3])


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_a_mask_only_shrinks(scope: str):
    generator = torch.Generator().manual_seed(0)
    mask = None
    for target in (0.3, 0.31, 0.5, 0.9, 0.97):
        values = {n: torch.rand(k, generator=generator).tolist() for n, k in (("a", 31), ("b", 17), ("c", 3))}
        scores, full = _scores(**values)
        after = select(scores, mask or full, target, scope=scope)
        assert after.removed == count(target, 51)
        assert all(not (after[n] & ~(mask or full)[n]).any() for n in after)
        mask = after


def test_going_back_to_a_lower_sparsity_is_refused():
    scores, mask = _scores(a=[1.0, 2.0, 3.0, 4.0])
    with pytest.raises(InvalidSetting, match="only shrinks"):
        select(scores, select(scores, mask, 0.5), 0.25)


@pytest.mark.parametrize(
    ("target", "size", "expected"), [(0.9, 266_200, 239_580), (0.95, 10, 10), (0.05, 10, 1), (0.98, 1, 1), (0, 9, 0)]
)
def test_count_is_exact(target: float, size: int, expected: int):
    assert count(target, size) == expected


@pytest.mark.parametrize("bad", [1.0, -0.1, 1.5, float("nan")])
def test_sparsities_outside_their_range_are_refused(bad: float):
    with pytest.raises(InvalidSetting, match="at least 0 and below 1"):
        count(bad, 10)


def test_apportion_meets_the_total_within_bounds():
    assert apportion(7, [2.5, 2.5, 2.0], [0, 0, 0], [9, 9, 9]) == [3, 2, 2]
    assert apportion(6, [5.0, 1.0], [0, 3], [3, 9]) == [3, 3]


@pytest.mark.parametrize("seed", range(40))
def test_apportion_is_the_same_as_moving_one_at_a_time(seed: int):
    """The part farthest from its share moves by one, until the total is met: with bounds that hold many far from their shares."""
    draw = random.Random(seed)
    highs = [draw.randint(1, 60) for _ in range(draw.randint(1, 5))]
    lows = [draw.choice([0, draw.randint(0, high)]) for high in highs]
    total = draw.randint(sum(lows), sum(highs))
    shares = [draw.random() * high for high in highs]
    parts = [min(max(int(share), low), high) for share, low, high in zip(shares, lows, highs, strict=True)]
    while sum(parts) != total:
        step = 1 if sum(parts) < total else -1
        free = [i for i in range(len(parts)) if (parts[i] < highs[i] if step > 0 else parts[i] > lows[i])]
        parts[max(free, key=lambda i: step * (shares[i] - parts[i]))] += step
    assert apportion(total, shares, lows, highs) == parts


def test_scores_that_are_not_finite_are_refused():
    with pytest.raises(Unsuitable, match="not all finite"):
        _scores(a=[1.0, float("nan")])


def test_a_path_through_surviving_weights_is_found_and_missed():
    model = nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 1))
    x = torch.zeros(1, 2)
    through_first = torch.tensor([[True, False], [False, False]])
    assert connected(model, Mask({"0.weight": through_first, "2.weight": torch.tensor([[True, False]])}), x)
    assert not connected(model, Mask({"0.weight": through_first, "2.weight": torch.tensor([[False, True]])}), x)


# files


def _same(a: Mask, b: Mask) -> None:
    assert list(a) == list(b)
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert {n: k.tolist() for n, k in a.coupled.items()} == {n: k.tolist() for n, k in b.coupled.items()}
    assert {g: k.tolist() for g, k in a.units.items()} == {g: k.tolist() for g, k in b.units.items()}
    assert (a.size, a.removed, a.sparsity) == (b.size, b.removed, b.sparsity)
    assert (a.per_layer(), a.empty_layers) == (b.per_layer(), b.empty_layers)


@pytest.mark.parametrize(
    ("method", "sparsity"), [("magnitude", 0.9), ("kron-obd", 0.4), ("eigendamage", 0.3), ("l1-filters", 0.4)]
)
def test_a_mask_comes_back_from_its_file(cnn: nn.Module, tmp_path: Path, method: str, sparsity: float):
    x, y = samples(cnn)
    pruned = pv.prune(cnn, x, y, method=method, sparsity=sparsity)
    pruned.mask.save(tmp_path / "mask.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["mask.safetensors"]
    again = pv.Mask.load(tmp_path / "mask.safetensors")
    _same(again, pruned.mask)
    again.save(str(tmp_path / "mask.safetensors"))  # over the last one
    _same(pv.Mask.load(str(tmp_path / "mask.safetensors")), pruned.mask)
    if method != "eigendamage":
        fresh = copy.deepcopy(cnn)
        again.apply_(fresh)
        masked = {n: p * pruned.mask.everything.get(n, torch.tensor(True)) for n, p in cnn.named_parameters()}
        assert all(torch.equal(p, masked[n]) for n, p in fresh.named_parameters())


def test_whole_units_of_a_file_are_not_chosen_again_without_their_network(cnn: nn.Module, tmp_path: Path):
    x, y = samples(cnn)
    mask = pv.prune(cnn, x, y, method="kron-obd", sparsity=0.4).mask
    mask.save(tmp_path / "m")
    with pytest.raises(Unsuitable, match="read from a file"):
        pv.Mask.load(tmp_path / "m").keeping(mask.units)


def test_files_that_hold_no_mask_are_refused_in_a_sentence(tmp_path: Path):
    from safetensors.torch import save_file

    Mask({"w": torch.tensor([True, False])}).save(tmp_path / "whole")
    content = (tmp_path / "whole").read_bytes()
    save_file({"w": torch.zeros(2)}, tmp_path / "weights")
    kept = {"kept/w": torch.zeros(2), "format": "pruneviz mask 1", "mask": '{"kept": ["w"]}'}
    save_file({"kept/w": torch.zeros(2)}, tmp_path / "lacks", {k: v for k, v in kept.items() if isinstance(v, str)})
    full = '{"kept": ["w"], "coupled": [], "units": [], "size": null, "left": null}'
    save_file({"kept/w": torch.zeros(2)}, tmp_path / "floats", {"format": "pruneviz mask 1", "mask": full})
    save_file({"kept/v": torch.zeros(2).bool()}, tmp_path / "other", {"format": "pruneviz mask 1", "mask": full})
    save_file({"kept/w": torch.zeros(2).bool()}, tmp_path / "newer", {"format": "pruneviz mask 2", "mask": full})
    for name, text in (("empty", b""), ("cut", content[:-1]), ("words", b"not a mask at all")):
        (tmp_path / name).write_bytes(text)
    for name, said in (
        ("absent", "There is no mask at"),
        ("empty", "no mask, or was cut short"),
        ("cut", "no mask, or was cut short"),
        ("words", "no mask, or was cut short"),
        ("weights", "holds no mask"),
        ("newer", "holds no mask that this version reads"),
        ("lacks", "is damaged"),
        ("floats", "is damaged"),
        ("other", "is damaged"),
    ):
        with pytest.raises(StoreError, match=said) as error:
            Mask.load(tmp_path / name)
        assert str(tmp_path / name) in str(error.value)
    with pytest.raises(StoreError, match="cannot be written"):
        Mask({"w": torch.tensor([True])}).save(tmp_path / "no folder" / "mask")
    with pytest.raises(StoreError, match="cannot be written"):
        Mask({"w": torch.tensor([True])}).save(tmp_path)  # a folder


def test_names_of_their_own_are_taken_from_the_package():
    assert {"Mask", "Splits", "hold"} <= set(dir(pv))
    x, y = torch.zeros(3, 2), torch.zeros(3, dtype=torch.long)
    data = pv.Splits((x, y), (x, y), (x, y), ("a", "b"), (2,))
    assert (data.classes, data.shape) == (("a", "b"), (2,))


# onto a network


@pytest.mark.parametrize("name", ["embed.weight", "head.weight"])
def test_a_mask_finds_a_tied_weight_by_either_name(name: str):
    model, keep = Words(tied=True).double(), torch.arange(72).view(12, 6) % 3 > 0
    before = model.embed.weight.detach().clone()
    Mask({name: keep}).apply_(model)
    assert torch.equal(model.head.weight, before * keep)
    assert model.head.weight is model.embed.weight


def test_a_mask_that_does_not_fit_says_what_to_do_and_changes_nothing(mlp: nn.Module):
    whole = {name: torch.zeros_like(p, dtype=torch.bool) for name, p in mlp.named_parameters()}
    before = copy.deepcopy(mlp.state_dict())
    wrapped = {f"module.{name}": keep for name, keep in whole.items()}
    for bad, said in (
        (wrapped, "Take 'module.' off the mask's names"),
        (whole | {"2.weigth": whole["2.weight"]}, "called '2.weigth'.* Did you mean '2.weight'"),
        (whole | {"q": whole["2.weight"]}, "called 'q'.* It has 0.weight, 0.bias"),
        (whole | {"2.weight": torch.zeros(3, 4)}, r"'2.weight' is \[3, 4\], and the network's is \[3, 5\]"),
    ):
        with pytest.raises(Unsuitable, match=said):
            Mask(bad).apply_(mlp)
        with pytest.raises(Unsuitable, match=said):
            pv.hold(mlp, Mask(bad))
        assert all(torch.equal(a, b) for a, b in zip(mlp.state_dict().values(), before.values(), strict=True))
    with pytest.raises(Unsuitable, match="The network is wrapped"):
        Mask(whole).apply_(nn.ModuleDict({"module": mlp}))


def test_pruned_weights_are_zero_whatever_they_were(mlp: nn.Module):
    with torch.no_grad():
        mlp[0].weight[0, 0], mlp[0].weight[0, 1] = float("nan"), float("inf")
    keep = torch.ones(5, 6, dtype=torch.bool)
    keep[0, :2] = False
    Mask({"0.weight": keep}).apply_(mlp)
    assert mlp[0].weight[0, :2].tolist() == [0, 0]

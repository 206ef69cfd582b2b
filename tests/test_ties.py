"""Units of equal score leave by one seeded rank: masks nest, layers of equal worth lose equal shares, storage order decides nothing."""

from __future__ import annotations

import itertools
import random

import pytest
import torch
from problems import samples
from torch import Tensor, nn

import pruneviz as pv
from pruneviz.curvature.task import Task, generator_for
from pruneviz.methods import method_class
from pruneviz.units.choice import at_the_cut, count, order, remove_lowest, select, select_units, tie_ranks
from pruneviz.units.filters import Filters
from pruneviz.units.masks import Mask, Scores

pytestmark = pytest.mark.filterwarnings("ignore:.*tied at the cut")  # that is what these networks are for
TARGETS = [i / 40 for i in range(40)]


def _scores(values: dict[str, list[float]]) -> tuple[Scores, Mask]:
    tensors = {name: torch.tensor(v, dtype=torch.float64) for name, v in values.items()}
    return Scores.of_weights(tensors), Mask({name: torch.ones_like(t, dtype=torch.bool) for name, t in tensors.items()})


def _brute(values: dict[str, list[float]], k: int, seed: int) -> dict[str, list[bool]]:
    """Which stay, by sorting (score, rank) in Python."""
    ranks = {name: tie_ranks(torch.tensor(v, dtype=torch.float64), name, seed).tolist() for name, v in values.items()}
    rows = sorted((v[i], ranks[name][i], name, i) for name, v in values.items() for i in range(len(v)))
    gone = {(name, i) for _, _, name, i in rows[:k]}
    return {name: [(name, i) not in gone for i in range(len(v))] for name, v in values.items()}


@pytest.mark.parametrize("seed", range(30))
def test_any_scores_are_cut_exactly_as_by_sorting_and_masks_nest(seed: int):
    """Layers of any size whose scores take few values."""
    draw = random.Random(seed)
    sizes = {name: draw.randint(1, 12) for name in "abcd"[: draw.randint(1, 4)]}
    values = {name: [float(draw.randint(0, 2)) for _ in range(n)] for name, n in sizes.items()}
    scores, full = _scores(values)
    before = None
    for target in TARGETS:
        found = select(scores, full, target, seed=seed)
        assert {name: keep.tolist() for name, keep in found.items()} == _brute(values, count(target, full.size), seed)
        if before is not None:
            assert all(not (found[name] & ~before[name]).any() for name in found)
            again = select(scores, before, target, seed=seed)  # by way of a lower sparsity
            assert all(torch.equal(again[name], found[name]) for name in found)
        before = found


def test_distinct_scores_leave_in_their_order_whatever_the_seed():
    values = {
        name: torch.randperm(50, generator=torch.Generator().manual_seed(i)) + 0.1 * i for i, name in enumerate("ab")
    }
    scores, full = _scores({name: v.tolist() for name, v in values.items()})
    flat = torch.cat(list(values.values()))
    for seed in range(3):
        found = select(scores, full, 0.4, seed=seed)
        assert torch.equal(torch.cat([*found.values()]), flat.argsort().argsort() >= 40)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("sizes", [[40, 40, 40], [10, 40, 160, 3]], ids=str)
def test_layers_of_equal_worth_lose_equal_shares(sizes: list[int], seed: int):
    """Also where only some of a layer's units are tied: these are shared, and the better ones stay."""
    for better in (0, 7):
        scores, full = _scores({f"l{i}": [1.0] * n + [2.0] * better for i, n in enumerate(sizes)})
        for target in TARGETS:
            lost = [int((~keep).sum()) for keep in select(scores, full, target, seed=seed).values()]
            if sum(lost) <= sum(sizes):
                share = sum(lost) / sum(sizes)
                assert all(abs(k - share * n) < 2 for k, n in zip(lost, sizes, strict=True))
                assert len(set(sizes)) > 1 or max(lost) - min(lost) <= 1


def test_equal_units_leave_in_no_order_of_storage_and_in_another_with_another_seed():
    ranks = [tie_ranks(torch.ones(1000), "w", seed) for seed in range(2)]
    place = torch.arange(1000.0)
    for rank in ranks:
        assert torch.allclose(rank.sort().values.diff(), torch.tensor(1e-3, dtype=torch.float64))
        assert 0 < rank.min() < rank.max() < 1
        assert abs(torch.corrcoef(torch.stack([rank.float(), place]))[0, 1]) < 0.1
    assert not torch.equal(*ranks)
    assert torch.equal(tie_ranks(torch.ones(1000), "w", 0), ranks[0])
    assert not torch.equal(tie_ranks(torch.ones(1000), "v", 0), ranks[0])


def test_a_layer_by_itself_is_cut_the_same_way():
    value = torch.tensor([1.0, 0.0, 1.0, 0.0, 1.0, 2.0, 1.0])
    ranks = tie_ranks(value, "w", 4)
    kept = torch.tensor([True, True, False, True, True, True, True])
    rows = sorted((float(value[i]), float(ranks[i]), i) for i in range(7) if kept[i])
    for k in range(7):
        found = remove_lowest(value, kept, k, name="w", seed=4)
        assert found.tolist() == [bool(kept[i]) and i not in [row[2] for row in rows[:k]] for i in range(7)]


# whole units


def _equal_layers() -> nn.Module:
    return nn.Sequential(
        *[nn.Conv2d(1 if i == 0 else 8, 8, 3, padding=1) for i in range(4)], nn.Flatten(), nn.Linear(288, 3)
    ).double()


def test_filters_of_equal_score_leave_in_equal_shares_and_masks_nest():
    model = _equal_layers()
    layout = Filters(model, torch.zeros(1, 1, 6, 6, dtype=torch.float64), share=None)
    values = {group: torch.ones(group.size, dtype=torch.float64) for group in layout.groups}
    sequence = order(values, layout.full(), seed=3)
    ranks = [tie_ranks(value, group.name, 3) for group, value in values.items()]
    rows = sorted((float(ranks[i][j]), i, j) for i in range(4) for j in range(8))
    allowed = [(i, j) for n, (_, i, j) in enumerate(rows) if sum(1 for r in rows[: n + 1] if r[1] == i) <= 7]
    assert sequence.tolist() == [list(row) for row in allowed]
    masks = [select_units(values, layout.full(), t / 20, seed=3) for t in range(19)]
    for mask in masks:
        lost = [int((~mask.units[group]).sum()) for group in layout.groups]
        assert max(lost) - min(lost) <= 1
    for one, two in itertools.pairwise(masks):
        assert all(not (two.units[group] & ~one.units[group]).any() for group in layout.groups)


@pytest.mark.parametrize("method", ["l1-filters", "kron-obd"])
def test_equal_filters_of_one_layer_leave_in_no_order_of_storage(method: str):
    model = nn.Sequential(nn.Conv2d(1, 40, 3), nn.ReLU(), nn.Flatten(), nn.Linear(640, 3)).double()
    with torch.no_grad():
        model[0].weight.copy_(model[0].weight[:1].clone().expand(40, 1, 3, 3))
        model[3].weight.copy_(model[3].weight[:, :16].clone().repeat(1, 40))
        model[0].bias.fill_(0.1)
    x, y = samples(model)
    found = {}
    for seed in (0, 1):
        keep = pv.prune(
            model, x, y, method=method, sparsity=0.5, seed=seed, **({"fisher": "exact"} if "kron" in method else {})
        ).mask.units
        found[seed] = next(iter(keep.values()))
        assert int(found[seed].sum()) == 20
        assert 4 <= int(found[seed][:20].sum()) <= 16
    if method == "l1-filters":  # Kron-OBD's scores are equal up to rounding
        assert not torch.equal(found[0], found[1])


# methods


def _worthless() -> nn.Module:
    """Four equal layers whose outputs count for nothing: SNIP's scores there are all 0."""

    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.head = nn.Linear(6, 8), nn.Linear(8, 3)
            self.inside = nn.ModuleList(nn.Linear(8, 8, bias=False) for _ in range(4))
            self.scale = nn.Parameter(torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            x = torch.relu(self.stem(x))
            for layer in self.inside:
                x = torch.relu(x + self.scale * layer(x))
            return self.head(x)

    torch.manual_seed(0)
    return Residual().double()


@pytest.mark.parametrize("method", ["snip", "grasp", "obd", "isometry"])
def test_worthless_layers_share_what_leaves_and_the_share_of_ties_is_told(method: str):
    model = _worthless()
    x, y = samples(model)
    how = {"repair": False} if method == "isometry" else {}
    found = {s: pv.prune(model, x, y, method=method, sparsity=s, **how) for s in (0.2, 0.4)}
    for s, pruned in found.items():
        inside = {name: share for name, share in pruned.report["per_layer"].items() if name.startswith("inside")}
        if method != "grasp":  # its scores have both signs: some of the others leave before
            assert max(inside.values()) - min(inside.values()) <= 1 / 64 + 1e-9
            assert pruned.report["at_the_cut"] == pytest.approx(256 / 328), s
    one, two = found[0.2].mask, found[0.4].mask
    assert all(not (two[name] & ~one[name]).any() for name in one)


@pytest.mark.parametrize("blocks", ["none", "rows"])
def test_obs_removes_weights_that_are_zero_first_and_the_same_share_of_each_layer(blocks: str):
    """Layers that are zero throughout: nothing is lost by removing their weights, in no order of storage."""
    model = nn.Sequential(
        nn.Linear(6, 10), nn.Tanh(), nn.Linear(10, 10), nn.Tanh(), nn.Linear(10, 10), nn.Linear(10, 3)
    ).double()
    nn.init.zeros_(model[2].weight)
    nn.init.zeros_(model[4].weight)
    x, y = samples(model)
    before = None
    for k in (30, 80, 150):
        mask = pv.prune(model, x, y, method="obs", blocks=blocks, sparsity=k / 290 + 1e-9).mask
        lost = {name: ~keep for name, keep in mask.items()}
        assert mask.removed == k
        assert abs(int(lost["2.weight"].sum()) - k / 2) <= 1
        assert not lost["0.weight"].any()
        assert not lost["5.weight"].any()
        rows = lost["2.weight"].sum(1)
        assert k == 150 or int(rows.min()) < int(rows.max()) < 10
        assert before is None or all(not (mask[name] & ~before[name]).any() for name in mask)
        before = mask


@pytest.mark.parametrize("joint", [True, False])
def test_kron_obs_removes_dead_filters_first_in_no_order_of_storage(joint: bool):
    """Half of each layer's filters are zero, in the second half of their places."""
    model = nn.Sequential(nn.Linear(6, 40), nn.Tanh(), nn.Linear(40, 40), nn.Tanh(), nn.Linear(40, 3)).double()
    with torch.no_grad():
        model[0].weight[20:] = 0
        model[2].weight[20:] = 0
    x, y = samples(model)
    method = method_class("kron-obs").from_params({"fisher": "exact", "joint": joint})
    task = Task(lambda: [(x, y)], generator_for(0, "score"))
    full = method.full(model, task)
    scores = method.score(model, task, full)
    found = [method.choose(model, task, scores, full, target) for target in (0.2, 0.4)]
    for mask in found:
        lost = [(~keep).nonzero().flatten() for keep in mask.units.values()]
        assert all(int(at.min()) >= 20 for at in lost)
        assert abs(len(lost[0]) - len(lost[1])) <= 1
        for at in lost:
            assert at.tolist() != list(range(20, 20 + len(at)))
    assert all(not (found[1].units[group] & ~keep).any() for group, keep in found[0].units.items())


def test_the_lottery_ticket_draws_among_equal_weights_of_a_layer():
    model = nn.Sequential(nn.Linear(10, 20), nn.ReLU(), nn.Linear(20, 3)).double()
    nn.init.ones_(model[0].weight)
    x, y = samples(model)
    masks = [pv.prune(model, x, y, method="lottery-ticket", sparsity=s).mask["0.weight"] for s in (0.3, 0.6)]
    for keep in masks:
        assert 0 < int((~keep).sum(1).min()) <= int((~keep).sum(1).max()) < 10
    assert not (masks[1] & ~masks[0]).any()


def test_the_seed_of_the_ties_is_the_tasks_whatever_it_drew():
    task = Task(list, generator_for(5, "score"))
    before = task.seed
    torch.rand(3, generator=task.generator)
    assert task.seed == before
    scores, full = _scores({"a": [1.0] * 30})
    found = method_class("snip").from_params({}).choose(nn.Identity(), task, scores, full, 0.5)
    assert torch.equal(found["a"], select(scores, full, 0.5, seed=before)["a"])


# how many are tied


def _kept(full: Mask, **kept: list[int]) -> Mask:
    return Mask({name: torch.tensor([bool(k) for k in kept[name]]) for name in full})


def test_ties_at_the_cut_are_counted_by_hand():
    scores, full = _scores({"a": [0.0, 1.0, 1.0, 2.0], "b": [1.0, 3.0, 4.0, 5.0]})
    assert at_the_cut(scores, full, full) == 0
    assert at_the_cut(scores, full, _kept(full, a=[0, 1, 1, 1], b=[1, 1, 1, 1])) == 0  # the lowest alone
    assert at_the_cut(scores, full, _kept(full, a=[0, 0, 1, 1], b=[1, 1, 1, 1])) == 3 / 8
    assert at_the_cut(scores, full, _kept(full, a=[0, 0, 0, 1], b=[1, 1, 1, 1])) == 3 / 8
    assert at_the_cut(scores, full, _kept(full, a=[0, 0, 0, 1], b=[0, 1, 1, 1])) == 0  # all equal ones left
    before = _kept(full, a=[0, 0, 1, 1], b=[1, 1, 1, 1])
    assert at_the_cut(scores, before, _kept(full, a=[0, 0, 0, 1], b=[1, 1, 1, 1])) == 2 / 6
    assert at_the_cut(scores, before, before) == 0


def test_each_layer_has_its_own_cut_where_each_is_cut_for_itself():
    scores, full = _scores({"a": [0.0, 1.0, 1.0, 2.0], "b": [5.0, 6.0, 7.0, 7.0]})
    assert at_the_cut(scores, full, _kept(full, a=[0, 0, 1, 1], b=[0, 0, 1, 1])) == 2 / 8
    assert at_the_cut(scores, full, _kept(full, a=[0, 0, 1, 1], b=[0, 0, 0, 1])) == 4 / 8
    assert at_the_cut(scores, full, _kept(full, a=[0, 1, 1, 1], b=[0, 0, 1, 1])) == 0
    found = select(scores, full, 0.5, scope="layer")
    assert at_the_cut(scores, full, found) == 2 / 8


@pytest.mark.parametrize(
    "method", ["random", "magnitude", "snip", "obd", "obs", "kron-obd", "kron-obs", "lottery-ticket"]
)
def test_scores_without_ties_have_none_at_the_cut(cnn: nn.Module, method: str):
    x, y = samples(cnn)
    assert pv.prune(cnn, x, y, method=method, sparsity=0.4).report["at_the_cut"] == 0

"""Exact selection by rank."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pruneviz.errors import InvalidSetting, Unsuitable
from pruneviz.masks import Mask, Scores, apportion, connected, count, select


def _scores(**values: list[float]) -> tuple[Scores, Mask]:
    tensors = {name: torch.tensor(v, dtype=torch.float64) for name, v in values.items()}
    return Scores.of_weights(tensors), Mask({name: torch.ones_like(t, dtype=torch.bool) for name, t in tensors.items()})


@pytest.mark.parametrize("removed", range(10))
def test_exactly_k_leave_and_ties_go_by_position(removed: int):
    values = [3.0, 1.0, 1.0, 2.0, 1.0, 1.0, 0.0, 2.0, 1.0, 1.0]
    scores, mask = _scores(w=values)
    order = sorted(range(10), key=lambda i: (values[i], i))
    found = select(scores, mask, removed / 10)
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


def test_scores_that_are_not_finite_are_refused():
    with pytest.raises(Unsuitable, match="not all finite"):
        _scores(a=[1.0, float("nan")])


def test_a_path_through_surviving_weights_is_found_and_missed():
    model = nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 1))
    x = torch.zeros(1, 2)
    through_first = torch.tensor([[True, False], [False, False]])
    assert connected(model, Mask({"0.weight": through_first, "2.weight": torch.tensor([[True, False]])}), x)
    assert not connected(model, Mask({"0.weight": through_first, "2.weight": torch.tensor([[False, True]])}), x)

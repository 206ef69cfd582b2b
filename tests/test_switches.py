"""The table of SNIP's and GraSP's switches: its measures by hand, and its verdicts from the numbers."""

from __future__ import annotations

import pytest
import torch

from pruneviz.papers.switches import CONV, LENET, SETTINGS, agreement, chance, claims, measure, rank_correlation, table
from pruneviz.units.masks import Mask, Scores


def test_agreement_is_common_over_kept_by_either_in_what_both_prune():
    a = Mask({"w": torch.tensor([[True, True, False, False]]), "b": torch.tensor([True])})
    b = Mask({"w": torch.tensor([[True, False, True, False]])})
    assert agreement(a, b) == pytest.approx(1 / 3)
    assert agreement(a, a) == 1


def test_chance_is_the_mean_agreement_of_masks_shuffled_within_their_inputs():
    generator = torch.Generator().manual_seed(0)
    share = torch.linspace(0.05, 0.6, 20)
    a, b = (torch.rand(400, 20, generator=generator) < share for _ in range(2))
    found = []
    for _ in range(20):
        order = torch.rand(400, 20, generator=generator).argsort(0)
        found.append(agreement(Mask({"w": a.gather(0, order)}), Mask({"w": b})))
    expected = sum(found) / len(found)
    assert chance(Mask({"w": a}), Mask({"w": b})) == pytest.approx(expected, abs=0.005)  # 20 shuffles


def test_rank_correlation_gives_ties_their_mean_rank():
    one, two = (Scores.of_weights({"w": torch.tensor(v)}) for v in ([1.0, 2.0, 2.0, 4.0], [1.0, 3.0, 2.0, 4.0]))
    assert rank_correlation(one, one) == pytest.approx(1)
    assert rank_correlation(one, two) == pytest.approx(4.5 / (4.5 * 5) ** 0.5)


@pytest.fixture(scope="module")
def rows() -> list[dict]:
    return measure(lambda _: None, seeds=1)


def test_every_switch_is_measured_on_both_networks(rows):
    assert len(rows) == 2 * len(SETTINGS)
    assert {r["network"] for r in rows} == {LENET, CONV}
    assert all(0 <= r["low"] <= r["agreement"] <= r["high"] <= 1 for r in rows)
    assert [r["biases"] for r in rows if r["switch"] == "include_bias"] == [1, 1]
    assert len(table(rows).rows) == len(rows)


def test_what_is_exact_holds_at_any_seed(rows):
    exact = [r for r in rows if r["expected"].startswith("the same mask")]
    assert len(exact) == 5
    assert all(r["holds"] and r["agreement"] >= 0.999 for r in exact)
    for method in ("snip", "grasp"):
        (mode,) = (r for r in rows if (r["network"], r["method"], r["switch"]) == (CONV, method, "bn_mode"))
        assert mode["agreement"] < 0.6


def test_verdicts_come_from_the_numbers_and_stay_open_with_few_seeds(rows):
    assert {c.verdict for c in claims(rows)} == {"open"}
    enough = [{**r, "seeds": 5} for r in rows]
    assert "holds" in {c.verdict for c in claims(enough)}
    spoilt = [{**r, "holds": False} if r["switch"] == "split" else r for r in enough]
    assert {c.key: c.verdict for c in claims(spoilt)}["grasp-split"] == "does not hold"

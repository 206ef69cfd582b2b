"""What is recorded of masks: the same sampled weights in every run, layers in blocks, the first layer as images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import pruneviz as pv
from pruneviz.basics.events import Arrays
from pruneviz.records.arrays import Kept, Ranking
from pruneviz.run.probes.masked import SAMPLE, masked, ranked, sampled
from pruneviz.units.masks import Group, Mask, Scores, Slot
from pruneviz.units.weights import prunable

NETWORK = {"dataset": "digits", "model": "digits-cnn", "sparsities": (0.3,), "probes": ("masks",)}
SHORT = {"train": {"epochs": 1}, "tune": {"epochs": 0}}


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 40), nn.ReLU(), nn.Linear(40, 10))


@pytest.mark.parametrize("size", [1, 19_999, 20_000, 20_001, 50_200, 266_200, 20_029_888])
def test_sampled_weights_differ_and_lie_so_evenly_that_every_stretch_has_its_share(size):
    places = sampled(size)
    assert len(np.unique(places)) == len(places) == min(size, SAMPLE)
    assert places.min() >= 0
    assert places.max() < size
    share = len(places) / size
    for low, high in ((0, size // 3), (size // 7, size // 2), (size // 2, size)):
        inside = int(((places >= low) & (places < high)).sum())
        assert abs(inside - share * (high - low)) <= 12


def test_the_order_is_that_of_the_scores_and_ties_share_a_rank(net):
    mask = Mask.full(net, prunable(net))
    values = {name: torch.randint(0, 50, keep.shape).double() for name, keep in mask.items()}
    found = ranked(net, Scores.of_weights(values), mask, torch.zeros(1, 1, 8, 8))
    flat = torch.cat([value.flatten() for value in values.values()]).numpy()
    assert found.layers == ("1", "3")
    assert found.counts.tolist() == [2560, 400]
    assert (found.order == flat - flat.min() + 1).all()  # all 50 values occur
    assert torch.equal(torch.from_numpy(found.weights), net[1].weight[:24].detach().view(24, 1, 8, 8).half())


def test_a_weight_has_the_rank_of_its_filter_and_none_where_none_is_scored(net):
    mask = Mask.full(net, prunable(net))
    group = Group("1", (Slot("1.weight", (0,)),), 40)
    found = ranked(net, Scores({group: torch.arange(40.0).flip(0)}), mask, torch.zeros(1, 1, 8, 8))
    assert (found.order[:2560].reshape(40, 64) == np.arange(40, 0, -1)[:, None]).all()
    assert not found.order[2560:].any()


def test_bits_densities_and_pixels_are_the_mask_s(net):
    keep = {name: torch.rand(p.shape) < 0.3 for name, p in net.named_parameters() if name in prunable(net)}
    keep["1.weight"][:, 5] = False
    found = masked(net, Mask(keep), torch.zeros(1, 1, 8, 8))
    bits = torch.cat([k.flatten() for k in keep.values()]).numpy()
    assert (np.unpackbits(found.kept, count=len(bits)) == bits).all()
    assert found.shape[0].tolist() == [40, 64]
    assert found.density[0].shape == (32, 32)
    rows, columns = np.array_split(np.arange(40), 32), np.array_split(np.arange(64), 32)
    whole = keep["1.weight"].double().numpy()
    by_hand = [[255 * whole[np.ix_(r, c)].mean() for c in columns] for r in rows]
    assert np.abs(found.density[0] - by_hand).max() <= 0.5 + 1e-9
    assert np.abs(found.pixels.ravel() - 255 * whole.mean(0)).max() <= 0.5 + 1e-9
    assert found.pixels[0, 0, 5] == 0


@pytest.mark.parametrize("method", ["snip", "l1-filters", "eigendamage", "lottery-ticket"])
def test_a_run_records_the_mask_that_it_ends_with(method):
    config = pv.RunConfig(method=method, **NETWORK, **SHORT)
    events = list(pv.execute([config]))
    arrays = {e.name: (e.arrays, e.meta["layers"].split("\n")) for e in events if isinstance(e, Arrays)}
    weights = next(e.arrays for e in reversed(events) if type(e).__name__ == "Weights")
    found, first_score = Kept.read(*arrays[Kept.name(0.3)]), Ranking.read(*arrays[Ranking.name()])
    if method == "eigendamage":  # of the core, in the basis that was cut
        kept = np.unpackbits(weights["mask/2.core.weight"], count=int(found.shape[1].prod()))
        assert found.kept is None
        assert first_score.order is None
        assert found.density[1].mean() / 255 == pytest.approx(kept.mean(), abs=0.02)
        return
    names = [name for name in weights if name.startswith("mask/")]
    sizes = [weights[name.replace("mask/", "weight/")].size for name in names]
    bits = np.concatenate([np.unpackbits(weights[n], count=size) for n, size in zip(names, sizes, strict=True)])
    assert (np.unpackbits(found.kept, count=SAMPLE) == bits[sampled(sum(sizes))]).all()
    assert first_score.counts.sum() == SAMPLE
    first = weights["weight/0.weight"]
    assert np.allclose(found.weights, first[:24], atol=1e-3)
    kept = np.unpackbits(weights["mask/0.weight"], count=first.size).astype(bool).reshape(first.shape)[:24]
    assert not found.weights[~kept].any()

"""What every registered data set promises; a new file in datasets/ is held to it by being there."""

from __future__ import annotations

import re
from dataclasses import fields

import pytest
import torch

import pruneviz as pv
from pruneviz.datasets.base import Splits

HERE = [
    pytest.param(
        key, marks=pytest.mark.skipif(not card.present, reason=f"{key} is not on this machine: see README, Data")
    )
    for key, card in pv.DATASETS.items()
    if card.present or not card.megabytes > 100  # CIFAR: 170 MB, where somebody put them
]


@pytest.mark.parametrize("key", pv.DATASETS)
def test_a_card_says_what_it_takes_to_choose_it(key: str):
    card = pv.DATASETS[key]
    assert card.key == key
    assert re.fullmatch(r"[a-z0-9][a-z0-9.-]{0,40}", key)
    assert all((card.title, card.idea, card.licence, card.source))
    assert len(card.shape) in (1, 3)
    assert len(card.classes) == len(set(card.classes)) >= 2
    assert card.epochs >= 1
    assert card.tune_epochs >= 0
    pv.MODELS[card.model].check(card.shape, len(card.classes))  # its usual network takes it
    assert re.fullmatch(r"[0-9a-f]{64}", card.digest)
    assert all(re.fullmatch(r"[0-9a-f]{64}", file.sha256) for file in card.files)


def test_no_two_data_sets_share_a_title_or_a_digest():
    cards = list(pv.DATASETS.values())
    assert len({card.title for card in cards}) == len({card.digest for card in cards}) == len(cards)


@pytest.mark.parametrize("key", HERE)
def test_what_is_loaded_is_what_the_card_says(key: str):
    card, data = pv.DATASETS[key], pv.load(key)
    assert {f.name for f in fields(Splits)} == {"train", "val", "test", "classes", "shape"}
    assert (data.shape, data.classes) == (card.shape, card.classes)
    for (x, y), size in zip((data.train, data.val, data.test), card.sizes, strict=True):
        assert tuple(x.shape) == (size, *card.shape)
        assert (x.dtype, y.dtype, tuple(y.shape)) == (torch.float32, torch.int64, (size,))
        assert bool(torch.isfinite(x).all())
        assert 0 <= int(y.min()) <= int(y.max()) < len(card.classes)
    assert sorted(set(data.train[1].tolist())) == list(range(len(card.classes)))


@pytest.mark.parametrize("key", HERE)
def test_loading_twice_gives_the_same_and_leaves_global_generators_alone(key: str):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first = pv.load(key)
    again = pv.load(key)
    assert torch.equal(torch.get_rng_state(), before)
    for name in ("train", "val", "test"):
        for one, two in zip(getattr(first, name), getattr(again, name), strict=True):
            assert torch.equal(one, two)

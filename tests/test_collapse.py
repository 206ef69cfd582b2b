"""Collapse: no path from input to output through surviving weights, and the layer at which the last ones end."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import pruneviz as pv
from pruneviz.events import Metric, Progress
from pruneviz.initialisation import initialise_
from pruneviz.masks import Mask, broken_at, connected, prunable

VGG_16 = (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512)


def thin_vgg(seed: int, divisor: int = 8) -> nn.Sequential:
    """VGG-16 with an eighth of the filters (8 to 64), batch normalisation and one dense layer, for 3 x 32 x 32 images."""
    layers, channels = [], 3
    for width in VGG_16:
        if isinstance(width, str):
            layers.append(nn.MaxPool2d(2))
        else:
            out = width // divisor
            layers += [nn.Conv2d(channels, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU()]
            channels = out
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))
    return initialise_(model, torch.Generator().manual_seed(seed))


def images(seed: int, n: int = 50) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(100 + seed)
    return torch.randn(n, 3, 32, 32, generator=generator), torch.arange(n) % 10


def ends(model: nn.Sequential, mask: Mask, shape: tuple[int, int, int]) -> str | None:
    """The first layer of a chain that no path leaves: booleans, channel by channel and pixel by pixel, tap by tap."""
    alive = np.ones(shape, bool)
    for name, layer in model.named_children():
        if isinstance(layer, nn.Conv2d):
            keep = mask[f"{name}.weight"].numpy()
            padded = np.pad(alive, ((0, 0), (1, 1), (1, 1)))
            rows, columns = alive.shape[1:]
            alive = np.zeros((len(keep), rows, columns), bool)
            for o, i, r, c in np.argwhere(keep):
                alive[o] |= padded[i, r : r + rows, c : c + columns]
        elif isinstance(layer, nn.MaxPool2d):
            c, rows, columns = alive.shape
            alive = alive.reshape(c, rows // 2, 2, columns // 2, 2).any((2, 4))
        elif isinstance(layer, nn.AdaptiveAvgPool2d):
            alive = alive.any((1, 2), keepdims=True)
        elif isinstance(layer, nn.Flatten):
            alive = alive.flatten()
        elif isinstance(layer, nn.Linear):
            alive = (mask[f"{name}.weight"].numpy() & alive).any(1)
        if not alive.any():
            return name
    return None


def mask_of(model: nn.Module, **gone: object) -> Mask:
    """Everything kept but the entries given: layer name (``_`` for a dot) -> index of weights that are gone."""
    kept = {name: torch.ones_like(dict(model.named_parameters())[name], dtype=torch.bool) for name in prunable(model)}
    for layer, index in gone.items():
        kept[f"{layer.removeprefix('_').replace('_', '.')}.weight"][index] = False
    return Mask(kept)


# thin networks: SNIP collapses where GraSP does not


@pytest.mark.parametrize("seed", range(4))
def test_snip_cuts_a_thin_vgg_in_two_at_98_percent_and_the_layer_is_named(seed: int):
    model = thin_vgg(seed)
    found = pv.prune(model, *images(seed), method="snip", sparsity=0.98)
    assert found.report["connected"] is False
    assert found.report["broken_at"] == ends(model, found.mask, (3, 32, 32)) is not None


def test_no_layer_need_be_empty_where_no_path_is_left():
    model = thin_vgg(1)
    found = pv.prune(model, *images(1), method="snip", sparsity=0.98)
    assert found.report["empty_layers"] == ()
    assert max(found.report["per_layer"].values()) < 1
    assert found.report["connected"] is False
    assert found.report["broken_at"] == ends(model, found.mask, (3, 32, 32))


def test_an_emptied_layer_is_named_too_and_paths_may_end_before_it():
    found = pv.prune(thin_vgg(1), *images(1), method="snip", sparsity=0.99)
    assert found.report["broken_at"] == ends(thin_vgg(1), found.mask, (3, 32, 32))
    assert (
        found.report["empty_layers"]
        == found.mask.empty_layers
        == tuple(n for n, k in found.mask.items() if not k.any())
    )
    assert found.mask.empty_layers
    assert f"{found.report['broken_at']}.weight" not in found.mask.empty_layers


@pytest.mark.parametrize("seed", [0, 1])
def test_grasp_leaves_paths_in_the_same_network_at_98_percent(seed: int):
    model = thin_vgg(seed)
    x, y = images(seed)
    found = pv.prune(model, x, y, method="grasp", sparsity=0.98)
    assert found.report["connected"] is True
    assert found.report["broken_at"] is None
    assert ends(model, found.mask, (3, 32, 32)) is None


@pytest.mark.parametrize("seed", range(40))
def test_random_masks_agree_with_the_walk_over_booleans(seed: int):
    """Around the sparsity at which a small network falls apart: both answers occur (see the next test)."""
    model, mask = _random(seed)
    assert broken_at(model, mask, torch.zeros(1, 2, 8, 8)) == ends(model, mask, (2, 8, 8))
    assert connected(model, mask, torch.zeros(1, 2, 8, 8)) == (ends(model, mask, (2, 8, 8)) is None)


def test_the_random_masks_end_at_many_layers():
    assert len({ends(*_random(seed), (2, 8, 8)) for seed in range(40)}) >= 5


def _random(seed: int) -> tuple[nn.Sequential, Mask]:
    """Down to one pixel, where only the middle tap of a 3 x 3 kernel meets anything but padding."""
    generator = torch.Generator().manual_seed(seed)
    layers, channels = [], 2
    for width in (4, 4, 5, 5):
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2)]
        channels = width
    model = nn.Sequential(*layers[:-1], nn.Flatten(), nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 2), nn.Sigmoid())
    chance = torch.rand(6, generator=generator).square().tolist()  # of a weight to stay, layer by layer
    params = dict(model.named_parameters())
    kept = {
        name: torch.rand(params[name].shape, generator=generator) < share
        for name, share in zip(prunable(model), chance, strict=True)
    }
    return model, Mask(kept)


# what passes paths on


def test_a_hidden_layer_that_lost_everything_is_where_paths_end():
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 2))
    mask = mask_of(model, _2=...)
    assert mask.empty_layers == ("2.weight",)
    assert broken_at(model, mask, torch.zeros(1, 4)) == "2"
    assert not connected(model, mask, torch.zeros(1, 4))


@pytest.mark.parametrize(
    "last",
    [nn.Sigmoid(), nn.Softmax(1), nn.LogSoftmax(1), nn.Tanh(), nn.LeakyReLU(-0.1), nn.Dropout(0.9), nn.Softplus()],
)
def test_the_activation_at_the_end_decides_nothing(last: nn.Module):
    model = nn.Sequential(nn.Linear(2, 2), nn.Sigmoid(), nn.Linear(2, 2), last)
    assert connected(model, mask_of(model, _0=([0, 1], [1, 0])), torch.zeros(1, 2))
    assert broken_at(model, mask_of(model, _0=(0,), _2=(slice(None), 1)), torch.zeros(1, 2)) == "2"


@pytest.mark.parametrize("norm", [nn.BatchNorm1d(3), nn.LayerNorm(3), nn.GroupNorm(1, 3), nn.RMSNorm(3)])
def test_normalisation_passes_paths_on_and_makes_none(norm: nn.Module):
    model = nn.Sequential(nn.Linear(3, 3), norm, nn.ReLU(), nn.Linear(3, 2))
    state = {name: value.clone() for name, value in model.state_dict().items()}
    x = torch.zeros(1, 3)
    assert connected(model, mask_of(model, _0=([0, 1], slice(None))), x)
    assert broken_at(model, mask_of(model, _0=([0, 1], slice(None)), _3=(slice(None), 2)), x) == "3"
    assert model.training
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_weights_biases_and_hooks_do_not_matter():
    """Only the mask does: zero or huge weights, biases, float64 with float32 samples."""
    for value in (0.0, -1e30):
        model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 2)).double()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(value)
        assert connected(model, mask_of(model), torch.zeros(1, 3))
        assert broken_at(model, mask_of(model, _2=...), torch.full((1, 3), float("nan"))) == "2"
        assert all((parameter == value).all() for parameter in model.parameters())
        assert not model[0]._forward_hooks
        assert not model[0]._forward_pre_hooks


class _Residual(nn.Module):
    """Two blocks y = x + branch(x), or with a shortcut convolution y = shortcut(x) + branch(x); functional activations."""

    def __init__(self, shortcut: bool = False):
        super().__init__()
        self.stem = nn.Conv2d(1, 3, 3, padding=1)
        self.one, self.two = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
        self.shortcut = nn.Conv2d(3, 3, 1) if shortcut else nn.Identity()
        self.norm = nn.BatchNorm2d(3)
        self.head = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        x = self.shortcut(x) + self.norm(self.two(torch.sigmoid(self.one(x))))
        return self.head(x.relu().mean((2, 3))).log_softmax(1)


def test_a_dead_branch_is_no_end_where_the_sum_goes_on():
    model, x = _Residual(), torch.zeros(1, 1, 5, 5)
    assert broken_at(model, mask_of(model, one=...), x) is None
    assert broken_at(model, mask_of(model, two=...), x) is None
    assert broken_at(model, mask_of(model, stem=...), x) == "stem"
    assert broken_at(model, mask_of(model, one=..., head=...), x) == "head"


def test_where_both_branches_are_dead_the_last_of_them_is_the_end():
    model, x = _Residual(shortcut=True), torch.zeros(1, 1, 5, 5)
    assert (
        broken_at(model, mask_of(model, one=..., shortcut=...), x) == "one"
    )  # summed from the left: the shortcut first
    assert broken_at(model, mask_of(model, one=...), x) is None
    assert broken_at(model, mask_of(model, shortcut=...), x) is None


def test_paths_may_cross_a_branch_on_other_channels():
    """The branch carries channel 0 to channel 2, the identity the others, and the head reads channel 2 alone."""
    model, x = _Residual(), torch.zeros(1, 1, 5, 5)
    only = {"stem": ([1, 2],), "head": (slice(None), [0, 1])}
    assert broken_at(model, mask_of(model, **only), x) is None
    assert broken_at(model, mask_of(model, two=([2],), **only), x) == "head"


# what a run says of it


def test_a_run_says_at_which_layer_paths_end():
    config = pv.RunConfig(
        method="random", sparsities=(0.9999,), train={"epochs": 1}, tune={"epochs": 1}, probes=(), seed=0
    )
    events = list(pv.execute([config], device="cpu"))
    warned = [e.message for e in events if isinstance(e, Progress) and e.warning]
    assert any("no path is left from input to output: they end at layer '" in text for text in warned)
    assert [e.value for e in events if isinstance(e, Metric) and e.metric == "connected"] == [0.0]

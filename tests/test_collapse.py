"""Collapse: no path from input to output through surviving weights, and the layer at which the last ones end."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import prune

import pruneviz as pv
from pruneviz.basics.events import Metric, Progress
from pruneviz.door.samples import Inputs
from pruneviz.models._torch.initialisation import initialise_
from pruneviz.units.masks import Mask
from pruneviz.units.paths import broken_at, connected
from pruneviz.units.weights import prunable

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


def depends(model: nn.Module, mask: Mask, shape: tuple[int, ...], draws: int = 40) -> bool:
    """Whether outputs of the plain network differ between two inputs, for any of many random weights where the mask keeps them."""
    torch.manual_seed(7)
    model = deepcopy(model).double().eval()
    params, found = dict(model.named_parameters()), False
    for _ in range(draws):
        with torch.no_grad():
            for name, parameter in params.items():
                parameter.copy_(torch.randn_like(parameter) * mask.get(name, 1))
            a, b = (model(torch.randn(shape, dtype=torch.float64)) for _ in range(2))
        found |= bool((a - b).abs().max() > 1e-9)
    return found


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
def test_normalisation_passes_paths_on_and_one_over_channels_mixes_them(norm: nn.Module):
    """Channel 2 alone depends on the input, and the head reads the others: through their common mean or size it still does."""
    model = nn.Sequential(nn.Linear(3, 3), norm, nn.ReLU(), nn.Linear(3, 2))
    state = {name: value.clone() for name, value in model.state_dict().items()}
    x = torch.zeros(1, 3)
    assert connected(model, mask_of(model, _0=([0, 1], slice(None))), x)
    assert broken_at(model, mask_of(model, _0=...), x) == "0"
    beside = mask_of(model, _0=([0, 1], slice(None)), _3=(slice(None), 2))
    assert broken_at(model, beside, x) == ("3" if isinstance(norm, nn.BatchNorm1d) else None)
    assert connected(model, beside, x) == depends(model, beside, (4, 3))
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


# whatever a network computes: against the plain network with many random weights


class _Attention(nn.Module):
    """Softmax attention by hand, and a mean over positions."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.o = nn.Linear(4, 6), nn.Linear(4, 6), nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.o((torch.softmax(self.q(x) @ self.k(x).mT / 6**0.5, -1) @ self.v(x)).mean(1))


class _Between(nn.Module):
    """A layer, something in between or before or after, and a layer."""

    def __init__(self, between=torch.relu, *, before=lambda x: x, after=lambda z: z, width: int = 5):
        super().__init__()
        self.before, self.between, self.after = before, between, after
        self.a, self.b = nn.Linear(4, 5), nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.b(self.between(self.a(self.before(x)))))


class _Placed(nn.Module):
    """A position embedding is added; patches are embedded by ``a``."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.head = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.places = nn.Parameter(torch.randn(5, 6))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.b(self.a(x) + self.places)).mean(1))


class _Gate(nn.Module):
    """What ``a`` gives, times a gate that looks at it; without a bias a dead gate is a half."""

    def __init__(self, gate=torch.sigmoid):
        super().__init__()
        self.gate = gate
        self.a, self.g, self.b = nn.Linear(4, 5), nn.Linear(5, 5, bias=False), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.a(x))
        return self.b(h * self.gate(self.g(h)))


class _Twice(nn.Module):
    """The same layer several times over, by keyword."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 5), nn.Linear(5, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(input=x)
        for _ in range(3):
            h = torch.tanh(self.b(input=h))
        return self.c(input=h)


class _Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase]):
        super().__init__()
        self.a, self.rnn, self.c = nn.Linear(4, 5), kind(5, 6, batch_first=True), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.rnn(self.a(x))[0][:, -1])


class _Functional(nn.Module):
    """Weights used by function: a parameter of the network's own, and a layer's that is never called."""

    def __init__(self):
        super().__init__()
        self.w, self.a, self.b = nn.Parameter(torch.randn(5, 4)), nn.Linear(5, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(torch.relu(F.linear(torch.relu(F.linear(x, self.w)), self.a.weight)))


class _Normed(nn.Module):
    """weight_norm by parametrization: the weight is made of two tensors."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.utils.parametrizations.weight_norm(nn.Linear(4, 5)), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(torch.relu(self.a(x)))


def _encoder() -> nn.Module:
    return nn.Sequential(
        nn.Linear(4, 4), nn.TransformerEncoderLayer(4, 2, 6, batch_first=True), nn.Flatten(), nn.Linear(20, 3)
    )


def _lost(model: nn.Module, *names: str, kept: object = None) -> Mask:
    """Every parameter of two dimensions is in the mask; the ones named are gone whole, or but for an index."""
    params = dict(model.named_parameters())
    found = {
        name: torch.ones_like(p, dtype=torch.bool) for name, p in params.items() if p.dim() > 1 and name != "places"
    }
    for name in names:
        found[name][:] = False
        if kept is not None:
            found[name][kept] = True
    return Mask(found)


def _rezero(z: Tensor) -> Tensor:
    return z - z.mean(1, keepdim=True)


A, AB, ABC = ("a",), ("a", "b"), ("a", "b", "c")
FORMS: dict[str, tuple] = {  # network, shape of its inputs, weights that end all paths when gone, weights that do not
    "attention": (_Attention, (1, 5, 4), ("v", "o"), ("q", "k", "q k")),
    "log of softmax": (lambda: _Between(after=lambda z: torch.log(torch.softmax(z, 1))), (1, 4), AB, ()),
    "log of sigmoid": (lambda: _Between(after=lambda z: torch.sigmoid(z).log()), (1, 4), AB, ()),
    "less the largest": (lambda: _Between(after=lambda z: z - z.amax(1, keepdim=True)), (1, 4), AB, ()),
    "normalised inside": (lambda: _Between(before=lambda x: (x - 127.5) / 128), (1, 4), AB, ()),
    "less the mean": (lambda: _Between(lambda z: z - z.mean(1, keepdim=True)), (1, 4), AB, ()),
    "relu by clamp": (lambda: _Between(lambda z: z.clamp(min=0)), (1, 4), AB, ()),
    "relu by maximum": (lambda: _Between(lambda z: torch.maximum(z, torch.zeros(()))), (1, 4), AB, ()),
    "silu by hand": (lambda: _Between(lambda z: z * torch.sigmoid(z)), (1, 4), AB, ()),
    "glu": (lambda: _Between(lambda z: F.glu(z[:, :4]), width=2), (1, 4), AB, ()),
    "place": (_Placed, (1, 5, 4), ("a", "b", "head"), ()),
    "gate": (_Gate, (1, 4), AB, ("g",)),
    "gate that is 0": (lambda: _Gate(torch.tanh), (1, 4), ("g",), ()),
    "keyword": (_Twice, (1, 4), ABC, ()),
    "lstm": (lambda: _Recurrent(nn.LSTM), (1, 5, 4), ("a", "rnn.weight_ih_l0", "c"), ("rnn.weight_hh_l0",)),
    "gru": (lambda: _Recurrent(nn.GRU), (1, 5, 4), ("a", "rnn.weight_ih_l0", "c"), ("rnn.weight_hh_l0",)),
    "function": (_Functional, (1, 4), AB, ()),
    "weight norm": (_Normed, (1, 4), ("b",), ()),
    "encoder": (_encoder, (1, 5, 4), ("0", "3"), ("1.self_attn.in_proj_weight", "1.linear1", "1.linear2")),
}


@pytest.mark.parametrize("name", FORMS)
def test_paths_are_left_exactly_where_the_plain_network_s_outputs_depend_on_its_inputs(name: str):
    make, shape, deadly, harmless = FORMS[name]
    torch.manual_seed(0)
    model = make()
    params = dict(model.named_parameters())
    for gone in ("", *deadly, *harmless):
        mask = _lost(model, *(n if n in params else f"{n}.weight" for n in gone.split()))
        assert depends(model, mask, shape) == (gone not in deadly), gone
        end = broken_at(model, mask, torch.zeros(shape))
        assert end == (gone.partition(".weight")[0] if gone in deadly else None), gone


def test_attention_of_torch_s_own_ends_where_its_values_do():
    """Rows of the in-projection: queries, keys, values."""
    torch.manual_seed(0)
    model = nn.MultiheadAttention(4, 2, batch_first=True)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.attention, self.c = nn.Linear(4, 4), model, nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = self.a(x)
            return self.c(self.attention(x, x, x)[0].mean(1))

    net, x = Net(), torch.zeros(1, 5, 4)
    for rows, dead in ((slice(0, 4), False), (slice(4, 8), False), (slice(8, 12), True)):
        kept = torch.ones(12, dtype=torch.bool)
        kept[rows] = False
        mask = _lost(net, "attention.in_proj_weight", kept=kept)
        assert broken_at(net, mask, x) == ("attention" if dead else None)
    assert broken_at(net, _lost(net, "attention.out_proj.weight"), x) == "attention.out_proj"


class _Tokens(nn.Module):
    """Token ids and an attention mask, by keyword; half precision inside, a tuple comes out."""

    def __init__(self, half: bool = False):
        super().__init__()
        self.embed, self.places = nn.Embedding(11, 6), nn.Embedding(5, 6)
        self.a, self.norm, self.head = nn.Linear(6, 6), nn.LayerNorm(6), nn.Linear(6, 3)
        if half:
            self.to(torch.bfloat16).norm.float()

    def forward(self, ids: Tensor, attention: Tensor) -> dict[str, Tensor]:
        h = self.embed(ids) + self.places(torch.arange(ids.shape[1]))
        h = torch.relu(self.a(h))
        h = self.norm(h.float()).to(self.a.weight.dtype)
        weight = attention[..., None].to(h.dtype)
        return {"logits": self.head((h * weight).sum(1) / weight.sum(1)), "hidden": h}


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("ids", [[3, 10, 7, 7, 0], [10, 10, 10, 10, 10]])
def test_token_ids_become_other_valid_ones(half: bool, ids: list[int]):
    model = _Tokens(half)
    sample = Inputs({"ids": torch.tensor([ids]), "attention": torch.ones(1, 5, dtype=torch.long)})
    linear = {
        name: torch.ones(p.shape, dtype=torch.bool) for name, p in model.named_parameters() if name[:2] in ("a.", "he")
    }
    whole = {name: keep for name, keep in linear.items() if "weight" in name}
    if len(set(ids)) > 1:
        assert broken_at(model, Mask(whole), sample) is None
    dead = {name: keep & (name != "a.weight") for name, keep in whole.items()}
    assert broken_at(model, Mask(dead), sample) == "a"


def test_images_in_bytes_are_other_bytes():
    model = _Between(before=lambda x: x.float() / 255)
    sample = torch.randint(0, 256, (1, 4), dtype=torch.uint8)
    assert broken_at(model, _lost(model), sample) is None
    assert broken_at(model, _lost(model, "a.weight"), sample) == "a"


def test_one_path_through_forty_layers_is_seen_and_one_weight_less_is_named():
    """Hand-written activations and squares on the way; a single weight in each layer, each layer's next to the one before."""
    torch.manual_seed(3)
    acts = [nn.ReLU(), nn.Tanh(), nn.GELU(), nn.LeakyReLU()]
    model = nn.Sequential(*(part for i in range(40) for part in (nn.Linear(30, 30), acts[i % 4])), nn.Linear(30, 2))
    names = [name for name, _ in model.named_parameters() if name.endswith("weight")]
    at = torch.randint(30, (41,)).tolist()
    kept = {name: torch.zeros_like(dict(model.named_parameters())[name], dtype=torch.bool) for name in names}
    for i, name in enumerate(names):
        kept[name][at[i + 1] if i < 40 else 1, at[i]] = True
    assert broken_at(model, Mask(kept), torch.zeros(1, 30)) is None
    for lost in (0, 17, 40):
        cut = {name: keep & (name != names[lost]) for name, keep in kept.items()}
        assert broken_at(model, Mask(cut), torch.zeros(1, 30)) == names[lost].removesuffix(".weight")


def test_squares_on_a_long_way_let_nothing_fade():
    class Squares(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(6, 6) for _ in range(30))

        def forward(self, x: Tensor) -> Tensor:
            for layer in self.layers:
                h = layer(x)
                x = h * torch.nn.functional.hardtanh(h) * 100
            return x

    model, x = Squares(), torch.zeros(1, 6)
    assert broken_at(model, _lost(model), x) is None
    assert broken_at(model, _lost(model, "layers.28.weight"), x) == "layers.28"


def test_scales_that_start_at_zero_are_alive_and_zeros_of_an_unmasked_sparse_tensor_are_not():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.scale = nn.Linear(4, 5), nn.Linear(5, 3), nn.Parameter(torch.zeros(5))

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.scale * self.a(x))

    model, x = Scaled(), torch.zeros(1, 4)
    assert broken_at(model, _lost(model), x) is None
    with torch.no_grad():
        model.scale[2] = 1.0
    assert broken_at(model, mask_of(model, a=(2,)), x) == "b"


def test_weights_of_torch_s_own_pruning_are_followed():
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
    prune.identity(model[0], "weight")
    kept = {name: torch.ones_like(p, dtype=torch.bool) for name, p in model.named_parameters() if p.dim() > 1}
    assert set(kept) == {"0.weight_orig", "2.weight"}
    assert broken_at(model, Mask(kept), torch.zeros(1, 4)) is None
    kept["0.weight_orig"][:] = False
    assert broken_at(model, Mask(kept), torch.zeros(1, 4)) == "0"


def test_a_parametrized_layer_is_named_by_itself():
    model = _Normed()
    name = "a.parametrizations.weight.original0"  # lengths: without them nothing is left of the weight
    mask = Mask({name: torch.zeros(5, 1, dtype=torch.bool), "b.weight": torch.ones(3, 5, dtype=torch.bool)})
    assert broken_at(model, mask, torch.zeros(1, 4)) == "a"


def test_noise_in_the_network_is_no_path_and_the_generators_are_left_alone():
    model = _Between(lambda z: torch.relu(z) + torch.randn_like(z))
    state = torch.get_rng_state()
    assert broken_at(model, _lost(model, "a.weight"), torch.zeros(1, 4)) == "a"
    assert broken_at(model, _lost(model), torch.zeros(1, 4)) is None
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.backends.mha.get_fastpath_enabled()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_a_weight_that_two_layers_share_has_one_mask():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    model[2].weight = model[0].weight
    keep = torch.ones(4, 4, dtype=torch.bool)
    for name in ("0.weight", "2.weight"):
        mask = Mask({name: keep & False, "4.weight": torch.ones(2, 4, dtype=torch.bool)})
        assert broken_at(model, mask, torch.zeros(1, 4)) == "0"
        assert connected(model, Mask({name: keep}), torch.zeros(1, 4))


# what a run says of it


def test_a_run_says_at_which_layer_paths_end():
    config = pv.RunConfig(
        method="random", sparsities=(0.9999,), train={"epochs": 1}, tune={"epochs": 1}, probes=(), seed=0
    )
    events = list(pv.execute([config], device="cpu"))
    warned = [e.message for e in events if isinstance(e, Progress) and e.warning]
    assert any("no path is left from input to output: they end at layer '" in text for text in warned)
    assert [e.value for e in events if isinstance(e, Metric) and e.metric == "connected"] == [0.0]

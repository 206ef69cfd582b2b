"""Which channel is read where, in networks that sum, concatenate, shuffle, gate, flatten in other orders, or count by hand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import pruneviz as pv
from pruneviz.basics.errors import Unsuitable
from pruneviz.door.exact import drawn
from pruneviz.door.samples import Inputs, Samples, changed, forward
from pruneviz.units.channels import trace
from pruneviz.units.compact import smaller
from pruneviz.units.filters import Filters


def conv(inputs: int, outputs: int, kernel: int = 3, **options) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, **options)


class Net(nn.Module):
    """A stem, something in between, and a head of 3 classes on 2 x 8 x 8 images."""

    def __init__(self, **layers: nn.Module):
        super().__init__()
        torch.manual_seed(0)
        for name, layer in layers.items():
            setattr(self, name, layer)
        self.double()


class Projected(Net):
    """A residual sum whose shortcut is a convolution: the summed channels have two writers."""

    def __init__(self):
        super().__init__(stem=conv(2, 4), inner=conv(4, 6), outer=conv(6, 5), short=conv(4, 5, 1), head=nn.Linear(5, 3))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        return self.head(F.relu(self.outer(F.relu(self.inner(x))) + self.short(x)).mean((2, 3)))


class Padded(Net):
    """A shortcut without parameters: zeros beside the channels that come along."""

    def __init__(self):
        super().__init__(stem=conv(2, 4), inner=conv(4, 6), outer=conv(6, 8), head=nn.Linear(8, 3))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        return self.head((self.outer(F.relu(self.inner(x))) + F.pad(x, (0, 0, 0, 0, 2, 2))).mean((2, 3)))


class Concatenated(Net):
    def __init__(self):
        super().__init__(stem=conv(2, 4), branch=conv(4, 5), norm=nn.BatchNorm2d(9), head=nn.Linear(9, 3))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        return self.head(F.relu(self.norm(torch.cat([x, self.branch(x)], 1))).mean((2, 3)))


class ChannelsLast(Net):
    """Flattened with channels innermost: the head reads channel c at c, c + 4, c + 8, …"""

    def __init__(self):
        super().__init__(stem=conv(2, 4), head=nn.Linear(4 * 64, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.stem(x)).permute(0, 2, 3, 1).flatten(1))


class Shuffled(Net):
    """A channel shuffle: with fewer channels the same code would mix others."""

    def __init__(self):
        super().__init__(stem=conv(2, 6), mix=conv(6, 4), head=nn.Linear(4, 3))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = x.view(len(x), 2, -1, *x.shape[2:]).transpose(1, 2).flatten(1, 2)
        return self.head(self.mix(x).mean((2, 3)))


class Gated(Net):
    """Squeeze and excitation: a channel and its gate leave together, so they stay."""

    def __init__(self):
        super().__init__(stem=conv(2, 4), gate=nn.Linear(4, 4), out=conv(4, 5), head=nn.Linear(5, 3))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = x * torch.sigmoid(self.gate(x.mean((2, 3))))[:, :, None, None]
        return self.head(F.relu(self.out(x)).mean((2, 3)))


class Normalised(Net):
    """Group normalisation looks at several channels at once."""

    def __init__(self):
        super().__init__(stem=conv(2, 4), norm=nn.GroupNorm(2, 4), out=conv(4, 5), head=nn.Linear(5, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.out(self.norm(self.stem(x)))).mean((2, 3)))


class Sliced(Net):
    """The first two channels go one way, by number."""

    def __init__(self):
        super().__init__(stem=conv(2, 4), out=conv(2, 5), head=nn.Linear(5, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.out(self.stem(x)[:, :2])).mean((2, 3)))


class Depthwise(Net):
    def __init__(self):
        super().__init__(stem=conv(2, 4), deep=conv(4, 4, groups=4), out=conv(4, 5), head=nn.Linear(5, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.out(self.deep(F.relu(self.stem(x))))).mean((2, 3)))


NETS = {
    Projected: {"stem": 4, "inner": 6, "outer": 0, "short": 0, "head": 0},
    Padded: {"stem": 0, "inner": 6, "outer": 0, "head": 0},
    Concatenated: {"stem": 4, "branch": 5, "head": 0},
    ChannelsLast: {"stem": 4, "head": 0},
    Shuffled: {"stem": 0, "mix": 4, "head": 0},
    Gated: {"stem": 0, "gate": 0, "out": 5, "head": 0},
    Normalised: {"stem": 0, "out": 5, "head": 0},
    Sliced: {"stem": 0, "out": 5, "head": 0},
    Depthwise: {"stem": 0, "deep": 0, "out": 5, "head": 0},
}
X = torch.randn(1, 2, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("net", NETS)
def test_channels_that_can_leave_are_those_that_one_layer_writes_and_all_readers_can_do_without(net: type[Net]):
    found = trace(net(), X)
    assert {name: int(found.removable(name).sum()) for name in found.writes} == NETS[net]


@pytest.mark.parametrize("net", NETS)
def test_removing_what_can_leave_changes_nothing_against_the_masked_network(net: type[Net]):
    """Each network is masked, made smaller by the trace's own numbers, and both are run: an error in the trace would show."""
    model = net()
    layout = Filters(model, X)
    generator = torch.Generator().manual_seed(3)
    units = {}
    for group in layout.groups:
        units[group] = (torch.arange(group.size) % 3 == 1) | ~layout.may_leave(group)
    mask = layout.mask(units)
    mask.apply_(model)
    small, _ = smaller(model, X)
    x = torch.randn(5, 2, 8, 8, dtype=torch.float64, generator=generator)
    torch.testing.assert_close(small.eval()(x), model.eval()(x), rtol=0, atol=1e-12)
    left = sum(m.weight.numel() for m in small.modules() if isinstance(m, nn.Linear | nn.Conv2d))
    assert left == layout.left(units) == mask.size - mask.removed
    assert left < layout.size


def test_a_channel_knows_where_a_flatten_puts_it():
    found = trace(ChannelsLast(), X)
    assert found.reads["head"].tolist() == found.writes["stem"].tolist() * 64
    plain = nn.Sequential(conv(2, 4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64, 3)).double()
    found = trace(plain, X)
    assert found.reads["4"].tolist() == [c for c in found.writes["0"].tolist() for _ in range(16)]
    assert found.reads["0"].tolist() == [0, 0]


def test_tracing_leaves_the_network_as_it_was():
    model = Concatenated().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trace(model, X)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(hasattr(value, "_channels") for value in model.parameters())


def test_a_network_that_counts_its_channels_in_numbers_is_refused_with_the_mend():
    class Counting(Net):
        def __init__(self):
            super().__init__(stem=conv(2, 4), head=nn.Linear(256, 3))

        def forward(self, x: Tensor) -> Tensor:
            return self.head(F.relu(self.stem(x)).view(-1, 256))

    x, y = X.repeat(3, 1, 1, 1), torch.arange(3)
    pruned = pv.prune(Counting(), x, y, method="l1-filters", sparsity=0.5)
    with pytest.raises(Unsuitable, match=r"count its channels in numbers.*flatten\(1\)"):
        pv.compact(pruned)


# sums and products with what has no channels, and weights with other readers than their layer


class Tokens(nn.Module):
    """Layers a (8 to 16), b (16 to 8), o (8 to 3) on 5 positions of 8 numbers; ``join`` says what becomes of x and b's outputs."""

    def __init__(self, join, wide: int = 8):
        super().__init__()
        torch.manual_seed(0)
        self.join = join
        self.a, self.b, self.o = nn.Linear(8, 16), nn.Linear(16, 8), nn.Linear(wide, 3)
        self.places, self.scale = nn.Parameter(torch.randn(5, 8)), nn.Parameter(torch.randn(8))
        self.slope = nn.Parameter(torch.rand(8))
        self.register_buffer("shift", torch.randn(1, 1, 8))
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        return self.o(self.join(self, x, self.b(torch.relu(self.a(x)))).mean(1))


def _in_place(net: Tokens, x: Tensor, h: Tensor) -> Tensor:
    x += h
    return x


def _buffered(net: Tokens, x: Tensor, h: Tensor) -> Tensor:
    """Written into a view of a tensor made for it."""
    made = torch.zeros(*h.shape[:2], 8, dtype=h.dtype)
    made.view(-1, 8)[:] = h.flatten(0, 1)
    return made


JOINS = {  # how x and h become one, how many of b's 8 outputs can leave, what the head reads
    "plain": (lambda net, x, h: torch.relu(h), 8, 8),
    "x + h": (lambda net, x, h: x + h, 0, 8),
    "h + x": (lambda net, x, h: h + x, 0, 8),
    "x - h": (lambda net, x, h: x - h, 0, 8),
    "x * h": (lambda net, x, h: x * h, 0, 8),
    "x += h": (_in_place, 0, 8),
    "out = h": (_buffered, 0, 8),
    "largest": (lambda net, x, h: torch.maximum(x, h), 0, 8),
    "places + h": (lambda net, x, h: net.places + h, 0, 8),
    "h + places": (lambda net, x, h: h + net.places, 0, 8),
    "buffer + h": (lambda net, x, h: net.shift + h, 0, 8),
    "scaled": (lambda net, x, h: net.scale * h, 0, 8),
    "slopes": (lambda net, x, h: F.prelu(h.mT, net.slope).mT, 0, 8),
    "one number": (lambda net, x, h: net.scale[0] + h * 2 - 1, 8, 8),
    "one for each position": (lambda net, x, h: net.places[:, :1] + h, 8, 8),
    "beside": (lambda net, x, h: torch.cat([x, h], 2), 8, 16),
    "padded with ones": (lambda net, x, h: F.pad(h, (1, 1), value=1.0), 8, 10),
    "turned": (lambda net, x, h: (h.mT + 0).mT, 8, 8),
    "turned and added": (lambda net, x, h: (x.mT + h.mT).mT, 0, 8),
    "another type": (lambda net, x, h: h.type(torch.float64), 8, 8),
}


@pytest.mark.parametrize("name", JOINS)
def test_channels_that_meet_others_stay_and_removing_the_rest_changes_nothing(name: str):
    join, free, wide = JOINS[name]
    model = Tokens(join, wide)
    x = torch.randn(1, 5, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    before = x.clone()
    found = trace(model, x)
    assert torch.equal(x, before)
    assert not any(hasattr(t, "_channels") for t in [x, *model.parameters(), *model.buffers()])
    assert {n: int(found.removable(n).sum()) for n in found.writes} == {"a": 16, "b": free, "o": 0}
    _agree(model, x)


def _agree(model: nn.Module, x: Samples) -> nn.Module:
    """Every third unit that may leave is masked: the smaller network computes what the masked one does."""
    layout = Filters(model, x)
    units = {g: (torch.arange(g.size) % 3 == 1) | ~layout.may_leave(g) for g in layout.groups}
    mask = layout.mask(units)
    mask.apply_(model)
    small, _ = smaller(model, x)
    more = drawn(x, torch.Generator().manual_seed(5), 6)
    found, expected = (forward(net.eval(), changed(more, Tensor.clone)) for net in (small, model))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    weights = {id(m.weight): m.weight.numel() for m in small.modules() if isinstance(m, nn.Linear | nn.Conv2d)}
    assert sum(weights.values()) == layout.left(units) <= layout.size
    return small


class Read(nn.Module):
    """The weight of ``a`` is used a second time in some way."""

    def __init__(self, way: str):
        super().__init__()
        torch.manual_seed(0)
        self.way = way
        self.a, self.b, self.o = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        if way == "tied":
            self.b.weight = self.a.weight
        if way == "tied bias":
            self.b.bias = self.a.bias
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.a(x))
        if self.way == "twice":
            h = torch.relu(self.a(h))
        h = torch.relu(self.b(h))
        if self.way == "by function":
            h = F.linear(h, self.a.weight)
        if self.way == "turned":
            h = h @ self.a.weight.T
        if self.way == "normed":
            h = h / self.a.weight.norm()
        if self.way == "bias":
            h = h + self.a.bias.sum()
        if self.way == "shape":
            h = h / self.a.weight.shape[1] ** 0.5
        return self.o(h)


@pytest.mark.parametrize(
    "way", ["once", "shape", "twice", "tied", "tied bias", "by function", "turned", "normed", "bias"]
)
def test_a_weight_with_other_readers_than_its_layer_keeps_its_channels(way: str):
    model = Read(way)
    x = torch.randn(1, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = trace(model, x)
    free = {name: int(found.removable(name).sum()) for name in found.writes}
    assert free["a"] == (8 if way in ("once", "shape") else 0)
    assert ("a" in found.shared) == (way not in ("once", "shape"))
    if way in ("twice", "tied", "by function", "turned"):  # its inputs too
        readers = {int(c) for c in found.reads["a"]} - {0}
        assert not any(bool(found.free[c]) for c in readers)
    _agree(model, x)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


class Words(nn.Module):
    """Token ids and a mask by keyword; the embedding is added to a layer's output in one place; two things come out."""

    def __init__(self, added: bool, tied: bool = False):
        super().__init__()
        torch.manual_seed(0)
        self.added = added
        self.embed, self.a, self.b = nn.Embedding(11, 6), nn.Linear(6, 9), nn.Linear(9, 6)
        self.head = nn.Linear(6, 11, bias=False)
        if tied:
            self.head.weight = self.embed.weight
        self.double()

    def forward(self, ids: Tensor, attention: Tensor) -> dict[str, Tensor]:
        x = self.embed(ids)
        h = self.b(torch.relu(self.a(x)))
        h = x + h if self.added else h
        weight = attention[..., None].to(h.dtype)
        return {"logits": self.head((h * weight).sum(1) / weight.sum(1)), "inner": h.sum((1, 2))}


@pytest.mark.parametrize(("added", "tied"), [(False, False), (True, False), (True, True)])
def test_token_ids_stay_ids_and_what_an_embedding_is_added_to_stays(added: bool, tied: bool):
    ids = torch.tensor([[3, 10, 7, 1]])
    sample = Inputs({"ids": ids, "attention": torch.ones_like(ids)}, "logits")
    model = Words(added, tied)
    found = trace(model, sample)
    assert {name: int(found.removable(name).sum()) for name in found.writes} == {"a": 9, "b": 0, "head": 0}
    small = _agree(model, sample)
    assert small.a.weight.shape == (3, 6)
    assert torch.equal(sample.values["ids"], ids)


def test_an_output_beside_the_one_that_is_read_is_kept_too():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Linear(4, 6), nn.Linear(6, 5), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            h = torch.relu(self.a(x))
            return self.c(h), self.b(h)

    found = trace(Two(), Inputs(torch.randn(1, 4), 0))
    assert {name: int(found.removable(name).sum()) for name in found.writes} == {"a": 6, "b": 0, "c": 0}


@pytest.mark.filterwarnings("ignore")
def test_channels_agree_with_torch_pruning_s_dependency_graph():
    """A second implementation, on networks that it handles: for each removable channel the same slices leave."""
    tp = pytest.importorskip(
        "torch_pruning", reason="torch-pruning is not installed: pip install -r requirements-dev.txt"
    )
    model = pv.build("vgg-16", shape=(1, 28, 28), classes=10, width=1 / 16).eval()
    x = torch.randn(1, 1, 28, 28)
    found = trace(model, x)
    graph = tp.DependencyGraph().build_dependency(model, x)
    modules = {module: name for name, module in model.named_modules()}
    for name in list(found.writes)[:-1]:
        layer = model.get_submodule(name)
        which = 1
        prune = tp.prune_conv_out_channels if isinstance(layer, nn.Conv2d) else tp.prune_linear_out_channels
        group = graph.get_pruning_group(layer, prune, idxs=[which])
        channel = int(found.writes[name][which])
        theirs = {
            (modules[dep.target.module], dep.handler.__name__.rsplit("_", 2)[-2]): sorted(idxs)
            for dep, idxs in group
            if dep.target.module in modules and list(dep.target.module.parameters())
        }
        ours = {(name, "out"): [which]}
        ours |= {(n, "in"): (r == channel).nonzero().flatten().tolist() for n, r in found.reads.items() if channel in r}
        ours |= {
            (n, "out"): (r == channel).nonzero().flatten().tolist() for n, r in found.scales.items() if channel in r
        }
        assert theirs == ours, name

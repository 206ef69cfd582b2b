"""Which channel is read where, in networks that sum, concatenate, shuffle, gate, flatten in other orders, or count by hand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import pruneviz as pv
from pruneviz.channels import trace
from pruneviz.errors import Unsuitable
from pruneviz.removal import smaller
from pruneviz.structured import Filters


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


@pytest.mark.filterwarnings("ignore")
def test_channels_agree_with_torch_pruning_s_dependency_graph():
    """A second implementation, on networks that it handles: for each removable channel the same slices leave."""
    tp = pytest.importorskip("torch_pruning")
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

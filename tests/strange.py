"""Networks as others write them: small ones whose layers do not see samples first, or are no layers at all."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm


class Folded(nn.Module):
    """Windows folded into the batch, samples' windows together ("windows"), or all first windows first ("places")."""

    def __init__(self, how: str):
        super().__init__()
        self.how = how
        self.a, self.b, self.head = nn.Linear(5, 6), nn.Linear(6, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:  # [n, 4, 3, 5]
        n = len(x)
        if self.how == "windows":
            return self.head(self.inner(x.flatten(0, 1)).view(n, 12, 4).mean(1))
        if self.how == "places":
            return self.head(self.inner(x.transpose(0, 1).flatten(0, 1)).view(4, n, 3, 4).mean((0, 2)))
        if self.how == "length first":
            return self.head(self.inner(x.flatten(1, 2).transpose(0, 1)).mean(0))
        return self.head(self.inner(x).mean((1, 2)))

    def inner(self, h: Tensor) -> Tensor:
        h = torch.tanh(self.a(h))
        return torch.tanh(self.b(h + h.mean(-2, keepdim=True) if self.how in ("windows", "plain") else h))


class Frames(nn.Module):
    """A video's frames folded into the batch of a convolution."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(2, 3, 3, stride=2), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:  # [n, 3, 2, 6, 6]
        h = torch.tanh(self.conv(x.flatten(0, 1)))
        return self.head(h.view(len(x), 3, 12).mean(1))


class ByHand(nn.Module):
    """Weights that are read by functions, by name, or multiplied by hand."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 8), nn.Linear(8, 7), nn.Linear(5, 3)
        self.w = nn.Parameter(torch.randn(7, 5) / 3)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.a(input=x))
        h = torch.tanh(F.linear(h, self.b.weight, self.b.bias))
        return self.c(torch.tanh(h @ self.w))


class Normed(nn.Module):
    """A weight whose size is used beside its layer."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(torch.tanh(self.a(x) / self.a.weight.norm(dim=1)))


class Twice(nn.Module):
    """A layer that is used twice."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.a(x))
        return self.c(torch.tanh(self.b(torch.tanh(self.b(h)))))


class Recurrent(nn.Module):
    """An LSTM or a GRU and a head on its last output."""

    def __init__(self, kind: type[nn.RNNBase]):
        super().__init__()
        self.rnn, self.head = kind(5, 4, batch_first=True), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:  # [n, 4, 5]
        return self.head(self.rnn(x)[0][:, -1])


class Encoder(nn.Module):
    """A layer of a transformer."""

    def __init__(self):
        super().__init__()
        self.i, self.t = nn.Linear(5, 8), nn.TransformerEncoderLayer(8, 2, 6, 0.0, batch_first=True)
        self.o = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.o(self.t(self.i(x)).mean(1))


class Words(nn.Module):
    """A small language model: a table, a layer, and a head that may share the table."""

    def __init__(self, *, tied: bool):
        super().__init__()
        self.embed, self.mid, self.head = nn.Embedding(12, 6), nn.Linear(6, 6), nn.Linear(6, 12, bias=False)
        if tied:
            self.head.weight = self.embed.weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(torch.tanh(self.mid(self.embed(ids).mean(1))))


class PadsItself(nn.Conv2d):
    """A convolution that pads at the far sides, as TensorFlow does."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, (0, 1, 0, 1)), self.weight, self.bias, self.stride)


class Standardised(nn.Conv2d):
    """A convolution whose kernel is standardised before use."""

    def forward(self, x: Tensor) -> Tensor:
        w = self.weight
        w = (w - w.mean((1, 2, 3), keepdim=True)) / (w.std((1, 2, 3), keepdim=True) + 1e-5)
        return F.conv2d(x, w, self.bias, self.stride, self.padding)


def pictures(*layers: nn.Module, out: int) -> nn.Module:
    return nn.Sequential(*layers, nn.Tanh(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * out, 3))


def lines(*layers: nn.Module, out: int) -> nn.Module:
    return nn.Sequential(*layers, nn.Tanh(), nn.AdaptiveAvgPool1d(2), nn.Flatten(), nn.Linear(2 * out, 3))


# name -> network and the shape of a sample; those of FACTORS have Kronecker factors for every weight
FACTORS = {
    "plain": (lambda: Folded("plain"), (4, 3, 5)),
    "windows": (lambda: Folded("windows"), (4, 3, 5)),
    "places": (lambda: Folded("places"), (4, 3, 5)),
    "length first": (lambda: Folded("length first"), (4, 3, 5)),
    "frames": (Frames, (3, 2, 6, 6)),
    "conv1d": (lambda: lines(nn.Conv1d(2, 4, 3, padding=1, stride=2), nn.Tanh(), nn.Conv1d(4, 5, 3, padding="same"), out=5), (2, 9)),
    "same": (lambda: pictures(nn.Conv2d(2, 4, (4, 3), padding="same", dilation=2), out=4), (2, 9, 8)),
    "circular": (lambda: pictures(nn.Conv2d(2, 4, 3, padding=1, padding_mode="circular"), out=4), (2, 6, 6)),
    "reflect": (lambda: pictures(nn.Conv2d(2, 4, 3, padding=1, padding_mode="reflect"), out=4), (2, 6, 6)),
    "pads itself": (lambda: pictures(PadsItself(2, 4, 3, stride=2), out=4), (2, 8, 8)),
    "groups": (lambda: pictures(nn.Conv2d(4, 6, 3, padding=1, groups=2), out=6), (4, 6, 6)),
    "depthwise": (lambda: pictures(nn.Conv2d(4, 8, 3, padding=1, groups=4), nn.Tanh(), nn.Conv2d(8, 5, 1), out=5), (4, 6, 6)),
}  # fmt: skip
OTHERS = {
    "by hand": (ByHand, (6,)),
    "twice": (Twice, (6,)),
    "normed": (Normed, (6,)),
    "LSTM": (lambda: Recurrent(nn.LSTM), (4, 5)),
    "GRU": (lambda: Recurrent(nn.GRU), (4, 5)),
    "encoder": (Encoder, (4, 5)),
    "tied": (lambda: Words(tied=True), None),
    "table": (lambda: Words(tied=False), None),
    "weight norm": (lambda: nn.Sequential(weight_norm(nn.Linear(6, 8)), nn.Tanh(), nn.Linear(8, 3)), (6,)),
    "transposed": (lambda: pictures(nn.ConvTranspose2d(2, 4, 3, stride=2), out=4), (2, 5, 5)),
    "conv3d": (lambda: nn.Sequential(nn.Conv3d(1, 3, 2), nn.Tanh(), nn.Flatten(), nn.Linear(24, 3)), (1, 3, 3, 3)),
    "standardised": (lambda: pictures(Standardised(2, 4, 3), out=4), (2, 6, 6)),
}  # fmt: skip
EVERY = FACTORS | OTHERS


def problem(name: str, n: int = 6) -> tuple[nn.Module, Tensor, Tensor]:
    """Network in float64, samples, labels; always the same."""
    build, shape = EVERY[name]
    with torch.random.fork_rng():
        torch.manual_seed(3)
        net = build().double().eval()
        if shape is None:
            return net, torch.randint(0, 12, (n, 5)), torch.randint(0, 12, (n,))
        return net, torch.randn(n, *shape, dtype=torch.float64), torch.arange(n) % 3

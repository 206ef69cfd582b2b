"""Convolutions of sequences: filters and directions leave them as they leave those of images."""

import pytest
import torch
from strange import lines
from torch import nn

import pruneviz as pv


def build() -> nn.Module:
    torch.manual_seed(5)
    net = lines(
        nn.Conv1d(2, 6, 3, padding=1, stride=2),
        nn.BatchNorm1d(6),
        nn.ReLU(),
        nn.Conv1d(6, 8, 3, padding=1, bias=False),
        out=8,
    )
    return net.double().eval()


def images(net: nn.Module) -> nn.Module:
    """The same network on images of one line."""
    found = nn.Sequential(
        nn.Conv2d(2, 6, (1, 3), padding=(0, 1), stride=(1, 2)), nn.BatchNorm2d(6), nn.ReLU(),
        nn.Conv2d(6, 8, (1, 3), padding=(0, 1), bias=False), nn.Tanh(), nn.AdaptiveAvgPool2d((1, 2)), nn.Flatten(), nn.Linear(16, 3),
    ).double().eval()  # fmt: skip
    state = {n: t[:, :, None] if t.dim() == 3 else t for n, t in net.state_dict().items()}
    found.load_state_dict(state)
    return found


@pytest.mark.parametrize("method", ["l1-filters", "kron-obd", "kron-obs", "eigendamage"])
def test_a_sequence_is_an_image_of_one_line(method: str):
    net = build()
    x, y = torch.randn(10, 2, 9, dtype=torch.float64), torch.arange(10) % 3
    one, two = (pv.prune(m, s, y, method=method, sparsity=0.3) for m, s in ((net, x), (images(net), x[:, :, None])))
    assert one.report["reached"] == two.report["reached"] > 0.1
    torch.testing.assert_close(one.model(x), two.model(x[:, :, None]), rtol=0, atol=1e-9)
    small = pv.compact(one)
    torch.testing.assert_close(small.model(x), one.model(x), rtol=0, atol=1e-10)
    assert small.after.parameters == pv.compact(two).after.parameters < small.before.parameters

"""Somebody's own network, weights and samples, as files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

CODE = """
from parts import hidden
from torch import nn


def build():
    return nn.Sequential(nn.Flatten(), hidden(16, 12), hidden(12, 8), nn.Linear(8, 3))
"""
PARTS = """
from torch import nn


def hidden(a, b):
    return nn.Sequential(nn.Linear(a, b), nn.ReLU())
"""
DATA = """
import numpy as np


def load():
    with np.load({path!r}) as file:
        x, y = file["x"], file["y"]
    return (x[:90], y[:90]), (x[90:], y[90:])
"""


def samples(count: int = 150) -> tuple[np.ndarray, np.ndarray]:
    """x [count, 1, 4, 4] of three classes that a small network learns: a bright row each."""
    y = np.arange(count) % 3
    x = np.random.default_rng(5).random((count, 1, 4, 4), dtype=np.float32)
    x[np.arange(count), 0, y] += 1
    return x, y


def project(folder: Path) -> Path:
    """my_net.py (and parts.py beside it), my_data.py, mine.npz, trained weights as .safetensors and .pt, and initial ones."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "my_net.py").write_text(CODE)
    (folder / "parts.py").write_text(PARTS)
    (folder / "my_data.py").write_text(DATA.format(path=str(folder / "mine.npz")))
    x, y = samples()
    np.savez(folder / "mine.npz", x=x, y=y)
    first, net = trained()
    save_file({f"module.{k}": v for k, v in net.state_dict().items()}, folder / "w.safetensors")
    torch.save(net.state_dict(), folder / "w.pt")
    save_file(first, folder / "first.safetensors")
    return folder


def network(seed: int = 3) -> torch.nn.Module:
    from torch import nn

    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Flatten(),
        nn.Sequential(nn.Linear(16, 12), nn.ReLU()),
        nn.Sequential(nn.Linear(12, 8), nn.ReLU()),
        nn.Linear(8, 3),
    )


def trained() -> tuple[dict[str, torch.Tensor], torch.nn.Module]:
    """The weights before training, and the network after it."""
    net = network()
    first = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    x, y = (torch.as_tensor(a) for a in samples())
    optimizer = torch.optim.Adam(net.parameters(), 0.01)
    for _ in range(60):
        loss = torch.nn.functional.cross_entropy(net(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return first, net

"""Small problems that can be checked by hand, and stores that belong to one test."""

from __future__ import annotations

import os
import sys

os.environ.setdefault(
    "OMP_WAIT_POLICY", "passive"
)  # torch's threads sleep while they wait: two cores are shared with servers and workers

import pytest
import torch
from torch import nn

from pruneviz.store import Store


@pytest.fixture(autouse=True)
def main_module():
    """Streamlit's test runs put a module of their own in the place of ``__main__``, which a worker would then begin with."""
    kept = sys.modules["__main__"]
    yield
    sys.modules["__main__"] = kept


@pytest.fixture
def store(tmp_path):
    """An empty store without samples."""
    made = Store(tmp_path / "store", samples=None)
    yield made
    made.close()


@pytest.fixture
def mlp() -> nn.Module:
    """6-5-3 in float64, with biases and ReLU."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)).double()


@pytest.fixture
def cnn() -> nn.Module:
    """Stride, padding and bias in float64 on 1 x 6 x 6 images, 3 classes."""
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(3, 4, 3, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16, 3),
    ).double()

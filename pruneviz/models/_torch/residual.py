"""The residual block of the CIFAR networks, with a shortcut that has no parameters."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class BasicBlock(nn.Module):
    """Two normalised convolutions of 3 x 3 around a shortcut: relu(F(x) + shortcut(x)) (He et al. 2016, figure 2, option A).

    x [b, in, h, w] -> [b, out, ceil(h / stride), ceil(w / stride)]. No width is written down but in the layers, so that
    inner channels (those between the convolutions) may be removed from them.
    """

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.relu2 = nn.ReLU()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        inner = self.relu1(self.norm1(self.conv1(x)))
        residual = self.norm2(self.conv2(inner))
        return self.relu2(residual + shortcut(x, residual, self.stride))


def shortcut(x: Tensor, like: Tensor, stride: int) -> Tensor:
    """Every ``stride``-th pixel of x, with channels of zeros on both sides up to as many as ``like`` has."""
    if stride > 1:
        x = x[:, :, ::stride, ::stride]
    missing = like.shape[1] - x.shape[1]
    return F.pad(x, (0, 0, 0, 0, missing // 2, missing - missing // 2)) if missing else x

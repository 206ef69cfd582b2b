"""Singular values of the Jacobian of the whole network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pruneviz.curvature.gradients import untouched


def end_to_end_singular_values(model: nn.Module, x: Tensor) -> Tensor:
    r"""Singular values of :math:`J = \partial f / \partial x` at each sample: [samples, min(outputs, inputs)], descending.

    ``f`` are the network's outputs (logits) and ``x`` the flat sample; normalisation and dropout in evaluation mode. One
    backward pass for each output serves all samples. In a linear network J is the product of the layers' matrices; where
    these are square and orthogonal, all values are 1 (Lee et al. 2020, section 4).
    """
    with untouched(model):
        at = x.detach().clone().requires_grad_()
        outputs = model(at * 1).flatten(1)  # times 1: the first layer may work in place
        rows = [torch.autograd.grad(column.sum(), at, retain_graph=True)[0].flatten(1) for column in outputs.T]
    J = torch.stack(rows, 1)  # [samples, outputs, inputs]
    return torch.linalg.svdvals(J.double()).to(J.dtype)

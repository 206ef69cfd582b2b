"""Survivors moved once the mask is known, from the weights alone: no data, no labels. It knows masks, and no method."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from pruneviz.basics.errors import InvalidSetting
from pruneviz.door.parameters import Convolution, Layer
from pruneviz.units.masks import Mask

WINDOW = 50  # steps over which the objective's relative change is looked at


def repaired(how: str, model: nn.Module, mask: Mask) -> dict[str, Tensor]:
    """New weights by parameter name: "isometry", "rescale", or "none" ({}). Raises InvalidSetting."""
    match how:
        case "none":
            return {}
        case "isometry":
            return isometric(model, mask)[0]
        case "rescale":
            return rescaled(model, mask)
    raise InvalidSetting(f"A repair is none, isometry or rescale; found {how!r}.")


@torch.no_grad()
def isometric(
    model: nn.Module, mask: Mask, *, steps: int = 1000, tolerance: float = 1e-3, norm: bool = False
) -> tuple[dict[str, Tensor], dict[str, float]]:
    r"""Surviving weights moved so that each layer is as nearly an isometry as its mask allows.

    Layer by layer :math:`\min_W \|(m \odot W)^\top (m \odot W) - I\|_F^2` (Lee et al. 2020, section 5), started from the
    weights as they are. ``W`` is the weight [out, in], of a convolution the kernel matrix [out, in k k] for each group. Where
    it is wide (out < in) the smaller :math:`W W^\top` stands in: the objective is less by the constant in - out, the
    minimiser the same. ``norm``: the norm itself, not its square, as the authors' code has it.

    Conjugate gradients (Polak & Ribière, restarted) with exact line search: along a line the objective is a polynomial of
    degree 4. A layer is done after ``steps``; where the objective changed by less than ``tolerance`` (relative) over 50
    steps; or where the squared singular values are within ``tolerance`` of 1 (root mean square).

    Returns: new weights by parameter name, zero where pruned; and the residual, the norm on the smaller side, by parameter
    name. A row of a wide layer (a column of a tall one) that the mask empties adds 1 to its square, whatever W is.
    """
    found, residuals = {}, {}
    for name, weight, keep in _layers(model, mask):
        W = (weight * keep).to(
            torch.promote_types(weight.dtype, torch.float32)
        )  # half precision is too coarse to descend in
        W, residuals[name] = _descend(W, keep.to(W.dtype), steps, tolerance, norm)
        found[name] = W.view(mask[name].shape).to(weight.dtype)
    return found, residuals


@torch.no_grad()
def rescaled(model: nn.Module, mask: Mask) -> dict[str, Tensor]:
    """Each layer's surviving weights times one number, so that the mean of its singular values is 1.

    The values are those of the masked weight [out, in] (a convolution: of the kernel matrix, for each group), min(out, in) of them,
    zeros included. A layer that is all zero stays so. The control beside :func:`isometric`: what size alone explains.
    """
    found = {}
    for name, weight, keep in _layers(model, mask):
        W = weight * keep
        mean = float(torch.linalg.svdvals(W.cpu().double()).mean())
        found[name] = (W / mean if mean > 0 else W).view(mask[name].shape)
    return found


def _layers(model: nn.Module, mask: Mask) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Parameter name, weight and mask as matrices [groups, out, in] of every layer whose weight the mask covers."""
    for prefix, module in model.named_modules():
        name = f"{prefix}.weight" if prefix else "weight"
        if isinstance(module, Layer) and name in mask:
            groups = module.groups if isinstance(module, Convolution) else 1
            shape = (groups, module.weight.shape[0] // groups, module.weight[0].numel())
            yield name, module.weight.detach().reshape(shape), mask[name].reshape(shape)


def _descend(W: Tensor, keep: Tensor, steps: int, tolerance: float, norm: bool) -> tuple[Tensor, float]:
    """The minimiser over the entries where ``keep`` is 1, and the residual there. Shapes: [groups, out, in]."""
    wide = W.shape[1] <= W.shape[2]
    eye = torch.eye(min(W.shape[1:]), dtype=W.dtype, device=W.device)
    power = 1 if norm else 2

    def inner(A: Tensor, B: Tensor) -> Tensor:  # on the smaller side
        return A @ B.mT if wide else A.mT @ B

    def measured(W: Tensor) -> tuple[Tensor, float, Tensor]:
        """R = W Wᵀ - I, its norm, and the objective's gradient, which needs no right length."""
        R = inner(W, W) - eye
        size = float(R.square().sum()) ** 0.5
        g = (R @ W if wide else W @ R) * keep
        return R, size, g / size if norm and size else g

    R, residual, g = measured(W)
    direction, history = -g, [residual]
    for step in range(1, steps + 1):
        steepness = float(g.square().sum())
        if residual <= tolerance * (len(W) * len(eye)) ** 0.5 or steepness == 0:
            break
        if float((direction * g).sum()) >= 0:
            direction = -g
        B = inner(W, direction)
        W = W + direction * _lowest(R, B + B.mT, inner(direction, direction))
        before = g
        R, residual, g = measured(W)
        direction = direction * max(0.0, float((g * (g - before)).sum()) / steepness) - g
        history.append(residual)
        if step >= WINDOW and history[-WINDOW - 1] ** power * (1 - tolerance) <= residual**power:
            break
    return W, residual


def _lowest(R: Tensor, B: Tensor, C: Tensor) -> float:
    """The t > 0 at which ||R + t B + t² C||_F² is least, where it falls at 0."""
    sums = torch.stack([(C * C).sum(), (B * C).sum(), (B * B).sum(), (R * C).sum(), (R * B).sum()])
    cc, bc, bb, rc, rb = sums.tolist()
    turns = np.roots([4 * cc, 6 * bc, 2 * bb + 4 * rc, 2 * rb])
    ahead = turns[(abs(turns.imag) <= 1e-9 * abs(turns)) & (turns.real > 0)].real
    return min(ahead.tolist(), key=lambda t: (((cc * t + 2 * bc) * t + bb + 2 * rc) * t + 2 * rb) * t, default=0.0)

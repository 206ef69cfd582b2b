"""Singular values of the layers' Jacobians."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import allow_mutation_on_saved_tensors

from pruneviz.basics.errors import InvalidSetting, Unsuitable, UnsupportedLayer
from pruneviz.curvature.following import Follower, Use
from pruneviz.curvature.products import gram
from pruneviz.door.samples import Inputs, Samples, forward, tensors
from pruneviz.door.untouched import untouched

LARGEST = 4096  # rows and columns of a convolution's operator that is decomposed exactly
LANCZOS = 32  # singular values of a larger one


def jacobian_singular_values(
    model: nn.Module, x: Samples, *, conv: Literal["kernel", "operator"] = "kernel"
) -> dict[str, Tensor]:
    r"""Singular values of every layer's Jacobian, in forward order, descending (Lee et al. 2020, section 4).

    Linear: of :math:`J = D W` at each sample (and position): [samples, min(out, in)]. ``D`` is the derivative of what really
    follows: functions of single numbers, written by hand or not, and normalisation by kept statistics, up to whatever mixes
    units, positions or paths; identity where nothing does, and for numbers that nobody reads. Where two functions read a
    layer, :math:`[D_1 W; D_2 W]`. Conv2d, ``conv="kernel"``: of the kernel matrix [out, in k k] (with groups, of the block
    diagonal of theirs), which the paper's loss uses: [1, min]. ``conv="operator"``: of D times the map from input image to
    output image itself: [samples, min(pixels)]; where it has more than 4,096 rows or columns, the largest 32 by Lanczos'
    method: [samples, 32]. Exact values go through W Wᵀ on the smaller side in float64: small ones are right to about 1e-8
    of the largest. W is what a pass multiplies with (weight normalisation and masks included). Of a layer used several times:
    of all uses, with zeros after those of smaller images. Raises: InvalidSetting; UnsupportedLayer, where what follows can't
    be told.
    """
    if conv not in ("kernel", "operator"):
        raise InvalidSetting(f"conv is 'kernel' or 'operator'; found {conv!r}.")
    try:
        return _found(model, x, conv)
    except RuntimeError as error:
        if "inplace operation" not in str(error):
            raise
    with allow_mutation_on_saved_tensors():  # a network that overwrites what its slopes need runs without them only
        return _found(model, x, conv)


def _found(model: nn.Module, x: Samples, conv: str) -> dict[str, Tensor]:
    followed = (nn.Linear,) if conv == "kernel" else (nn.Linear, nn.Conv2d)
    found: dict[str, list[Tensor]] = {}
    with untouched(model):
        uses, output = _watched(model, x, followed)
        for i, use in enumerate(uses):
            layer = model.get_submodule(use.layer)
            if not use.input.numel():  # an expert that no sample goes to
                continue
            if isinstance(layer, nn.Conv2d) and conv == "kernel":
                if use.layer not in found:
                    found[use.layer] = [_kernel(use)]
                continue
            if not use.ends and use.cut:
                use = _watched(model, x, followed, through=True)[0][i]
            if not use.read and not torch.equal(_watched(model, x, followed, shaken=i)[1], output):
                raise UnsupportedLayer(
                    f"Nobody is seen to read what layer {use.layer!r} gives (a torch.autograd.Function of one's own?), so that its "
                    "Jacobian cannot be told. Use a module or function of torch.nn for what follows it."
                )
            found.setdefault(use.layer, []).append(_values(layer, use))
    return {name: _rows(several) for name, several in found.items()}


def _watched(
    model: nn.Module, x: Samples, followed: tuple[type, ...], *, through: bool = False, shaken: int = -1
) -> tuple[list[Use], Tensor]:
    """The layers' uses in one forward pass, and what it gives."""
    follower = Follower(model, followed, through=through, shaken=shaken).watch(tensors(x))
    try:
        with follower:
            output = forward(model, x)
    except RuntimeError as error:
        raise Unsuitable(
            f"The network does not run where slopes are taken ({str(error).splitlines()[0].rstrip('.')}), so its Jacobians cannot be told."
        ) from error
    return follower.uses, output.detach()


def _rows(several: list[Tensor]) -> Tensor:
    """One use after another; of images of several sizes, the smaller ones' with zeros."""
    most = max(values.shape[1] for values in several)
    return torch.cat([F.pad(v, (0, most - v.shape[1])) for v in several]) if len(several) > 1 else several[0]


@torch.no_grad()
def _kernel(use: Use) -> Tensor:
    """Singular values of a kernel matrix: [1, min(out, in k k)]."""
    weight = use.weight
    blocks = weight.reshape(use.rest.get("groups", 1), -1, weight[0].numel())  # [groups, out, in k k]
    values = torch.linalg.svdvals(_exact(blocks)).flatten().sort(descending=True).values
    return values[None].to(weight)


@torch.no_grad()
def _values(layer: nn.Module, use: Use) -> Tensor:
    """Singular values of one use of a layer."""
    slope = use.slope()
    if isinstance(layer, nn.Linear):
        return _scaled_rows(use.weight, slope.reshape(-1, len(use.weight)))
    assert isinstance(layer, nn.Conv2d)
    apply, images = _map(layer, use)
    if slope.dim() == 3:  # one image, without an axis for samples
        slope, images = slope[None], images[None]
    if max(images[0].numel(), slope[0].numel()) <= LARGEST:
        return _scaled_rows(_operator(apply, images), slope.flatten(1))
    found = [_largest(apply, image, d) for image, d in zip(images, slope, strict=True)]
    return torch.stack(found).to(use.weight)


def _map(layer: nn.Conv2d, use: Use) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """A convolution as a linear map of images, with its input: its module's where that only pads before it, else the function's."""
    x = use.entered
    if x is None or not use.whole:
        return lambda image: F.conv2d(image, use.weight.to(image), None, **use.rest), use.input
    if type(layer).forward is nn.Conv2d.forward:
        return lambda image: layer._conv_forward(image, use.weight.to(image), None), x

    def apply(image: Tensor) -> Tensor:
        zero = torch.zeros_like(image[:1]).to(x)
        return (layer.forward(image.to(x)) - layer.forward(zero)).to(image)

    once, tolerance = apply(x), 1e-2 if x.element_size() < 4 else 1e-4
    if torch.allclose(apply(-x), -once, tolerance, tolerance * float(once.abs().max())):
        return apply, x
    return lambda image: F.conv2d(image, use.weight.to(image), None, **use.rest), use.input


def _exact(tensor: Tensor) -> Tensor:
    """In float64, on the CPU where a device has none."""
    return (tensor.cpu() if tensor.device.type == "mps" else tensor).double()


@torch.no_grad()
def _operator(apply: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """The matrix that takes a flat input image to the flat output image: [out pixels, in pixels], column by column."""
    shape = images.shape[1:]
    unit = torch.eye(shape.numel(), dtype=images.dtype, device=images.device).view(shape.numel(), *shape)
    return apply(unit).flatten(1).T


def _largest(apply: Callable[[Tensor], Tensor], image: Tensor, slope: Tensor) -> Tensor:
    """The 32 largest singular values of D times a convolution, through products with it and its transpose (ARPACK).

    ``image`` [in, h, w], ``slope`` [out, h', w']; fewer where the smaller side has fewer pixels. The start vector is fixed.
    """
    from scipy.sparse.linalg import LinearOperator, svds

    d = _exact(slope)
    with torch.enable_grad():  # a linear map's gradient is its transpose, the same at every image
        at = torch.zeros(image.shape, dtype=d.dtype, device=d.device).requires_grad_()
        out = apply(at[None])[0]

    def forward(v: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            image = torch.from_numpy(v.reshape(at.shape)).to(at)
            return (d * apply(image[None])[0]).flatten().cpu().numpy()

    def backward(u: np.ndarray) -> np.ndarray:
        (found,) = torch.autograd.grad(out, at, d * torch.from_numpy(u.reshape(d.shape)).to(d), retain_graph=True)
        return found.flatten().cpu().numpy()

    operator = LinearOperator((d.numel(), at.numel()), forward, backward, dtype=np.float64)  # pyright: ignore[reportCallIssue]
    least, draw = min(operator.shape), np.random.default_rng(0).standard_normal
    if least <= LANCZOS:  # Lanczos' method finds fewer than all
        wide = d.numel() == least
        values = np.linalg.svd((operator.rmatmat if wide else operator.matmat)(np.eye(least)), compute_uv=False)
    elif not forward(draw(at.numel())).any():  # and nothing in a map that is zero
        values = np.zeros(LANCZOS)
    else:
        found = np.asarray(svds(operator, LANCZOS, v0=draw(least), return_singular_vectors=False))
        values = np.sort(found)[::-1].copy()
    return torch.from_numpy(values)


def _scaled_rows(weight: Tensor, slope: Tensor) -> Tensor:
    """Singular values of diag(d) W for each row d of ``slope`` [samples, out]: [samples, min(out, in)], descending."""
    W, D = _exact(weight), _exact(slope)
    k = min(W.shape)
    values = torch.zeros(len(D), k, dtype=W.dtype, device=W.device)
    products = gram(W.T)  # [out, out]
    for i, d in enumerate(D):
        alive = d.nonzero().flatten()  # ReLU: rows that are off add only zeros
        n = min(len(alive), k)
        if n == 0:
            continue
        if len(alive) <= W.shape[1]:
            square = products.index_select(0, alive).index_select(1, alive)
            square *= torch.outer(d[alive], d[alive])
        else:
            scaled = W[alive] * d[alive, None]
            square = scaled.T @ scaled
        values[i, :n] = torch.linalg.eigvalsh(square).flip(0)[:n].clamp(min=0).sqrt()
    return values.to(weight)


def end_to_end_singular_values(model: nn.Module, x: Samples) -> Tensor:
    r"""Singular values of :math:`J = \partial f / \partial x` at each sample: [samples, min(outputs, inputs)], descending.

    ``f`` are the network's outputs (logits) and ``x`` the flat sample, all its floating-point tensors; normalisation and dropout
    in evaluation mode. One backward pass for each output serves all samples. In a linear network J is the product of the
    layers' matrices; where these are square and orthogonal, all values are 1 (Lee et al. 2020, section 4). Raises: Unsuitable.
    """
    ats: list[Tensor] = []

    def moving(tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point():
            return tensor
        ats.append(tensor.detach().clone().requires_grad_())
        return ats[-1] * 1  # the first layer may work in place

    with untouched(model):
        outputs = forward(model, x.each(moving) if isinstance(x, Inputs) else moving(x)).flatten(1)
        if not ats:
            raise Unsuitable(
                "The samples are whole numbers (token ids), which have no slope: there is no Jacobian from input to output."
            )
        if not outputs.requires_grad:
            raise Unsuitable(
                "The network cuts slopes (no_grad or detach), so that its Jacobian from input to output cannot be told."
            )
        rows = [_row(column.sum(), ats) for column in outputs.T]
    J = torch.stack(rows, 1)  # [samples, outputs, inputs]
    return torch.linalg.svdvals(_exact(J)).to(J)


def _row(output: Tensor, ats: list[Tensor]) -> Tensor:
    found = torch.autograd.grad(output, ats, retain_graph=True, allow_unused=True)
    if all(slope is None for slope in found):
        raise Unsuitable(
            "The network's outputs depend on its parameters and not on the samples, or it cuts slopes on the way (no_grad or detach), so "
            "that its Jacobian from input to output cannot be told."
        )
    flat = [(torch.zeros_like(at) if slope is None else slope).flatten(1) for slope, at in zip(found, ats, strict=True)]
    return torch.cat(flat, 1) if len(flat) > 1 else flat[0]

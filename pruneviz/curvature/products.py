r"""Sums of products over samples and positions, by the fewest operations: what factors and diagonals are made of.

A Linear layer or convolution multiplies its weight with rows :math:`x_{nl}` (inputs, or patches of them), at positions ``l`` of
sample ``n``; :math:`g_{nl}` is the loss's slope at the layer's output there. All results are exact sums, unscaled.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.grad import conv2d_weight

from pruneviz.basics.errors import UnsupportedLayer


@dataclass(frozen=True)
class Product:
    """What a layer does in one forward pass: rows of its input times its weight [out, in], or [out, in / groups, k, k] for images.

    ``nn.Linear`` and ``nn.Conv2d`` have the same attributes, and will do.
    """

    weight: Tensor
    stride: tuple[int, ...] = (1, 1)
    padding: tuple[int, ...] = (0, 0)
    dilation: tuple[int, ...] = (1, 1)
    groups: int = 1
    padding_mode: str = "zeros"

    @property
    def kernel_size(self) -> torch.Size:
        return self.weight.shape[2:]

    @property
    def in_channels(self) -> int:
        return self.weight.shape[1] * self.groups


ENTRIES = 2**26  # of one temporary of patches
BLOCK = 128  # columns of a block of a Gram matrix
NARROW = 64  # channels up to which a batched product beats a convolution's weight gradient
SMALL = 2**18  # entries of a sample's weight gradient up to which samples go through one grouped convolution
BUFFER = 2**20  # entries of the samples' weight gradients that exist at a time, where one has not more
POINT = (1, 1)
SURE = 16.0  # times machine precision's root: least share of a sum of squares left by taking parts away


def exact(tensor: Tensor) -> Tensor:
    """In float64, on the CPU where a device has none (Apple's GPUs)."""
    return (tensor.cpu() if tensor.device.type == "mps" else tensor).double()


def gram(rows: Tensor) -> Tensor:
    """``rows.T @ rows`` by little more than half of its products: [n, d] -> [d, d], exactly symmetric."""
    d = rows.shape[1]
    blocks = max(1, d // BLOCK)
    if blocks == 1:
        return rows.T @ rows
    found = rows.new_empty(d, d)
    edges = [i * d // blocks for i in range(blocks + 1)]
    for first, last in pairwise(edges):
        found[first:last, first:] = rows[:, first:last].T @ rows[:, first:]
        found[last:, first:last] = found[first:last, last:].T
    return found


def groups_of(layer: Product) -> int:
    """Groups of a convolution; 1 for any other layer."""
    return getattr(layer, "groups", 1)


def _flat(layer: Product) -> bool:
    """Whether the layer multiplies rows, and not patches of images."""
    return layer.weight.dim() == 2


def positions(layer: Product, slopes: Tensor) -> int:
    """Positions of a sample at which the layer's weight is used, from slopes (or outputs) [n, ...]."""
    return slopes[0].numel() // len(layer.weight)


def rows_of(layer: Product, x: Tensor) -> Tensor:
    """What the layer multiplies with its weight, in the order of its weight: [samples, positions, in]."""
    if not _flat(layer):
        padded = _padded(layer)
        return F.unfold(x, layer.kernel_size, layer.dilation, padded, layer.stride).mT
    return x.reshape(len(x), -1, x.shape[-1])


def slopes_of(layer: Product, slopes: Tensor) -> Tensor:
    """Slopes at the layer's output as rows: [samples, positions, out]."""
    if not _flat(layer):
        return slopes.flatten(2).mT
    return slopes.reshape(len(slopes), -1, slopes.shape[-1])


def inputs_gram(layer: Product, x: Tensor) -> Tensor:
    r""":math:`\sum_{nl} x_{nl} x_{nl}^\top`: [in, in], or for each group [g, in, in]."""
    if _flat(layer):
        return gram(x.reshape(-1, x.shape[-1]))
    plain = layer.groups == 1 and layer.kernel_size == (3, 3) and layer.stride == layer.dilation == POINT
    if plain and _padded(layer) == POINT and min(x.shape[2:]) >= 3:
        return _mended_(_correlated(x), x)
    total = None
    for _, part in _portions(layer, x):
        found = _grouped(rows_of(layer, part), layer.groups) if layer.groups > 1 else _patches_gram(layer, part)
        total = found if total is None else total.add_(found)
    assert total is not None
    return total


def slopes_gram(layer: Product, slopes: Tensor) -> Tensor:
    r""":math:`\sum_{nl} g_{nl} g_{nl}^\top`: [out, out], or for each group [g, out / g, out / g]."""
    if _flat(layer):
        return gram(slopes.reshape(-1, slopes.shape[-1]))
    if layer.groups > 1:
        return _grouped(slopes_of(layer, slopes), layer.groups)
    channels = slopes.shape[1]
    if channels <= NARROW:
        flat = slopes.flatten(2)
        return (flat @ flat.mT).sum(0)
    return _weight_gradient(slopes, (channels, channels, 1, 1), slopes)[:, :, 0, 0]


def inputs_squares(layer: Product, x: Tensor) -> Tensor:
    r""":math:`\sum_{nl} x_{nl}^2`, entry by entry of a row: [in], or for each group [g, in]."""
    if _flat(layer):
        return x.reshape(-1, x.shape[-1]).square().sum(0)
    image = x.square().sum(0)[None]  # [1, c, h, w]
    # a kernel entry's sum is the weight gradient of a convolution, channel by channel, whose slopes are 1
    ones = torch.ones_like(
        F.conv2d(image[:, :1], layer.weight[:1, :1], None, layer.stride, _padded(layer), layer.dilation)
    )
    c = image.shape[1]
    found = _weight_gradient(image, (c, 1, *layer.kernel_size), ones.expand(1, c, -1, -1).contiguous(), layer, c)
    return found.reshape(layer.groups, -1) if layer.groups > 1 else found.flatten()


def shares_products(layer: Product, locations: int, slopes: int) -> bool:
    """Whether squared gradients of so many slopes take one product for all: at one position, or over few pairs of them."""
    if groups_of(layer) > 1:
        return False
    if _flat(layer):
        return locations == 1
    return locations * (locations + 1) <= 2 * slopes * (locations + 20)  # 20: a gradient's reading and writing


def squared_gradients(layer: Product, x: Tensor, slopes: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    r"""Squared gradients of single samples, summed: :math:`\sum_{kn} (\sum_l g_{knl} x_{nl}^\top)^2`.

    ``slopes``: k slopes of each sample [n, ...]. Returns the weight's [out, in ...] and the bias's [out]. No sample's
    gradient is kept: where :func:`shares_products`, none is formed.
    """
    locations = positions(layer, slopes[0])
    if _flat(layer):
        rows = x.reshape(len(x), -1, x.shape[-1])
        g = [slope.reshape(len(x), -1, slope.shape[-1]) for slope in slopes]  # [n, l, out]
        if locations == 1:
            squares = _added_squares([one[:, 0] for one in g])
            return squares.T @ rows[:, 0].square(), squares.sum(0)
        bias = _added_squares([one.sum(1) for one in g]).sum(0)
        return sum((_buffered(rows, one) for one in g), x.new_zeros(())), bias
    bias = _added_squares([one.flatten(2).sum(2) for one in slopes]).sum(0)
    if layer.groups > 1:
        return sum((_grouped_squares(layer, x, one) for one in slopes), x.new_zeros(())), bias
    if shares_products(layer, locations, len(slopes)):
        return _paired(rows_of(layer, x), [one.flatten(2) for one in slopes]).view(layer.weight.shape), bias
    if layer.weight.numel() <= SMALL:
        return sum((_grouped_squares(layer, x, one) for one in slopes), x.new_zeros(())), bias
    total = x.new_zeros(len(layer.weight), layer.weight[0].numel())
    for first, part in _portions(layer, x):
        rows = rows_of(layer, part)
        for one in slopes:
            total += _buffered(rows, one[first : first + len(part)].flatten(2).mT)
    return total.view(layer.weight.shape), bias


def _added_squares(several: Sequence[Tensor]) -> Tensor:
    """The sum of their squares, entry by entry."""
    total = several[0].square()
    for one in several[1:]:
        total.addcmul_(one, one)
    return total


def _weight_gradient(
    x: Tensor, shape: Sequence[int], slopes: Tensor, like: Product | None = None, groups: int = 1
) -> Tensor:
    """The gradient of a convolution's weight, summed over samples: stride 1 and no padding, or as a layer has them."""
    options: dict[str, Any] = {"groups": groups}
    if like is not None:
        options |= {"stride": like.stride, "padding": _padded(like), "dilation": like.dilation}
    return conv2d_weight(x, shape, slopes, **options)


def _padded(layer: Product) -> tuple[int, int]:
    """The convolution's padding in numbers. Raises UnsupportedLayer."""
    if layer.padding_mode != "zeros" or isinstance(layer.padding, str):
        raise UnsupportedLayer(
            f"Curvature of a convolution needs zero padding given in numbers; found padding={layer.padding!r}, "
            f"padding_mode={layer.padding_mode!r}."
        )
    return layer.padding  # pyright: ignore[reportReturnType]


def _portions(layer: Product, x: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Samples whose patches make one temporary, and which is the first of them."""
    (p, q), (s, t) = _padded(layer), layer.stride
    pixels = (x.shape[2] + 2 * p) * (x.shape[3] + 2 * q) // (s * t)
    step = max(1, ENTRIES // max(1, pixels * layer.in_channels * layer.weight[0, 0].numel()))
    for first in range(0, len(x), step):
        yield first, x[first : first + step]


def _grouped(rows: Tensor, groups: int) -> Tensor:
    """Gram matrices of groups of neighbouring columns: [n, l, d] -> [g, d / g, d / g]."""
    parts = rows.flatten(0, 1).unflatten(1, (groups, -1)).transpose(0, 1)
    return parts.mT @ parts


def _patches_gram(layer: Product, x: Tensor) -> Tensor:
    """The Gram matrix of patches, gathered pixel by pixel: whole runs of channels are copied at once."""
    (p, q), (a, b), (s, t), (u, v) = _padded(layer), layer.kernel_size, layer.stride, layer.dilation
    image = F.pad(x, (q, q, p, p)).permute(0, 2, 3, 1).contiguous()  # [n, h, w, c]
    n, h, w, c = image.shape
    high, wide = (h - u * (a - 1) - 1) // s + 1, (w - v * (b - 1) - 1) // t + 1
    each, down, across, _ = image.stride()
    patches = image.as_strided(
        (n, high, wide, a, b, c), (each, s * down, t * across, u * down, v * across, 1)
    )  # fmt: skip
    found = gram(patches.reshape(-1, a * b * c))
    return found.view(a * b, c, a * b, c).permute(1, 0, 3, 2).reshape(c * a * b, -1)  # as the weight has it


def _correlated(x: Tensor) -> Tensor:
    r"""The Gram matrix of 3 x 3 patches, stride 1, padding 1, without patches: [n, c, h, w] -> [9 c, 9 c].

    The block of kernel offsets d and d' sums :math:`x_q x_{q + d' - d}^\top` over the pixels q that a window reaches at d:
    all but a border. So the 13 different shifts are summed once, over all pixels, and each block takes away its border
    lines. The sum over all pixels is the weight gradient of a convolution whose slopes are its own input.
    """
    c, h, w = x.shape[1:]
    shifts = _weight_gradient(
        F.pad(x, (2, 2, 0, 2)), (c, c, 3, 5), x
    )  # [c, c', dy, dx + 2]: sum of x_q x'_{q + (dy, dx)}
    lines = {}  # the same sums over one border line: what windows at one side of the kernel never reach
    for side, at in ((1, 0), (-1, h - 1)):
        line = x[:, :, at : at + 1]
        lines["y", side] = _weight_gradient(F.pad(line, (2, 2)), (c, c, 1, 5), line)[:, :, 0]
    for side, at in ((1, 0), (-1, w - 1)):
        line = x[:, :, :, at : at + 1]
        lines["x", side] = _weight_gradient(F.pad(line, (0, 0, 0, 2)), (c, c, 3, 1), line)[..., 0]
    corners = {(i, j): x[:, :, (i - 1) // 2, (j - 1) // 2] for i in (1, -1) for j in (1, -1)}
    found = x.new_empty(3, 3, c, 3, 3, c)
    offsets = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
    for i, j in offsets:
        for k, m in offsets:
            dy, dx = k - i, m - j
            if dy < 0 or (dy == 0 and dx < 0):
                continue
            block = shifts[:, :, dy, dx + 2]
            if dy == 0 and i:
                block = block - lines["y", i][:, :, dx + 2]
            if dx == 0 and j:
                block = block - lines["x", j][:, :, dy]
            if dy == dx == 0 and i and j:
                block = block + corners[i, j].T @ corners[i, j]
            # _weight_gradient gives [slope's channel, input's channel]: x_q first
            found[i + 1, j + 1, :, k + 1, m + 1] = block
            found[k + 1, m + 1, :, i + 1, j + 1] = block.T
    return found.permute(2, 0, 1, 5, 3, 4).reshape(9 * c, 9 * c)


def _reached(like: Tensor, size: int) -> Tensor:
    """Which lines of an image a window of 3 reaches at each of its offsets: [3, size], ones and zeros."""
    found = like.new_ones(3, size)
    found[0, -1] = found[2, 0] = 0.0
    return found


def _mended_(found: Tensor, x: Tensor) -> Tensor:
    """The Gram matrix with those rows and columns summed anew that cancelled: of a channel whose border outshines what is
    left without it. They are summed over the windows that see something there, which are few in most networks."""
    h, w = x.shape[2:]
    image = x.square().sum(0)  # [c, h, w]
    left = (_reached(image, h) @ image @ _reached(image, w).mT).flatten()  # [9 c]
    whole = image.sum((1, 2)).repeat_interleave(9)
    lost = left < SURE * torch.finfo(x.dtype).eps ** 0.5 * whole
    at = lost.nonzero().flatten()
    if not len(at):
        return found
    found.index_fill_(0, at, 0.0).index_fill_(1, at, 0.0)
    at = at[left[at] > 0]
    if not len(at):
        return found
    padded = F.pad(x, (1, 1, 1, 1))
    places = [(e // 9, e % 9 // 3, e % 3) for e in at.tolist()]
    own = torch.stack([padded[:, k, i : i + h, j : j + w] for k, i, j in places])  # [entries, n, h, w]
    sample, row, column = (own != 0).any(0).nonzero().unbind(1)
    windows = padded.unfold(2, 3, 1).unfold(3, 3, 1)  # [n, c, h, w, 3, 3]
    total = found.new_zeros(len(at), len(found))
    step = max(1, ENTRIES // len(found))
    for one in zip(sample.split(step), row.split(step), column.split(step), strict=True):
        total += own[:, *one] @ windows[one[0], :, one[1], one[2]].flatten(1)
    total[:, at] = (total[:, at] + total[:, at].T) / 2
    found[at] = total
    found[:, at] = total.T
    return found


def _buffered(rows: Tensor, slopes: Tensor) -> Tensor:
    """Squares of each sample's ``slopes.T @ rows``, summed: [n, l, in], [n, l, out] -> [out, in]."""
    n, out, width = len(rows), slopes.shape[2], rows.shape[2]
    total = rows.new_zeros(out, width)
    step = max(1, BUFFER // (out * width))
    buffer = rows.new_empty(min(step, n), out, width)
    for first in range(0, n, step):
        part = buffer[: min(step, n - first)]
        torch.bmm(slopes[first : first + step].mT, rows[first : first + step], out=part)
        if len(part) == 1:
            total.addcmul_(part[0], part[0])
        else:
            total += part.square_().sum(0)
    return total


def _paired(rows: Tensor, slopes: Sequence[Tensor]) -> Tensor:
    r""":math:`\sum_{kn} (\sum_l g_{knl} x_{nl})^2 = \sum_n \sum_{l l'} (\sum_k g_{knl} g_{knl'}) x_{nl} x_{nl'}`, one product
    for all k: [n, l, in], k times [n, out, l] -> [out, in]."""
    i, j = torch.triu_indices(rows.shape[1], rows.shape[1], device=rows.device)
    twice = torch.where(i == j, 1.0, 2.0).to(rows)
    total = rows.new_zeros(slopes[0].shape[1], rows.shape[2])
    step = max(1, ENTRIES // (len(i) * max(rows.shape[2], slopes[0].shape[1])))
    for first in range(0, len(rows), step):
        x, products = rows[first : first + step], None
        for one in slopes:
            g = one[first : first + step]
            g = g[..., i] * g[..., j]  # [n, out, pairs]
            products = g if products is None else products.add_(g)
        assert products is not None
        total += (products * twice).transpose(0, 1).flatten(1) @ (x[:, i] * x[:, j]).flatten(0, 1)
    return total


def _grouped_squares(layer: Product, x: Tensor, slopes: Tensor) -> Tensor:
    """Each sample as a group of one convolution, whose weight gradient is then each sample's own: [out, in, k, k]."""
    shape, total = layer.weight.shape, x.new_zeros(layer.weight.shape)
    step = max(1, BUFFER // layer.weight.numel())
    for some, g in zip(x.split(step), slopes.split(step), strict=True):
        found = _weight_gradient(
            some.flatten(0, 1)[None],
            (len(some) * shape[0], *shape[1:]),
            g.flatten(0, 1)[None],
            layer,
            len(some) * layer.groups,
        )
        total += found.square_().view(-1, *shape).sum(0)
    return total

"""The inverse Hessian, whole or in blocks of the weights that lead to one output."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pruneviz.curvature.layers import Gatherer, Recorder
from pruneviz.curvature.products import Product, exact, rows_of, slopes_of
from pruneviz.curvature.statistic import Rows
from pruneviz.door.loss import Loss
from pruneviz.door.network import Network
from pruneviz.door.parameters import named

KEEP = 2**30  # bytes of inverses that are kept; more are computed again when they are asked for
CHUNK = 2**27  # bytes of one temporary
PANEL = 256  # rows of a symmetric product that are computed at a time, up to the diagonal
NARROW = 8  # the same, where many blocks share their inputs' products
SHARERS = 16  # blocks that must share these products for them to pay


def inverse(rows: Tensor, alpha: float) -> Tensor:
    r"""The inverse of :math:`H = \alpha I + R^\top R` for rows R [..., r, b], in float64: [..., b, b].

    The recursion :math:`H^{-1} \leftarrow H^{-1} - H^{-1} X^\top (I + X H^{-1} X^\top)^{-1} X H^{-1}` over rows X (Hassibi &
    Stork 1993, section 3) with all rows in one step from :math:`H_0^{-1} = I / \alpha`:
    :math:`H^{-1} = (I - Z^\top Z) / \alpha` with :math:`Z = L^{-1} R` and :math:`L L^\top = \alpha I + R R^\top`. This takes
    :math:`r b^2 + 2 r^2 b + r^3/3` operations, H summed and inverted by Cholesky :math:`r b^2 + b^3` (products of a matrix
    with itself count half: one triangle is computed). The fewer are done: one step below about 0.68 b rows.
    """
    R = rows.double()
    if _sums(*R.shape[-2:]):
        return inverted_(_products(R), alpha)
    core = _products(R.mT)
    core.diagonal(dim1=-2, dim2=-1).add_(alpha)
    Z = torch.linalg.solve_triangular(torch.linalg.cholesky(core), R, upper=False)
    found = _products(Z, -1 / alpha)
    found.diagonal(dim1=-2, dim2=-1).add_(1 / alpha)
    return _mirrored_(found)


def inverted_(gram: Tensor, alpha: float) -> Tensor:
    r"""The inverse of alpha I + ``gram`` [..., b, b], of which only the lower triangle is read: by Cholesky, in its place."""
    gram.diagonal(dim1=-2, dim2=-1).add_(alpha)
    factor = gram.mT  # as LAPACK stores it
    failed = torch.empty(0, dtype=torch.int32, device=gram.device)
    torch.linalg.cholesky_ex(factor, upper=True, check_errors=True, out=(factor, failed))
    torch.cholesky_inverse(factor, upper=True, out=factor)
    return gram


def _sums(r: int, b: int) -> bool:
    """Whether H of r rows and b columns is rather summed and inverted than its inverse taken in one step."""
    return 2 * r * r * b + r**3 / 3 >= b**3


def _products(R: Tensor, scale: float = 1.0) -> Tensor:
    """The lower triangle of scale R^T R, [..., r, b] -> [..., b, b]; the rest is not to be read."""
    return _add_products_(R.new_zeros(*R.shape[:-2], R.shape[-1], R.shape[-1]), R, scale)


def _add_products_(gram: Tensor, R: Tensor, scale: float = 1.0) -> Tensor:
    """Add scale R^T R to the lower triangle of ``gram``, a panel of rows at a time up to the diagonal."""
    into, R = gram.view(-1, *gram.shape[-2:]), R.reshape(-1, *R.shape[-2:])
    for j in range(0, R.shape[-1], PANEL):
        k = j + PANEL
        into[:, j:k, :k].baddbmm_(R[..., j:k].mT, R[..., :k], alpha=scale)
    return gram


def _mirrored_(gram: Tensor) -> Tensor:
    """Copy the panels below the diagonal above it."""
    for j in range(PANEL, gram.shape[-1], PANEL):
        gram[..., :j, j : j + PANEL] = gram[..., j : j + PANEL, :j].mT
    return gram


@dataclass
class Blocks:
    """Diagonal blocks of one network's Hessian, of equal size, and their inverses.

    ``index`` [blocks, b]: which entry of the flat parameter vector each row of a block is; -1 where a block is filled up.
    ``rows(slice)`` gives R of some blocks [blocks, r, b] with H = alpha I + R^T R, ``count`` = r; ``gram(slice)``, where it
    is given, the lower triangle of R^T R in fewer operations, to be overwritten. A block that is alone keeps its inverse in
    the place of its products; of many they are kept as far as ``KEEP`` goes.
    """

    index: Tensor
    alpha: float
    count: int
    rows: Callable[[slice], Tensor] | None
    gram: Callable[[slice], Tensor] | None = None
    keeps: bool = True
    _kept: dict[int, Tensor] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """What all inverses take in float64."""
        blocks, b = self.index.shape
        return 8 * blocks * b * b

    def parts(self) -> list[slice]:
        """The blocks in portions whose temporaries stay small."""
        blocks, b = self.index.shape
        step = _step(b, 0 if self.gram else self.count)
        return [slice(i, min(i + step, blocks)) for i in range(0, blocks, step)]

    def inverse(self, part: slice) -> Tensor:
        """H^-1 of one of :meth:`parts`: [blocks, b, b]."""
        if part.start in self._kept:
            return self._kept[part.start]
        if self.gram:
            found = inverted_(self.gram(part), self.alpha)
        else:
            assert self.rows is not None
            found = inverse(self.rows(part), self.alpha)
        if self.keeps or len(self.index) == 1:
            self._kept[part.start] = found
        return found


def _step(b: int, rows: int) -> int:
    """How many blocks of size b, with so many rows each, are worked on at a time."""
    return max(1, CHUNK // (8 * b * (rows + 2 * b)))


class Portion(dict[str, tuple[Tensor, ...]]):
    """Some samples: weight -> its inputs' rows [n, l, in (+ 1)] and weighed slopes [k, n, l, out]; or, where it is no plain
    product, its gradients [k, n, out, in (+ 1)]. ``biases``: weight -> the bias that the last column belongs to."""

    def __init__(self) -> None:
        super().__init__()
        self.biases: dict[str, str] = {}

    @property
    def samples(self) -> tuple[int, int]:
        """How many slopes of how many samples."""
        several = next(iter(self.values()))[-1]
        return several.shape[0], several.shape[1]


def _rows(part: tuple[Tensor, ...]) -> Tensor:
    """The Jacobian's rows of one weight: [n, k, out, in (+ 1)]."""
    if len(part) == 1:
        return part[0].transpose(0, 1)
    a, g = part
    return torch.einsum("knlo,nli->nkoi", g, a)


class Waiting(Gatherer):
    """Rows and slopes, kept portion by portion."""

    KINDS = ("linear", "conv1d", "conv2d", "conv3d")

    def __init__(self, wanted: Rows, model: nn.Module):
        self._kept: list[tuple[dict[str, tuple[Tensor, list[Tensor]]], list[dict[str, Tensor]]]] = []
        self._network: Network | None = None

    def direct(self, product: Product) -> bool:
        return product.groups == 1

    def single(self, network: Network) -> tuple[str, ...]:
        own = [w for w in network.weights.values() if w.slope and w.kind in self.KINDS]
        return tuple(dict.fromkeys(name for w in own for name in (w.name, *w.biases)))

    def outputs(self, recorder: Recorder, outputs: Tensor, y: Tensor, loss: Loss) -> None:
        self._network = recorder.network
        self._kept.append(({}, []))

    def inputs(self, recorder: Recorder, name: str, x: Tensor) -> None:
        biased = bool(recorder.network.weights[name].biases)
        self._kept[-1][0][name] = (F.pad(rows_of(recorder.product(name), x), (0, int(biased)), value=1.0), [])

    def slope(self, recorder: Recorder, name: str, slope: Tensor, of: int) -> None:
        self._kept[-1][0][name][1].append(slopes_of(recorder.product(name), slope))

    def gradients(self, sample: int, gradients: dict[str, Tensor]) -> None:
        self._kept[-1][1].append(gradients)

    def found(self, seen: int) -> list[Portion]:
        return [self._portion(*kept) for kept in self._kept]

    def _portion(self, products: dict[str, tuple[Tensor, list[Tensor]]], singles: list[dict[str, Tensor]]) -> Portion:
        assert self._network is not None
        found = Portion()
        for name, weight in self._network.weights.items():
            if name in products:
                a, g = products[name]
                found[name] = (a, torch.stack(g))
            elif singles and name in singles[0]:
                several = torch.stack([one[name].flatten(2) for one in singles], 1)  # [k, n, out, in]
                if weight.biases:
                    bias = torch.stack([one[weight.biases[0]] for one in singles], 1)
                    several = torch.cat([several, bias[..., None]], 3)
                found[name] = (several,)
            else:
                continue
            if weight.biases:
                found.biases[name] = weight.biases[0]
        return found


def inverse_of(
    model: nn.Module,
    portions: Sequence[Portion],
    *,
    alpha: float,
    size: int | None = None,
    alive: Mapping[str, Tensor] | None = None,
) -> tuple[list[Blocks], dict[str, int]]:
    """The inverse of alpha I + the matrix whose rows are the statistic :class:`~pruneviz.curvature.statistic.Rows` of this network.

    Over all weights and biases of Linear layers and convolutions. ``size`` None: one full matrix. Else blocks of at most that
    many weights within an output's row, the bias in the row's last block. Parameters that ``alive`` says are gone
    are left out (their rows are those of alpha I). In evaluation mode and float64 (on the CPU where a device has none).

    Returns: the blocks, and where each parameter starts in the flat vector that they index.
    """
    offsets, total, params = {}, 0, named(model)
    for weight in portions[0]:
        for name in (weight, portions[0].biases.get(weight)):
            if name is not None:
                offsets[name], total = total, total + params[name].numel()
    keep = _flat_keep(model, offsets, total, alive or {})
    if size is None:
        return [_whole(portions, params, offsets, keep, alpha)], offsets
    made, left = [], KEEP
    for weight in portions[0]:
        parts = [portion[weight] for portion in portions]
        index = _index(params[weight], weight, portions[0].biases.get(weight), offsets, keep)
        if len(parts[0]) == 1:
            whole = torch.cat([part[0] for part in parts], 1)  # [k, n, out, in + bias]
            made.append(_rowwise_of_gradients(index, whole, keep, alpha, size))
        else:
            a, g = torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts], 1)
            made.append(_rowwise(index, a, g, keep, alpha, size))  # [n, l, in + bias], [k, n, l, out]
        made[-1].keeps = made[-1].bytes <= left
        left -= made[-1].bytes if made[-1].keeps else 0
    return made, offsets


def _index(parameter: Tensor, weight: str, bias: str | None, offsets: Mapping[str, int], keep: Tensor) -> Tensor:
    """Where a layer's weights, and behind each row its bias, stand in the flat vector: [out, in (+ 1)]."""
    out = len(parameter)
    index = torch.arange(parameter.numel(), device=keep.device).view(out, -1) + offsets[weight]
    if bias is None:
        return index
    return torch.cat([index, torch.arange(out, device=keep.device)[:, None] + offsets[bias]], 1)


def _whole(
    portions: Sequence[Portion], params: Mapping[str, Tensor], offsets: Mapping[str, int], keep: Tensor, alpha: float
) -> Blocks:
    """One block of everything. As soon as there are as many rows as columns, only their products are kept."""
    biases, n, gram, waiting = portions[0].biases, 0, None, []
    index = torch.cat([_index(params[w], w, biases.get(w), offsets, keep).flatten() for w in portions[0]])
    for portion in (part for whole in portions for part in _split(whole)):
        found = [_rows(part).flatten(0, 1).flatten(1) for part in portion.values()]
        waiting.append(torch.cat([r.to(keep.device) for r in found], 1).double() * keep[index])
        n += portion.samples[1]
        if sum(map(len, waiting)) >= len(index):
            gram = keep.new_zeros(len(index), len(index)) if gram is None else gram
            for r in waiting:
                _add_products_(gram, r)
            waiting = []
    if gram is None:
        R = torch.cat(waiting) / n**0.5
        return Blocks(index[None], alpha, len(R), lambda _: R[None])
    for r in waiting:
        _add_products_(gram, r)
    H = gram.div_(n)[None]
    return Blocks(index[None], alpha, len(index), None, lambda _: H)


def _split(portion: Portion) -> Iterator[Portion]:
    """The same samples, few enough that their rows over all parameters stay small."""
    width = sum(part[0].shape[-1] * part[-1].shape[-1 if len(part) > 1 else 2] for part in portion.values())
    k, n = portion.samples
    step = max(1, CHUNK // (8 * k * width))
    for i in range(0, n, step):
        some = Portion()
        for weight, (first, *others) in portion.items():
            some[weight] = (first[i : i + step], others[0][:, i : i + step]) if others else (first[:, i : i + step],)
        yield some


def _flat_keep(model: nn.Module, offsets: Mapping[str, int], total: int, alive: Mapping[str, Tensor]) -> Tensor:
    """1 for each parameter that takes part, 0 for those gone: [total] float64, where float64 is to be had."""
    device = next(model.parameters()).device
    keep = torch.ones(total, dtype=torch.float64, device="cpu" if device.type == "mps" else device)
    for name, kept in alive.items():
        if name not in offsets:
            continue
        keep[offsets[name] : offsets[name] + kept.numel()] = kept.flatten().to(keep)
    return keep


def _rowwise_of_gradients(index: Tensor, whole: Tensor, keep: Tensor, alpha: float, size: int) -> Blocks:
    """The same as :func:`_rowwise`, of gradients [k, n, out, width] in place of products."""
    (out, width), n = index.shape, whole.shape[1]
    pieces, b, index = _pieces(index, size)
    taking_part = keep[index.clamp(min=0)] * (index >= 0)  # [blocks, b]
    padded = F.pad(whole, (0, pieces * b - width)).flatten(0, 1).unflatten(2, (pieces, b))  # [k n, out, pieces, b]

    def rows(part: slice) -> Tensor:
        found = [padded[:, block % out, block // out] for block in range(part.start, part.stop)]
        return torch.stack(found).to(keep.device).double() / n**0.5 * taking_part[part, None]

    return Blocks(index, alpha, len(padded), rows)


def _pieces(index: Tensor, size: int) -> tuple[int, int, Tensor]:
    """Each output's row [out, width] in pieces of nearly equal length: how many, how long, their index [pieces out, b]."""
    out, width = index.shape
    pieces = -(-width // size)
    b = -(-width // pieces)
    index = (
        F.pad(index, (0, pieces * b - width), value=-1).view(out, pieces, b).transpose(0, 1).reshape(pieces * out, b)
    )
    return pieces, b, index


def _rowwise(index: Tensor, a: Tensor, g: Tensor, keep: Tensor, alpha: float, size: int) -> Blocks:
    """Blocks of one layer: each output's row [out, width] in pieces of nearly equal length, all first pieces first."""
    (out, width), n = index.shape, len(a)
    pieces, b, index = _pieces(index, size)
    taking_part = keep[index.clamp(min=0)] * (index >= 0)  # [blocks, b]
    patterns = F.pad(a, (0, pieces * b - width)).view(*a.shape[:2], pieces, b)  # [n, l, pieces, b]
    if a.shape[1] > 1:

        def rows(part: slice) -> Tensor:
            found = []
            for block in range(part.start, part.stop):
                piece, o = divmod(block, out)
                found.append(torch.einsum("knl,nli->kni", g[..., o], patterns[:, :, piece]).flatten(0, 1))
            return torch.stack(found).to(keep.device).double() / n**0.5 * taking_part[part, None]

        return Blocks(index, alpha, len(a) * len(g), rows)

    # one position: an output's rows are the inputs times a number, so the k slopes of a sample are one row
    strength = exact(g[:, :, 0]).square().sum(0).to(keep.device) / n  # [n, out]
    inputs = exact(patterns[:, 0]).to(keep.device)  # [n, pieces, b]

    def single(part: slice) -> Tensor:
        blocks = torch.arange(part.start, part.stop, device=keep.device)
        found = strength.sqrt().T[blocks % out, :, None] * inputs.transpose(0, 1)[blocks // out]
        return found * taking_part[part, None]

    def gram(part: slice) -> Tensor:
        found = keep.new_zeros(part.stop - part.start, b, b)
        for piece in range(part.start // out, (part.stop - 1) // out + 1):
            first, last = max(part.start, piece * out), min(part.stop, (piece + 1) * out)
            into = found[first - part.start : last - part.start]
            weights = strength[:, first - piece * out : last - piece * out]
            for j in range(0, b, NARROW):
                k = min(j + NARROW, b)
                total = keep.new_zeros(last - first, (k - j) * k)
                for s, x in zip(weights.split(PANEL), inputs[:, piece].split(PANEL), strict=True):
                    total.addmm_(s.T, (x[:, j:k, None] * x[:, None, :k]).flatten(1))  # one product for all outputs
                into[:, j:k, :k] = total.view(-1, k - j, k)
        taken = taking_part[part]
        return found.mul_(taken[:, :, None]).mul_(taken[:, None])

    shared = _sums(n, b) and min(out, _step(b, 0)) >= SHARERS
    return Blocks(index, alpha, n, single, gram if shared else None)

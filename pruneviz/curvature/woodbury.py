"""The inverse Hessian, whole or in blocks of the weights that lead to one output."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pruneviz.curvature.gradients import untouched
from pruneviz.curvature.kronecker import cotangents
from pruneviz.curvature.layers import Recorder
from pruneviz.loss import CROSS_ENTROPY, Loss

KEEP = 2**30  # bytes of inverses that are kept; more are computed again when they are asked for
PORTION = 250  # samples that go through the network at a time
CHUNK = 2**27  # bytes of one temporary


def inverse(rows: Tensor, alpha: float, *, batch: int = 256) -> Tensor:
    r"""The inverse of :math:`H = \alpha I + R^\top R` for rows R [..., r, b], in float64: [..., b, b].

    By the recursion :math:`H^{-1} \leftarrow H^{-1} - H^{-1} X^\top (I + X H^{-1} X^\top)^{-1} X H^{-1}` over batches X of
    rows, from :math:`H_0^{-1} = I / \alpha` (Hassibi & Stork 1993, section 3, one row at a time there), as long as there
    are fewer rows than columns; else H is summed and inverted at once, which then takes fewer operations.
    """
    R = rows.double()
    r, b = R.shape[-2:]
    if r >= b:
        return _inverted(R.mT @ R, alpha)
    eye = torch.eye(b, dtype=R.dtype, device=R.device)
    found = (eye / alpha).expand(*R.shape[:-2], b, b).clone()
    for X in R.split(batch, -2):
        right = found @ X.mT  # [..., b, k]
        core = X @ right
        core.diagonal(dim1=-2, dim2=-1).add_(1.0)
        half = torch.linalg.solve_triangular(torch.linalg.cholesky(core), right.mT, upper=False)  # [..., k, b]
        found -= half.mT @ half
    return found


def _inverted(gram: Tensor, alpha: float) -> Tensor:
    eye = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    return torch.cholesky_inverse(torch.linalg.cholesky(gram + alpha * eye))


@dataclass
class Blocks:
    """Diagonal blocks of one network's Hessian, of equal size, and their inverses.

    ``index`` [blocks, b]: which entry of the flat parameter vector each row of a block is; -1 where a block is filled up.
    ``rows(slice)`` gives R of some blocks [blocks, r, b] with H = alpha I + R^T R, ``count`` = r; ``gram(slice)``, where it
    is given, R^T R itself in fewer operations.
    """

    index: Tensor
    alpha: float
    count: int
    rows: Callable[[slice], Tensor] | None
    gram: Callable[[slice], Tensor] | None = None
    _kept: dict[int, Tensor] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """What all inverses take in float64."""
        blocks, b = self.index.shape
        return 8 * blocks * b * b

    def parts(self) -> list[slice]:
        """The blocks in portions whose temporaries stay small."""
        blocks, b = self.index.shape
        step = max(1, CHUNK // (8 * b * (3 * b if self.gram else self.count + 3 * b)))
        return [slice(i, min(i + step, blocks)) for i in range(0, blocks, step)]

    def inverse(self, part: slice) -> Tensor:
        """H^-1 of one of :meth:`parts`: [blocks, b, b]."""
        if part.start in self._kept:
            return self._kept[part.start]
        if self.gram:
            found = _inverted(self.gram(part), self.alpha)
        else:
            assert self.rows is not None
            found = inverse(self.rows(part), self.alpha)
        if self.bytes <= KEEP:
            self._kept[part.start] = found
        return found


def inverse_hessian(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    alpha: float,
    size: int | None = None,
    loss: Loss = CROSS_ENTROPY,
    alive: Mapping[str, Tensor] | None = None,
) -> tuple[list[Blocks], dict[str, int]]:
    r"""The inverse of :math:`H = \alpha I + \frac1n \sum_i X_i^\top A_i X_i`, X the Jacobian of the outputs, A the loss's
    Hessian there (the Gauss-Newton Hessian; Hassibi & Stork 1993, section 3, for several outputs and any loss).

    Over all weights and biases of Linear and Conv2d layers. ``size`` None: one full matrix. Else blocks of at most that
    many weights within an output's row, the bias in the row's last block. Parameters that ``alive`` says are gone
    are left out (their rows are those of alpha I). In evaluation mode and float64 (on the CPU where a device has none).

    Returns: the blocks, and where each parameter starts in the flat vector that they index.
    """
    offsets, total = {}, 0
    for prefix, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            for kind, parameter in module.named_parameters(prefix, recurse=False):
                offsets[kind], total = total, total + parameter.numel()
    keep = _flat_keep(model, offsets, total, alive or {})
    portions = _sweep(model, batches, loss)
    if size is None:
        return [_whole(portions, offsets, keep, alpha)], offsets
    inputs: dict[str, list[Tensor]] = {}
    slopes: dict[str, list[Tensor]] = {}
    for portion in portions:
        for layer, (a, g) in portion.items():
            inputs.setdefault(layer, []).append(a)
            slopes.setdefault(layer, []).append(g)
    made = []
    for layer, parts in inputs.items():
        a, g = torch.cat(parts), torch.cat(slopes[layer], 1)  # [n, l, in + bias], [k, n, l, out]
        made.append(_rowwise(_index(layer, a, g, offsets, keep), a, g, keep, alpha, size))
    return made, offsets


def _sweep(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], loss: Loss
) -> Iterator[dict[str, tuple[Tensor, Tensor]]]:
    """Portions of samples: layer -> rows [n, l, in (+ 1 for the bias)] and weighed slopes [k, n, l, out]."""
    with untouched(model), Recorder(model) as recorder:
        parts = (part for x, y in batches for part in zip(x.split(PORTION), y.split(PORTION), strict=True))
        for x, y in parts:
            recorder.clear()
            outputs = model(x)
            found: dict[str, list[Tensor]] = {name: [] for name in recorder.outputs}
            for slope in cotangents(loss, outputs, y, "exact", 1, None):
                for name, g in recorder.gradients(slope, outputs).items():
                    found[name].append(g)
            yield {
                name: (
                    F.pad(recorder.rows(name), (0, int(recorder.layers[name].bias is not None)), value=1.0),
                    torch.stack(gs),
                )
                for name, gs in found.items()
            }


def _index(layer: str, a: Tensor, g: Tensor, offsets: Mapping[str, int], keep: Tensor) -> Tensor:
    """Where a layer's weights, and behind each row its bias, stand in the flat vector: [out, in (+ 1)]."""
    weight, bias = (f"{layer}.{kind}" if layer else kind for kind in ("weight", "bias"))
    out, biased = g.shape[3], bias in offsets
    ins = a.shape[2] - biased
    index = torch.arange(out * ins, device=keep.device).view(out, ins) + offsets[weight]
    if not biased:
        return index
    return torch.cat([index, torch.arange(out, device=keep.device)[:, None] + offsets[bias]], 1)


def _whole(
    portions: Iterable[dict[str, tuple[Tensor, Tensor]]], offsets: Mapping[str, int], keep: Tensor, alpha: float
) -> Blocks:
    """One block of everything. As soon as there are as many rows as columns, only their products are kept."""
    index, n, gram, waiting = torch.empty(0), 0, None, []
    for portion in portions:
        index = torch.cat([_index(layer, a, g, offsets, keep).flatten() for layer, (a, g) in portion.items()])
        found = [torch.einsum("knlo,nli->nkoi", g, a).flatten(0, 1).flatten(1) for a, g in portion.values()]
        waiting.append(torch.cat([r.to(keep.device) for r in found], 1).double() * keep[index])
        n += len(next(iter(portion.values()))[0])
        if sum(map(len, waiting)) >= len(index):
            gram = sum((r.T @ r for r in waiting), start=torch.zeros((), dtype=keep.dtype) if gram is None else gram)
            waiting = []
    if gram is None:
        R = torch.cat(waiting) / n**0.5
        return Blocks(index[None], alpha, len(R), lambda _: R[None])
    H = sum((r.T @ r for r in waiting), start=gram) / n
    return Blocks(index[None], alpha, len(index), None, lambda _: H[None])


def _flat_keep(model: nn.Module, offsets: Mapping[str, int], total: int, alive: Mapping[str, Tensor]) -> Tensor:
    """1 for each parameter that takes part, 0 for those gone: [total] float64, where float64 is to be had."""
    device = next(model.parameters()).device
    keep = torch.ones(total, dtype=torch.float64, device="cpu" if device.type == "mps" else device)
    for name, kept in alive.items():
        keep[offsets[name] : offsets[name] + kept.numel()] = kept.flatten().to(keep)
    return keep


def _rowwise(index: Tensor, a: Tensor, g: Tensor, keep: Tensor, alpha: float, size: int) -> Blocks:
    """Blocks of one layer: each output's row [out, width] in pieces of nearly equal length, all first pieces first."""
    (out, width), n = index.shape, len(a)
    pieces = -(-width // size)
    b = -(-width // pieces)
    padding = pieces * b - width
    index = F.pad(index, (0, padding), value=-1).view(out, pieces, b).transpose(0, 1).reshape(pieces * out, b)
    taking_part = keep[index.clamp(min=0)] * (index >= 0)  # [blocks, b]
    patterns = F.pad(a, (0, padding)).view(*a.shape[:2], pieces, b)  # [n, l, pieces, b]
    if a.shape[1] > 1:

        def rows(part: slice) -> Tensor:
            found = []
            for block in range(part.start, part.stop):
                piece, o = divmod(block, out)
                found.append(torch.einsum("knl,nli->kni", g[..., o], patterns[:, :, piece]).flatten(0, 1))
            return torch.stack(found).to(keep.device).double() / n**0.5 * taking_part[part, None]

        return Blocks(index, alpha, len(a) * len(g), rows)

    # one position: an output's rows are the inputs times a number, so the k slopes of a sample are one row
    strength = g[:, :, 0].double().square().sum(0).to(keep.device) / n  # [n, out]
    inputs = patterns[:, 0].double().to(keep.device)  # [n, pieces, b]

    def single(part: slice) -> Tensor:
        blocks = torch.arange(part.start, part.stop, device=keep.device)
        found = strength.sqrt().T[blocks % out, :, None] * inputs.transpose(0, 1)[blocks // out]
        return found * taking_part[part, None]

    def gram(part: slice) -> Tensor:
        found = []
        for piece in range(part.start // out, (part.stop - 1) // out + 1):
            first, last = max(part.start, piece * out) - piece * out, min(part.stop - piece * out, out)
            x = inputs[:, piece]
            products = (x[:, :, None] * x[:, None]).flatten(1)  # [n, b b]: shared by all outputs
            found.append((strength[:, first:last].T @ products).view(-1, b, b))
        return torch.cat(found) * taking_part[part, :, None] * taking_part[part, None]

    small = len(a) >= b and 8 * len(a) * b * b <= CHUNK
    return Blocks(index, alpha, len(a), single, gram if small else None)

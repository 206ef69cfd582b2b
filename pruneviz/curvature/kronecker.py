"""Kronecker factors of the Fisher (K-FAC)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pruneviz.basics.errors import UnsupportedLayer
from pruneviz.curvature.layers import Gatherer, Recorder
from pruneviz.curvature.products import exact, gram, groups_of, inputs_gram, rows_of, slopes_gram
from pruneviz.curvature.statistic import Kronecker
from pruneviz.door.loss import Loss
from pruneviz.door.network import Network

EXACT = 2048  # rows up to which eigenvalues are taken in float64
SURE = 1e7  # times machine precision: least share of the largest eigenvalue whose vector needs no orthogonalisation


class KroneckerFactors:
    r"""The pair of one layer, :math:`F_\ell \approx S \otimes A`. Shapes: ``A [in, in]``, ``S [out, out]``, symmetric.

    A convolution with groups has a pair for each: ``A [groups, in, in]``, ``S [groups, out / groups, out / groups]``.
    Of few samples A is kept as ``rows [r, in]``, r < in, with :math:`A = R^\top R`; ``A`` is then built when asked for.
    """

    def __init__(self, A: Tensor | None, S: Tensor, *, rows: Tensor | None = None):
        assert (A is None) != (rows is None), "A, or rows in its place"
        self._A, self.S, self.rows = A, S, rows

    @property
    def A(self) -> Tensor:
        if self._A is not None:
            return self._A
        assert self.rows is not None
        return gram(self.rows)

    def eigh(self, *, complete: bool = True) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """(eigenvalues, eigenvectors) of A and of S; eigenvalues ascending, clamped at 0.

        ``complete=False``: where A is kept as r rows, only the r eigenvalues that can differ from 0, and their vectors
        [in, r]; in a fraction of the time.
        """
        of_inputs = spectral(self.A) if self.rows is None else spectral_of_rows(self.rows, complete=complete)
        return of_inputs, spectral(self.S)

    def eigenvalues(self) -> tuple[Tensor, Tensor]:
        """Of A and of S, ascending, clamped at 0, in float64 (on the CPU where a device has none): [in], [out], with groups [g, ...]."""
        found = []
        for matrix in (self._A if self.rows is None else gram(exact(self.rows).mT), self.S):
            assert matrix is not None
            found.append(torch.linalg.eigvalsh(exact(matrix)).clamp(min=0))
        if self.rows is not None:
            found[0] = F.pad(found[0], (self.rows.shape[1] - len(self.rows), 0))
        return found[0], found[1]

    def inverse(self, damping: float) -> KroneckerFactors:
        """Inverses of both factors, each damped by ``damping`` times its own mean eigenvalue."""
        return KroneckerFactors(*(inverted(m, damping).to(m) for m in (self.A, self.S)))

    def dense(self) -> Tensor:
        """``torch.kron(S, A)``, in the order of ``weight.flatten()``: [out * in, out * in]; block-diagonal with groups."""
        A = self.A
        if A.dim() == 2:
            return torch.kron(self.S, A)
        return torch.block_diag(*(torch.kron(s, a) for s, a in zip(self.S, A, strict=True)))


def inverted(matrix: Tensor, damping: float) -> Tensor:
    """The inverse of a symmetric positive matrix [..., n, n] with ``damping`` times its mean eigenvalue added, in float64.

    A matrix of zeros gives the identity. By Cholesky; where rounding left eigenvalues below -damping, by eigenvalues raised to 0.
    """
    own = exact(matrix)
    mean = own.diagonal(dim1=-2, dim2=-1).mean(-1)
    ridge = torch.where(mean > 0, damping * mean, 1.0)[..., None]
    damped = own + torch.diag_embed(ridge.expand(own.shape[:-1]))
    factor, failed = torch.linalg.cholesky_ex(damped)
    if not bool(failed.any()):
        return torch.cholesky_inverse(factor)
    values, vectors = torch.linalg.eigh(own)
    raised = values.clamp(min=0) + ridge.clamp(min=torch.finfo(torch.float64).eps * values.amax())
    return vectors / raised[..., None, :] @ vectors.mT


def _exact(tensor: Tensor, size: int) -> Tensor:
    """In float64 up to 2,048 rows; Apple's GPUs, which have none, have no eigenvalues either."""
    return exact(tensor) if size <= EXACT or tensor.device.type == "mps" else tensor


def spectral(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """(eigenvalues, eigenvectors), ascending, clamped at 0; up to 2,048 rows in float64."""
    values, vectors = torch.linalg.eigh(_exact(matrix, matrix.shape[-1]))
    return values.clamp(min=0).to(matrix), vectors.to(matrix)


def spectral_of_rows(rows: Tensor, *, complete: bool = True) -> tuple[Tensor, Tensor]:
    r"""(eigenvalues, eigenvectors) of :math:`R^\top R` for rows R [r, n], r <= n, through the small matrix :math:`R R^\top`.

    Both have the same eigenvalues but for n - r zeros, and where u belongs to one, :math:`R^\top u` does to the other. Where
    small eigenvalues leave these less than orthogonal, a QR decomposition from the largest down makes them so to rounding.
    ``complete`` adds the directions that no row has. Ascending, clamped at 0: [n], [n, n], or [r], [n, r].
    """
    r, n = rows.shape
    R = _exact(rows, r)
    values, vectors = spectral(gram(R.mT))  # [r], [r, r]
    V = R.mT @ vectors  # [n, r], of lengths sqrt(values)
    if not complete and bool(values[0] > SURE * torch.finfo(R.dtype).eps * values[-1]):
        return values.to(rows), (V / values.sqrt()).to(rows)
    reflectors, scales = torch.geqrf(V.flip(1))
    if complete:
        values = torch.cat([values.new_zeros(n - r), values])
        Q = _reflected(reflectors, scales)
    else:
        Q = torch.linalg.householder_product(reflectors, scales)
    return values.to(rows), Q.flip(1).to(rows)


def _reflected(reflectors: Tensor, scales: Tensor) -> Tensor:
    r"""The whole orthogonal matrix of Householder vectors V [n, r], by :math:`I - V T V^\top` (Schreiber & Van Loan 1989)."""
    V = reflectors.tril(-1)
    V.diagonal().fill_(1.0)
    inverse = (V.mT @ V).triu(1)  # of T; a reflector of scale 0 is no reflection
    inverse.diagonal().copy_(torch.where(scales == 0, 1.0, 1 / scales))
    V *= (scales != 0).to(V)
    half = torch.linalg.solve_triangular(inverse, V.mT, upper=True)  # T V^T
    found = -V @ half
    found.diagonal().add_(1.0)
    return found


class Factors(Gatherer):
    """Kronecker factors in the making, fed with portions of samples by the sweep."""

    def __init__(self, wanted: Kronecker, model: nn.Module):
        self._draws, self._without = max(1, wanted.slopes[1]), set(wanted.without)
        self._network: Network | None = None
        self._A: dict[str, Tensor] = {}
        self._rows: dict[str, list[Tensor]] = {}
        self._S: dict[str, Tensor] = {}

    def outputs(self, recorder: Recorder, outputs: Tensor, y: Tensor, loss: Loss) -> None:
        self._network = recorder.network
        for weight in (w for n, w in recorder.network.weights.items() if n not in self._without):
            if weight.uses > 1 and weight.kind in ("linear", "conv1d", "conv2d") and not weight.shared_with:
                raise UnsupportedLayer(
                    f"Layer {weight.layer!r} is used twice in one forward pass: its Kronecker factors would be wrong. "
                    f"Give each use its own layer, or leave it alone with skip={weight.layer!r}."
                )
            if weight.call and weight.inner is None:
                raise UnsupportedLayer(
                    f"Layer {weight.layer!r}: {weight.why}, so that its Kronecker factors cannot be told. "
                    f"Keep samples together on one axis, or leave it alone with skip={weight.layer!r}."
                )

    def inputs(self, recorder: Recorder, name: str, x: Tensor) -> None:
        layer, positions = recorder.product(name), recorder.use(name).positions
        columns = layer.weight[0].numel()
        waiting = self._rows.setdefault(name, [])
        few = sum(map(len, waiting)) + len(x) * positions < columns and groups_of(layer) == 1
        if few and name not in self._A:
            waiting.append(rows_of(layer, x).flatten(0, 1))
            return
        found = inputs_gram(layer, x)
        if waiting:
            found += gram(torch.cat(waiting))
            waiting.clear()
        self._A[name] = self._A[name].add_(found) if name in self._A else found

    def slope(self, recorder: Recorder, name: str, slope: Tensor, of: int) -> None:
        found = slopes_gram(recorder.product(name), slope) / recorder.use(name).positions
        self._S[name] = self._S[name].add_(found) if name in self._S else found

    def found(self, seen: int) -> dict[str, KroneckerFactors]:
        made = {}
        for name, total in self._S.items():
            assert self._network is not None
            layer = self._network.weights[name].layer
            S = total / (seen * self._draws)
            rows = self._rows.get(name)
            if rows:
                made[layer] = KroneckerFactors(None, S, rows=torch.cat(rows) / seen**0.5)
            else:
                made[layer] = KroneckerFactors(self._A[name] / seen, S)
        return made

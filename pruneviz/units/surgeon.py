"""Optimal Brain Surgeon's arithmetic: which units leave in what order, and how the survivors move."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import torch
from torch import Tensor

from pruneviz.curvature.woodbury import Blocks
from pruneviz.units.choice import tie_ranks

PENDING = 64  # downdates that wait before they are written into the inverse, in one matrix product


def deletions(inverse: Tensor, values: Tensor, free: Tensor, ranks: Tensor | None = None) -> tuple[Tensor, Tensor]:
    r"""Greedy deletion to the end, in many blocks at once: the order [blocks, b] and the loss of each step [blocks, b].

    At each step the free unit of least :math:`w_q^2 / (2 [H^{-1}]_{qq})` leaves, the others move by
    :math:`-w_q / [H^{-1}]_{qq} \, H^{-1} e_q`, and H^-1 is downdated to the survivors,
    :math:`H^{-1} \leftarrow H^{-1} - h_q h_q^\top / h_{qq}` (Hassibi & Stork 1993, section 2). Downdates are kept as
    vectors and written in together. Shapes: ``inverse`` [blocks, b, b], ``values`` [blocks, b], ``free`` [blocks, b] bool.
    Where a block has fewer free units than steps, the rest of its order is -1 and the loss is infinite. Units that are 0 cost
    nothing and leave first: in the order of ``ranks`` [blocks, b], or of their places.
    """
    G, w, alive = inverse.clone(), values.clone().to(inverse), free.clone()
    blocks, b = w.shape
    diagonal = G.diagonal(dim1=1, dim2=2).clone()
    each = torch.arange(blocks, device=G.device)
    pending = torch.zeros(blocks, min(PENDING, b), b, dtype=G.dtype, device=G.device)
    filled = 0
    order = torch.full((blocks, b), -1, dtype=torch.long, device=G.device)
    losses = torch.full((blocks, b), torch.inf, dtype=G.dtype, device=G.device)
    ties = (
        0 if ranks is None else int((free & (w == 0)).sum(1).max())
    )  # steps at which some block removes a unit that is 0
    for step in range(int(free.sum(1).max())):
        if filled == pending.shape[1]:
            G.baddbmm_(pending.mT, pending, alpha=-1)
            filled = 0
        rise = torch.where(alive, w.square() / (2 * diagonal), torch.inf)
        least, q = rise.min(1)
        if ranks is not None and step < ties:
            q = torch.where(rise == least[:, None], ranks, torch.inf).argmin(1)
        going = torch.isfinite(least)
        order[:, step] = torch.where(going, q, -1)
        losses[:, step] = least
        h = G[each, q]
        if filled:
            u = pending[:, :filled]
            h = h - (u[each, :, q][:, None] @ u)[:, 0]
        h_qq = diagonal[each, q]
        h = torch.where(going[:, None], h, 0.0)
        w -= h * (w[each, q] / h_qq)[:, None]
        u = h / h_qq.sqrt()[:, None]
        pending[:, filled] = u
        filled += 1
        alive[each, q] = False
        diagonal -= u.square()
        diagonal.clamp_(min=torch.finfo(G.dtype).tiny)  # rounding must not turn a survivor's variance negative
        w[~alive & free] = 0.0
    return order, losses


def moved(inverse: Tensor, values: Tensor, gone: Tensor) -> Tensor:
    r"""The values after the units ``gone`` are zero and the others moved to the least rise: [blocks, b].

    :math:`\delta w = - H^{-1}_{:,P} (H^{-1}_{P,P})^{-1} w_P`: what the single deletions of a set P add up to, in any order.
    """
    w = values.to(inverse)
    both = gone[:, :, None] & gone[:, None, :]
    core = torch.where(both, inverse, torch.eye(w.shape[1], dtype=w.dtype, device=w.device))
    x = torch.cholesky_solve(torch.where(gone, w, 0.0)[:, :, None], torch.linalg.cholesky(core))
    found = w - (inverse @ x)[:, :, 0]
    return torch.where(gone, 0.0, found)


class Surgery:
    """One network's blocks of H^-1, and what follows from them. Parameters by name, shaped like the network's."""

    def __init__(
        self,
        blocks: Sequence[Blocks],
        offsets: Mapping[str, int],
        params: Mapping[str, Tensor],
        alive: Mapping[str, Tensor],
        *,
        seed: int = 0,
    ):
        """``offsets`` and ``blocks`` as inverse_hessian gives them; only units that ``alive`` lists, and keeps, may leave.

        ``seed`` decides in which order units leave that are 0 to begin with.
        """
        self.blocks, self.offsets = blocks, offsets
        self.shapes = {name: params[name].shape for name in offsets}
        device = blocks[0].index.device
        self.values = torch.cat([params[name].detach().flatten().to(device).double() for name in offsets])
        self.free = torch.zeros(len(self.values), dtype=torch.bool, device=device)
        for name, kept in alive.items():
            self.free[self._span(name)] = kept.flatten().to(device)
        self._seed = seed

    def saliencies(self) -> dict[str, Tensor]:
        """The rise of the loss when one unit leaves and all others move; 0 for those gone before."""
        found = torch.zeros_like(self.values)
        for blocks in self.blocks:
            for part in blocks.parts():
                index = blocks.index[part]
                diagonal = blocks.inverse(part).diagonal(dim1=1, dim2=2)
                rise = self._read(self.values, index).square() / (2 * diagonal)
                found[index[index >= 0]] = rise[index >= 0]
        self._scored = self._named(torch.where(self.free, found, 0.0))
        return self._scored

    def scored(self, name: str, values: Tensor) -> bool:
        """Whether these are still the saliencies found here: a control may have shuffled or inverted them."""
        return torch.equal(self._scored[name].flatten().to(values), values)

    @cached_property
    def ranks(self) -> dict[str, Tensor]:
        """The place of each free unit in one order of deletions over all blocks, lowest first.

        Within a block the order is the greedy one; between blocks the recorded losses decide, each raised to the highest
        before it in its block, so that every prefix of the whole order is a prefix in every block. Units that are 0 leave
        first, each parameter losing the same share of them.
        """
        zero, ties = self._zeros()
        loss = torch.full_like(self.values, -1.0)
        step = torch.zeros_like(self.values)
        for blocks in self.blocks:
            for part in blocks.parts():
                index = blocks.index[part]
                free = self._read(self.free, index) & (index >= 0)
                if not free.any():
                    continue
                drawn = None if ties is None else self._read(ties, index)
                order, losses = deletions(blocks.inverse(part), self._read(self.values, index), free, drawn)
                done = order >= 0
                places = torch.gather(index, 1, order.clamp(min=0))[done]
                loss[places] = losses.cummax(1).values[done]
                step[places] = torch.arange(order.shape[1], device=order.device).expand_as(order)[done].double()
        if ties is not None:
            step = torch.where(zero & (loss == 0), ties, step)
        first = torch.argsort(step, stable=True)
        order = first[torch.argsort(loss[first], stable=True)]
        ranks = torch.empty_like(self.values)
        ranks[order] = torch.arange(len(order), dtype=ranks.dtype, device=ranks.device)
        return self._named(ranks)

    def _zeros(self) -> tuple[Tensor, Tensor | None]:
        """The free units that are 0, bool, and in which order they leave; None where there are none."""
        zero = self.free & (self.values == 0)
        if not zero.any():
            return zero, None
        parts = [tie_ranks(zero[self._span(name)], name, self._seed) for name in self.offsets]
        return zero, torch.cat(parts).to(self.values)

    def repaired(self, keep: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """All values once ``keep`` decides who leaves: those gone, now or before, are zero, the others have moved."""
        gone = torch.zeros_like(self.free)
        for name, kept in keep.items():
            gone[self._span(name)] = ~kept.flatten().to(gone.device)
        before = gone & ~self.free
        gone &= self.free
        found = self.values.clone()
        for blocks in self.blocks:
            for part in blocks.parts():
                index = blocks.index[part]
                leaving = self._read(gone, index) & (index >= 0)
                if leaving.any():
                    new = moved(blocks.inverse(part), self._read(self.values, index), leaving)
                    found[index[index >= 0]] = new[index >= 0]
        found[before] = 0.0
        return self._named(found)

    def without(self, name: str, place: int) -> dict[str, Tensor]:
        """All values once one unit (flat ``place`` in its parameter) is gone and the others of its block have moved."""
        at = self.offsets[name] + place
        found = self.values.clone()
        for blocks in self.blocks:
            hit = (blocks.index == at).nonzero()
            if len(hit):
                block, q = hit[0].tolist()
                part = next(p for p in blocks.parts() if p.start <= block < p.stop)
                h = blocks.inverse(part)[block - part.start, :, q]
                index = blocks.index[block]
                real = index >= 0
                found[index[real]] -= (h * (self.values[at] / h[q]))[real]
        found[at] = 0.0
        return self._named(found)

    def _span(self, name: str) -> slice:
        return slice(self.offsets[name], self.offsets[name] + self.shapes[name].numel())

    @staticmethod
    def _read(flat: Tensor, index: Tensor) -> Tensor:
        found = flat[index.clamp(min=0)]
        return torch.where(index >= 0, found, torch.zeros_like(found))

    def _named(self, flat: Tensor) -> dict[str, Tensor]:
        return {name: flat[self._span(name)].view(shape) for name, shape in self.shapes.items()}

"""Kron-OBS: filters leave and the others move, Wang et al. 2019."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf, nextafter
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from pruneviz.basics.errors import Unsuitable
from pruneviz.methods._kronecker import WANG, FilterMethod, KroneckerMethod, filter_rows
from pruneviz.methods.base import Card, Start, Unit
from pruneviz.methods.kron_obd import mixed, spread

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from pruneviz.curvature.kronecker import KroneckerFactors
    from pruneviz.curvature.task import Task
    from pruneviz.units.masks import Group, Mask, Scores


ORDER = 61
PENDING = 64  # removals that wait before they are written into the matrices


@dataclass(frozen=True)
class _Plan:
    """What choose and repaired read again, group by group: the scores as found, the inverse of S, and the greedy order."""

    scores: dict[Group, Tensor]
    inverses: dict[Group, Tensor]  # [g, out / g, out / g], float64
    orders: dict[Group, tuple[Tensor, Tensor]]  # filters in the order of their removal, and the rise at each


class KronObs(FilterMethod, KroneckerMethod):
    """The rise of the loss when a filter leaves and the layer's other filters move to make up for it."""

    card = Card(
        key="kron-obs",
        title="Kron-OBS",
        idea="When a filter leaves, let the layer's other filters move to make up for it, and remove the one that then costs least.",
        formula=r"s_j = \frac{F_j^\top A\, F_j}{2\,[S^{-1}]_{jj}}, \qquad "
        r"\delta F = - S^{-1}_{:,P}\,\big(S^{-1}_{P,P}\big)^{-1} F_P",
        symbols=(
            (r"F_j", "weights of filter j, as one long vector"),
            (r"A", "how the layer's inputs (patches, for a convolution) vary together"),
            (r"S", "how the slopes at the layer's outputs vary together"),
            (r"P", "the filters that leave"),
            (r"\delta F", "how the layer's other filters move when they leave"),
        ),
        criterion="loss rise, filters moved",
        starts=Start.TRAINED,
        unit=Unit.FILTER,
        predicts=True,
        schema=2,  # labels are drawn by the seed alone
        paper=replace(WANG, section="sections 3.2 and 4, Kron-OBS"),
        steps=(
            "Train the network.",
            "Measure how inputs and slopes of each layer vary together: the Kronecker factors A and S.",
            "Find the filter that costs least to remove once the layer's others have moved; remove it and move them.",
            "Downdate the inverse of S to the survivors and repeat; between layers, the recorded costs decide.",
            "Train again.",
        ),
        departures=(
            "joint=false adds up the moves of single removals and ranks by the first scores, as the authors' code does: "
            "removed filters then push each other.",
            "quadratic=row-sum scores squared weights times the row sums of A, as the authors' code does, not the quadratic form.",
            "damping is relative to the mean eigenvalue of S; an absolute 1e-3 would drown S, whose eigenvalues are small. Where the "
            "training loss is nearly 0, few samples carry S, and 1e-2 does better than 1e-6.",
            "The last layer is left out, and at most 95% of a layer's filters leave, as in the authors' code.",
        ),
        colour="#a878fa",
        mark="hexagon",
    )  # fmt: skip
    quadratic: Literal["exact", "row-sum"] = Field(
        "exact", description="The quadratic form, or squared weights times row sums of A"
    )
    joint: bool = Field(True, description="Filters that leave together are moved for together")

    def score(self, model: nn.Module, task: Task, mask: Mask) -> Scores:
        import torch

        from pruneviz.units.choice import tie_ranks
        from pruneviz.units.masks import Scores

        factors = self.factors(model, task)
        values, inverses, orders = {}, {}, {}
        for group in mask.units:
            own, rows = factors[group.layer], filter_rows(model, group)
            inverses[group] = inverse(own.S, self.damping, mask.units[group], group.layer)
            diagonal = inverses[group].diagonal(dim1=1, dim2=2).flatten()
            values[group] = spread(rows, own, self.quadratic) / (2 * diagonal).to(rows.dtype).to(rows.device)
            if self.joint:
                ranks = tie_ranks(torch.zeros(group.size), group.name, task.seed)
                most = mask.layout.most(group) if mask.layout is not None else group.size
                free = mask.may_leave(group)
                orders[group] = deletions(rows, own, inverses[group], free, self.quadratic, ranks, most)
        return Scores(values, _Plan(values, inverses, orders))

    def ranked(self, scores: Scores, mask: Mask, scope: str, seed: int = 0) -> Mapping[Group, Tensor]:
        """The greedy order of each layer, its recorded costs raised to the highest before, so that prefixes agree."""
        import torch

        plan: _Plan = scores.plan
        same = all(torch.equal(plan.scores[g], v) for g, v in scores.values.items())
        if not (self.joint and same):  # a control shuffled or inverted them
            return super().ranked(scores, mask, scope, seed)
        found = {}
        for group, (order, losses) in plan.orders.items():
            value = torch.full((group.size,), torch.inf, dtype=torch.float64)
            if scope == "global":
                value[order] = _rising(losses)
            else:
                gone = int((~mask.units[group]).sum())
                value[order] = (gone + torch.arange(len(order), dtype=torch.float64)) / group.size
            found[group] = value
        return found

    def repaired(self, model: nn.Module, task: Task, scores: Scores, mask: Mask) -> dict[str, Tensor]:
        import torch

        from pruneviz.curvature.layers import layer_called
        from pruneviz.curvature.products import exact
        from pruneviz.units.filters import Filters

        found = {}
        for group, inverse in scores.plan.inverses.items():
            gone = ~mask.units[group].view(len(inverse), -1)
            if not bool(gone.any()):
                continue
            layer = layer_called(group.layer, model)
            rows = exact(layer.weight.detach()).reshape(*gone.shape, -1)
            gone = gone.to(inverse.device)
            moved = rows.clone()
            for g in range(len(inverse)):
                moved[g] += _move(inverse[g], rows[g], gone[g], joint=self.joint)
            found[f"{group.layer}.weight"] = (
                torch.where(gone[..., None], 0, moved).reshape(layer.weight.shape).to(layer.weight)
            )
            there = mask.layout.there(group.layer) if isinstance(mask.layout, Filters) else None
            if there is not None:  # single weights that were gone before stay gone
                found[f"{group.layer}.weight"] *= there
        return found

    def without(self, model: nn.Module, scores: Scores, name: str, place: int) -> dict[str, Tensor] | None:
        import torch

        from pruneviz.curvature.layers import layer_called
        from pruneviz.curvature.products import exact

        group = next(group for group in scores.plan.inverses if group.name == name)
        inverse, layer = scores.plan.inverses[group], layer_called(group.layer, model)
        rows = exact(layer.weight.detach()).reshape(*inverse.shape[:2], -1).clone()
        g, j = divmod(place, inverse.shape[1])
        rows[g] -= torch.outer(inverse[g, :, j], rows[g, j] / inverse[g, j, j])
        return {f"{group.layer}.weight": rows.reshape(layer.weight.shape).to(layer.weight)}


def inverse(S: Tensor, damping: float, kept: Tensor, layer: str) -> Tensor:
    """S's inverse, damped, in float64: [out, out] or [g, out / g, out / g] -> [g, out / g, out / g].

    ``kept`` [out]: filters that have left before. Raises Unsuitable where without damping S of the others has no inverse.
    """
    import torch

    from pruneviz.curvature.kronecker import inverted
    from pruneviz.curvature.products import exact

    S = S if S.dim() == 3 else S[None]
    if damping > 0:
        return inverted(S, damping)
    wide = exact(S)
    there = kept.to(wide.device).view(wide.shape[:2])
    for part, own in zip(wide, there, strict=True):
        values = torch.linalg.eigvalsh(part[own][:, own])
        rank = int((values > len(values) * torch.finfo(S.dtype).eps * values[-1:]).sum())
        if rank < len(values):
            raise Unsuitable(
                f"S of layer {layer!r} has rank {rank} of {len(values)}, and no inverse without damping: there are fewer "
                "samples than filters, or filters that the loss does not feel. Use damping=1e-6 or more, or more samples."
            )
    # filters that are gone have no slope: they stand by themselves, and their place holds any number
    both = there[:, :, None] & there[:, None]
    alone = (~there * wide.diagonal(dim1=1, dim2=2).amax(1, keepdim=True)).diag_embed()
    return inverted(torch.where(both, wide, alone), 0.0)


def _rising(losses: Tensor) -> Tensor:
    """The costs raised to the highest before, and by the smallest step beyond it where they are equal: [n] -> [n]."""
    import torch

    found = losses.cummax(0).values.tolist()
    for i in range(1, len(found)):
        if found[i] <= found[i - 1]:
            found[i] = nextafter(found[i - 1], inf)
    return torch.tensor(found, dtype=losses.dtype)


def _move(inverse: Tensor, rows: Tensor, gone: Tensor, *, joint: bool) -> Tensor:
    """What the filters move by when ``gone`` leave: [out, out], [out, in], [out] -> [out, in]."""
    import torch

    at = gone.nonzero().flatten()
    columns = inverse[:, at]
    if joint:
        core = torch.linalg.cholesky(inverse[at][:, at])
        return -columns @ torch.cholesky_solve(rows[at], core)
    return -columns @ (rows[at] / inverse.diagonal()[at, None])


def deletions(
    rows: Tensor,
    factors: KroneckerFactors,
    inverses: Tensor,
    alive: Tensor,
    quadratic: str,
    ranks: Tensor | None = None,
    most: int | None = None,
) -> tuple[Tensor, Tensor]:
    r"""One layer's filters in greedy order, and the rise of the loss at each removal: ([n], [n]) for n filters that may leave.

    At each step the filter of least :math:`F_j^\top A F_j / (2 [S^{-1}]_{jj})` leaves, the others move by
    :math:`-[S^{-1}]_{ij} / [S^{-1}]_{jj} F_j`, and :math:`S^{-1}` is downdated to the survivors. The quadratic forms follow
    from the matrix :math:`F A F^\top`, which moves along. Filters that cost the same leave by their ``ranks``, lowest first;
    ``most``: how many of them at most. Shapes: rows [out, in], inverses [g, out / g, out / g], alive and ranks [out].
    """
    import torch

    groups, out = inverses.shape[:2]
    places = (torch.arange(groups * out) if ranks is None else ranks).cpu().double().view(groups, out).numpy()
    free = alive.cpu().view(groups, out).numpy()
    mixtures = mixed(rows, factors, quadratic).cpu().numpy()
    parts = [_Greedy(inverses[g].cpu().numpy(), mixtures[g], free[g], places[g]) for g in range(groups)]
    steps = int(free.sum()) if most is None else min(most, int(free.sum()))
    order, losses = np.empty(steps, np.int64), np.empty(steps)
    for step in range(steps):
        g = min(range(groups), key=lambda g: parts[g].next[:2])
        losses[step], _, j = parts[g].next
        order[step] = g * out + j
        parts[g].remove()
    return torch.from_numpy(order), torch.from_numpy(losses)


class _Greedy:
    """One group's greedy order, step by step: a filter's removal touches two diagonals and a column of each matrix.

    The rest waits: columns are made up for what has been removed since, and every 64 removals are written in, in two products,
    over the filters that may still leave; those that stay are never asked for.
    ``next``: the rise of the next removal, its rank, and which filter it is.
    """

    def __init__(self, inverse: np.ndarray, mixture: np.ndarray, free: np.ndarray, places: np.ndarray):
        self._G, self._M = inverse, mixture
        self._g, self._m = inverse.diagonal().copy(), mixture.diagonal().copy()
        self._free, self._places, self._at = free.copy(), places, np.arange(len(free))
        self._begin()
        self._shrink()
        self._look()

    def _begin(self) -> None:
        self._U = np.zeros((PENDING, len(self._at)))  # G = what is written - U^T U
        self._H, self._C = np.zeros_like(self._U), np.zeros_like(self._U)  # M = what is written - H^T C - C^T H
        self._waiting = 0

    def _shrink(self) -> None:
        """Write in what waits, and let go of the filters that have left."""
        k, there = self._waiting, np.flatnonzero(self._free)
        self._G, self._M = (matrix[there][:, there] for matrix in (self._G, self._M))
        if k:
            U, H, C = (pending[:k, there] for pending in (self._U, self._H, self._C))
            self._G -= U.T @ U
            both = H.T @ C
            self._M -= both
            self._M -= both.T
        self._g, self._m, self._places, self._at, self._free = (
            each[there] for each in (self._g, self._m, self._places, self._at, self._free)
        )
        self._begin()

    def _look(self) -> None:
        self.next = (np.inf, np.inf, -1)
        if not self._free.any():
            return
        rise = np.where(self._free, self._m / (2 * self._g), np.inf)
        self._least = int(np.where(rise == rise.min(), self._places, np.inf).argmin())
        self.next = (float(rise[self._least]), float(self._places[self._least]), int(self._at[self._least]))

    def remove(self) -> None:
        """The next one leaves."""
        j, k = self._least, self._waiting
        column = self._G[j] - self._U[:k, j] @ self._U[:k]
        mixed = self._M[j] - self._C[:k, j] @ self._H[:k] - self._H[:k, j] @ self._C[:k]
        h = column / column[j]
        c = mixed - h * (mixed[j] / 2)  # h h^T m_jj is shared between the two sides
        self._U[k], self._H[k], self._C[k] = column / np.sqrt(column[j]), h, c
        self._g -= self._U[k] ** 2
        self._m -= 2 * h * c
        self._free[j] = False
        self._g[j] = 1.0  # gone: never divided by again
        self._waiting += 1
        if self._waiting == PENDING:
            self._shrink()
        self._look()

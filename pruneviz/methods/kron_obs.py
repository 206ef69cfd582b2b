"""Kron-OBS: filters leave and the others move, Wang et al. 2019."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from pruneviz.methods._kronecker import WANG, FilterMethod, KroneckerMethod, filter_rows
from pruneviz.methods.base import Card, Start, Unit
from pruneviz.methods.kron_obd import spread

if TYPE_CHECKING:
    from torch import Tensor

    from pruneviz.masks import Group

ORDER = 61


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
    )  # fmt: skip
    quadratic: Literal["exact", "row-sum"] = Field(
        "exact", description="The quadratic form, or squared weights times row sums of A"
    )
    joint: bool = Field(True, description="Filters that leave together are moved for together")

    def score(self, model, task, mask):
        from pruneviz.curvature.kronecker import inverted
        from pruneviz.masks import Scores

        factors = self.factors(model, task)
        values, inverses, orders = {}, {}, {}
        for group in mask.units:
            own, rows = factors[group.layer], filter_rows(model, group)
            S = inverted(own.S, self.damping)
            inverses[group] = S if S.dim() == 3 else S[None]
            diagonal = inverses[group].diagonal(dim1=1, dim2=2).flatten()
            values[group] = spread(rows, own, self.quadratic) / (2 * diagonal).to(rows)
            if self.joint:
                orders[group] = deletions(rows, own, inverses[group], mask.may_leave(group), self.quadratic)
        return Scores(values, _Plan(values, inverses, orders))

    def ranked(self, scores, mask, scope):
        """The greedy order of each layer, its recorded costs raised to the highest before, so that prefixes agree."""
        import torch

        plan: _Plan = scores.plan
        same = all(torch.equal(plan.scores[g], v) for g, v in scores.values.items())
        if not (self.joint and same):  # a control shuffled or inverted them
            return super().ranked(scores, mask, scope)
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

    def repaired(self, model, task, scores, mask):
        import torch

        from pruneviz.curvature.layers import layer_called

        found = {}
        for group, inverse in scores.plan.inverses.items():
            gone = ~mask.units[group].view(len(inverse), -1)
            if not bool(gone.any()):
                continue
            layer = layer_called(group.layer, model)
            rows = layer.weight.detach().to(inverse).reshape(*gone.shape, -1)
            gone = gone.to(inverse.device)
            moved = rows.clone()
            for g in range(len(inverse)):
                moved[g] += _move(inverse[g], rows[g], gone[g], joint=self.joint)
            found[f"{group.layer}.weight"] = (
                torch.where(gone[..., None], 0, moved).reshape(layer.weight.shape).to(layer.weight)
            )
        return found

    def without(self, model, scores, name, place):
        import torch

        from pruneviz.curvature.layers import layer_called

        group = next(group for group in scores.plan.inverses if group.name == name)
        inverse, layer = scores.plan.inverses[group], layer_called(group.layer, model)
        rows = layer.weight.detach().to(inverse).reshape(*inverse.shape[:2], -1).clone()
        g, j = divmod(place, inverse.shape[1])
        rows[g] -= torch.outer(inverse[g, :, j], rows[g, j] / inverse[g, j, j])
        return {f"{group.layer}.weight": rows.reshape(layer.weight.shape).to(layer.weight)}


def _rising(losses):
    """The costs raised to the highest before, and by the smallest step beyond it where they are equal: [n] -> [n]."""
    import torch

    found = losses.cummax(0).values
    for i in range(1, len(found)):
        if found[i] <= found[i - 1]:
            found[i] = torch.nextafter(found[i - 1], found.new_tensor(torch.inf))
    return found


def _move(inverse, rows, gone, *, joint):
    """What the filters move by when ``gone`` leave: [out, out], [out, in], [out] -> [out, in]."""
    import torch

    at = gone.nonzero().flatten()
    columns = inverse[:, at]
    if joint:
        core = torch.linalg.cholesky(inverse[at][:, at])
        return -columns @ torch.cholesky_solve(rows[at], core)
    return -columns @ (rows[at] / inverse.diagonal()[at, None])


def deletions(rows, factors, inverses, alive, quadratic):
    r"""One layer's filters in greedy order, and the rise of the loss at each removal: ([n], [n]) for n filters that may leave.

    At each step the filter of least :math:`F_j^\top A F_j / (2 [S^{-1}]_{jj})` leaves, the others move by
    :math:`-[S^{-1}]_{ij} / [S^{-1}]_{jj} F_j`, and :math:`S^{-1}` is downdated to the survivors. The quadratic forms follow
    from the matrix :math:`F A F^\top`, which moves along (with "row-sum", from the filters themselves).
    Shapes: rows [out, in], inverses [g, out / g, out / g], alive [out].
    """
    import torch

    A = (factors.A if factors.A.dim() == 3 else factors.A[None]).to(inverses)
    G, F = inverses.clone(), rows.to(inverses).unflatten(0, (len(A), -1)).clone()
    free = alive.to(G.device).view(G.shape[:2]).clone()
    gram = F @ A @ F.mT
    sums = A.sum(2)
    order, losses = [], []
    for _ in range(int(free.sum())):
        energy = (F.square() @ sums[..., None])[..., 0] if quadratic == "row-sum" else gram.diagonal(dim1=1, dim2=2)
        rise = torch.where(free, energy / (2 * G.diagonal(dim1=1, dim2=2)), torch.inf)
        at = int(rise.argmin())
        g, j = divmod(at, free.shape[1])
        order.append(at)
        losses.append(rise[g, j])
        h = G[g, :, j] / G[g, j, j]
        if quadratic == "row-sum":
            F[g] -= torch.outer(h, F[g, j])
        column = gram[g, :, j].clone()
        gram[g] += torch.outer(h, h) * column[j] - torch.outer(h, column) - torch.outer(column, h)
        G[g] -= torch.outer(G[g, :, j], h)
        free[g, j] = False
        G[g, j, j] = 1.0  # gone: never divided by again
    return torch.tensor(order, dtype=torch.long), torch.stack(losses).cpu() if losses else torch.zeros(0).double()

"""Kron-OBD: whole filters by the Kronecker-factored curvature, Wang et al. 2019."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from pruneviz.methods._kronecker import WANG, FilterMethod, KroneckerMethod, filter_rows
from pruneviz.methods.base import Card, Start, Unit

if TYPE_CHECKING:
    from torch import Tensor, nn

    from pruneviz.curvature.kronecker import KroneckerFactors
    from pruneviz.curvature.task import Task
    from pruneviz.units.masks import Mask, Scores

ORDER = 60


class KronObd(FilterMethod, KroneckerMethod):
    """The rise of the loss when all weights of a filter become zero."""

    card = Card(
        key="kron-obd",
        title="Kron-OBD",
        idea="Remove the filter whose disappearance costs least, by a curvature that knows how its weights work together.",
        formula=r"s_j = \tfrac12\, S_{jj}\, F_j^\top A\, F_j",
        symbols=(
            (r"F_j", "weights of filter j, as one long vector"),
            (r"A", "how the layer's inputs (patches, for a convolution) vary together"),
            (r"S_{jj}", "mean squared slope of the loss at output j"),
        ),
        criterion="loss rise, filter removed",
        starts=Start.TRAINED,
        unit=Unit.FILTER,
        predicts=True,
        schema=2,  # labels are drawn by the seed alone
        paper=replace(WANG, section="sections 3.1 and 4, Kron-OBD"),
        steps=(
            "Train the network.",
            "Measure how inputs and slopes of each layer vary together: the Kronecker factors A and S.",
            "Score each filter by the rise of the loss that its removal causes.",
            "Remove the lowest of all layers together, with their biases, normalisation and the weights that read them.",
            "Train again.",
        ),
        departures=(
            "quadratic=row-sum scores squared weights times the row sums of A, as the authors' code does, not the quadratic form.",
            "fisher=empirical takes the data's labels in place of labels drawn from the network.",
            "The last layer is left out, and at most 95% of a layer's filters leave, as in the authors' code.",
            "damping enters inverses only, and this score inverts nothing.",
        ),
        colour="#88479b",
        mark="pentagon",
    )  # fmt: skip
    quadratic: Literal["exact", "row-sum"] = Field(
        "exact", description="The quadratic form, or squared weights times row sums of A"
    )

    def score(self, model: nn.Module, task: Task, mask: Mask) -> Scores:
        from pruneviz.units.masks import Scores

        factors = self.factors(model, task)
        return Scores(
            {
                g: spread(filter_rows(model, g), factors[g.layer], self.quadratic) * output(factors[g.layer]) / 2
                for g in mask.units
            }
        )


def spread(rows: Tensor, factors: KroneckerFactors, quadratic: str) -> Tensor:
    """F_j^T A F_j of each filter: [out, in] -> [out]. "row-sum": squared weights times the row sums of A, can be negative."""
    R = factors.rows
    if R is not None:  # A = R^T R of few samples is never built
        if quadratic == "row-sum":
            return rows.square() @ (R.mT @ R.sum(1))
        return (rows @ R.mT).square().sum(1)
    A = factors.A if factors.A.dim() == 3 else factors.A[None]
    parts = rows.unflatten(0, (len(A), -1))  # [g, out, in]
    products = parts.square() @ A if quadratic == "row-sum" else (parts @ A) * parts
    return products.sum(2).flatten()


def mixed(rows: Tensor, factors: KroneckerFactors, quadratic: str) -> Tensor:
    """F A F^T of a layer's filters, in float64: [out, in] -> [g, out / g, out / g]. "row-sum": A's row sums in A's place."""
    from pruneviz.curvature.products import exact

    if factors.rows is not None:
        R, F = exact(factors.rows), exact(rows)
        products = F @ R.mT if quadratic == "exact" else F
        return ((products if quadratic == "exact" else F * (R.mT @ R.sum(1))) @ products.mT)[None]
    A = exact(factors.A if factors.A.dim() == 3 else factors.A[None])
    F = exact(rows).unflatten(0, (len(A), -1))
    return (F @ A if quadratic == "exact" else F * A.sum(2)[:, None]) @ F.mT


def output(factors: KroneckerFactors) -> Tensor:
    """S_jj of each output: [out]."""
    return factors.S.diagonal(dim1=-2, dim2=-1).flatten()

"""Optimal Brain Surgeon, Hassibi & Stork 1993."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from pruneviz.citation import Paper
from pruneviz.errors import Unsuitable
from pruneviz.methods.base import CURVATURE_SAMPLES, Card, Method, Start, drawn
from pruneviz.statistic import Rows

ORDER = 50
LARGEST = 20_000  # rows of an inverse: 3.2 GB in float64


class Obs(Method):
    """Remove the weight whose removal costs least once all others have moved to make up for it."""

    card = Card(
        key="obs",
        title="Optimal Brain Surgeon",
        idea="When a weight leaves, let the others move to make up for it, and remove the one that then costs least.",
        formula=r"s_q = \frac{\theta_q^2}{2\,[H^{-1}]_{qq}}, \qquad \delta\theta = -\frac{\theta_q}{[H^{-1}]_{qq}}\, H^{-1} e_q",
        symbols=(
            (r"\theta_q", "trained weight q"),
            (r"H", "curvature of the loss between every two weights (Gauss-Newton), with a little alpha on the diagonal"),
            (r"e_q", "1 at weight q, 0 elsewhere"),
            (r"\delta\theta", "how all weights move when q leaves"),
        ),
        criterion="loss rise, others moved",
        starts=Start.TRAINED,
        predicts=True,
        paper=Paper(
            "hassibi1993second",
            "Babak Hassibi, David G. Stork",
            "Second Order Derivatives for Network Pruning: Optimal Brain Surgeon",
            1993,
            "Advances in Neural Information Processing Systems 5",
            "https://proceedings.neurips.cc/paper/1992/hash/303ed4c69846ab36c2904d3ba8573050-Abstract.html",
            "sections 2 and 3",
        ),
        steps=(
            "Train the network.",
            "Compute the inverse of the loss's curvature matrix, sample by sample.",
            "Find the weight that costs least to remove once all others have moved; remove it and move them.",
            "Downdate the inverse to the survivors, and repeat until the network is as sparse as you like. No retraining is needed.",
        ),
        departures=(
            "blocks=rows and blocks=50 look only at weights that lead to the same output; the paper's inverse is whole (blocks=none).",
            "One inverse serves the whole order of deletions and is downdated; rounds=n computes it again in each round.",
            "Fine-tuning follows as for every method; tune epochs 0 is the paper's.",
        ),
    )  # fmt: skip
    alpha: float = Field(1e-4, gt=0, le=1, description="Added to the curvature's diagonal; the paper: 1e-8 to 1e-4")
    blocks: int | Literal["auto", "none", "rows"] = Field(
        "auto",
        description="Inverse: whole while small (auto), always whole (none), per output (rows), or of so many weights",
    )
    max_full: int = Field(4000, ge=1, le=LARGEST, description="Most weights and biases of a whole inverse")
    loss: Literal["cross-entropy", "squared"] = Field("cross-entropy", description="The loss whose curvature is taken")
    include_bias: bool = Field(False, description="Prune biases too, and count them; they move in any case")

    @field_validator("blocks", mode="before")
    @classmethod
    def _whole_number(cls, value):
        """Forms and the command line give text."""
        if isinstance(value, str) and value.isdecimal():
            value = int(value)
        size = isinstance(value, int) and not isinstance(value, bool) and 2 <= value <= LARGEST
        if not size and value not in ("auto", "none", "rows"):
            raise ValueError(
                f"blocks is auto, none, rows, or how many weights a block holds, 2 to {LARGEST:,}; found {value!r}"
            )
        return value

    def needs(self):
        return (Rows(),)

    def draw(self, train, generator):
        return drawn(train, CURVATURE_SAMPLES, generator)

    def score(self, model, task, mask):
        from dataclasses import replace

        from pruneviz.curvature.woodbury import inverse_of
        from pruneviz.loss import LOSSES
        from pruneviz.masks import Scores
        from pruneviz.surgery import Surgery

        size = self._size(model)
        rows = replace(task, loss=LOSSES[self.loss]).statistic(model, Rows())
        blocks, offsets = inverse_of(model, rows, alpha=self.alpha, size=size, alive=mask)
        params = dict(model.named_parameters())
        surgery = Surgery(blocks, offsets, params, mask)
        found = surgery.saliencies()
        return Scores.of_weights({name: found[name].to(params[name]) for name in mask}, surgery)

    def choose(self, model, task, scores, mask, target):
        from dataclasses import replace

        from pruneviz.masks import select

        ranks = scores.plan.ranks
        if all(scores.plan.scored(group.name, value) for group, value in scores.values.items()):
            scores = replace(scores, values={group: ranks[group.name].flatten() for group in scores.values})
        return select(scores, mask, target, scope=task.scope)

    def repaired(self, model, task, scores, mask):
        return _like(model, scores.plan.repaired(mask))

    def without(self, model, scores, name, place):
        return _like(model, scores.plan.without(name, place))

    def foretell(self, model):
        size = self._size(model)
        sizes = _blocks(model, size)
        whole = sum(count * b * b for count, b in sizes) * 8
        work = sum(count * 3 * b**3 for count, b in sizes)
        what = "one inverse" if size is None else f"{sum(c for c, _ in sizes):,} inverses"
        return f"{what} of up to {max(b for _, b in sizes):,} weights, {_bytes(whole)}, about {_duration(work)}"

    def _size(self, model) -> int | None:
        """The largest block, None for one whole matrix. Raises Unsuitable with what it would take."""
        total = sum(count * b for count, b in _blocks(model, LARGEST + 1))
        if self.blocks == "none" and total > self.max_full:
            raise Unsuitable(
                f"Full OBS would keep a {total:,} x {total:,} inverse Hessian ({_bytes(8 * total**2)} in float64, about "
                f"{_duration(3 * total**3)} here); the limit is {self.max_full:,} weights and biases. "
                "Use blocks=50, or Kron-OBS."
            )
        if self.blocks == "none" or (self.blocks == "auto" and total <= self.max_full):
            return None
        if isinstance(self.blocks, int):
            return self.blocks
        widest = max(b for _, b in _blocks(model, LARGEST + 1))
        if widest > LARGEST:
            raise Unsuitable(
                f"An output of this network reads {widest:,} weights; its inverse would take {_bytes(8 * widest**2)} and the "
                f"limit is {LARGEST:,}. Use blocks=50, or Kron-OBS."
            )
        return LARGEST


def _blocks(model, size: int | None) -> list[tuple[int, int]]:
    """(how many, of which size) inverses this takes, layer by layer; one whole matrix where ``size`` is None."""
    from torch import nn

    layers = [m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    rows = [(len(m.weight), m.weight[0].numel() + (m.bias is not None)) for m in layers]
    if size is None:
        return [(1, sum(out * width for out, width in rows))]
    pieces = [-(-width // size) for _, width in rows]
    return [(out * p, -(-width // p)) for (out, width), p in zip(rows, pieces, strict=True)]


def _like(model, values):
    """Only the values of parameters that the model has, in their dtype and on their device."""
    params = dict(model.named_parameters())
    return {name: value.to(params[name]) for name, value in values.items()}


def _bytes(count: float) -> str:
    for unit, size in (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20)):
        if count >= size:
            return f"{count / size:,.1f} {unit}" if count < 10 * size else f"{count / size:,.0f} {unit}"
    return "less than 1 MiB"


def _duration(operations: float) -> str:
    """Words for a number of float64 operations at the rate that this machine shows on a small matrix product."""
    import time

    import torch

    a = torch.ones(512, 512, dtype=torch.float64)
    started = time.perf_counter()
    for _ in range(3):
        a.matmul(a)
    seconds = operations * (time.perf_counter() - started) / (3 * 2 * 512**3)
    for unit, size in (("years", 3.15e7), ("days", 86_400), ("hours", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.0f} {unit}"
    return f"{max(1, round(seconds))} s"

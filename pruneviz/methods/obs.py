"""Optimal Brain Surgeon, Hassibi & Stork 1993."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, field_validator

from pruneviz.basics.citation import Paper
from pruneviz.basics.errors import Unsuitable
from pruneviz.curvature.statistic import Rows
from pruneviz.methods.base import CURVATURE_SAMPLES, Card, Method, Start, drawn

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    import torch
    from torch import Tensor, nn

    from pruneviz.curvature.statistic import Statistic
    from pruneviz.curvature.task import Batch, Part, Task
    from pruneviz.door.network import Network
    from pruneviz.units.masks import Mask, Scores

ORDER = 50
LARGEST = 20_000  # rows of an inverse: 3.2 GB in float64
MEMORY = 16 * 2**30  # bytes of rows and inverses that pv.score and pv.prune begin with
WORK = 3e14  # operations of sums and inverses that they begin with: hours on a laptop


class Obs(Method):
    """Remove the weight whose removal costs least once all others have moved to make up for it."""

    kinds = ("linear", "conv1d", "conv2d", "conv3d")
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
        colour="#f04fbd",
        mark="triangle-down",
    )  # fmt: skip
    alpha: float = Field(1e-4, gt=0, le=1, description="Added to the curvature's diagonal; the paper: 1e-8 to 1e-4")
    blocks: int | Literal["auto", "none", "rows"] = Field(
        "auto",
        description="Inverse: whole while small (auto), always whole (none), per output (rows), or of so many weights",
    )
    max_full: int = Field(4000, ge=1, le=LARGEST, description="Most weights and biases of a whole inverse")
    loss: Literal["cross-entropy", "squared", "binary"] = Field(
        "cross-entropy", description="The loss whose curvature is taken"
    )
    include_bias: bool = Field(False, description="Prune biases too, and count them; they move in any case")

    @field_validator("blocks", mode="before")
    @classmethod
    def _whole_number(cls, value: Any) -> Any:
        """Forms and the command line give text."""
        if isinstance(value, str) and value.isdecimal():
            value = int(value)
        size = isinstance(value, int) and not isinstance(value, bool) and 2 <= value <= LARGEST
        if not size and value not in ("auto", "none", "rows"):
            raise ValueError(
                f"blocks is auto, none, rows, or how many weights a block holds, 2 to {LARGEST:,}; found {value!r}"
            )
        return value

    def needs(self) -> tuple[Statistic, ...]:
        return (Rows(),)

    def draw(self, train: Part, generator: torch.Generator) -> Iterable[Batch]:
        return drawn(train, CURVATURE_SAMPLES, generator)

    def score(self, model: nn.Module, task: Task, mask: Mask) -> Scores:
        from dataclasses import replace

        from pruneviz.curvature.woodbury import inverse_of
        from pruneviz.door.loss import LOSSES
        from pruneviz.door.parameters import named
        from pruneviz.units.masks import Scores
        from pruneviz.units.surgeon import Surgery

        size = self._size(_shapes(model, task.network(model)))
        own = task.loss.key == self.loss or task.loss.key not in LOSSES  # a function of somebody's is refused by Rows
        loss = task.loss if own else LOSSES[self.loss]
        rows = replace(task, loss=loss).statistic(model, Rows())
        blocks, offsets = inverse_of(model, rows, alpha=self.alpha, size=size, alive=mask)
        params = named(model)
        surgery = Surgery(blocks, offsets, params, mask, seed=task.seed)
        found = surgery.saliencies()
        return Scores.of_weights({name: found[name].to(params[name]) for name in mask}, surgery)

    def choose(self, model: nn.Module, task: Task, scores: Scores, mask: Mask, target: float) -> Mask:
        from dataclasses import replace

        from pruneviz.units.choice import select

        ranks = scores.plan.ranks
        if all(scores.plan.scored(group.name, value) for group, value in scores.values.items()):
            scores = replace(scores, values={group: ranks[group.name].flatten() for group in scores.values})
        return select(scores, mask, target, scope=task.scope, seed=task.seed)

    def repaired(self, model: nn.Module, task: Task, scores: Scores, mask: Mask) -> dict[str, Tensor]:
        return _like(model, scores.plan.repaired(mask))

    def without(self, model: nn.Module, scores: Scores, name: str, place: int) -> dict[str, Tensor] | None:
        return _like(model, scores.plan.without(name, place))

    def beyond(self, network: Network, samples: int, outputs: int) -> str:
        read = [w for w in network.weights.values() if w.slope and w.kind in self.kinds]
        rows, most = 0, 1
        for w in read:  # what goes in and what comes back at each position, and the gradients where they are no product
            positions = max(1, w.flops // (2 * w.size))
            rows += positions * (w.size // w.shape[0] + outputs * w.shape[0]) if w.factors else outputs * w.size
            most = max(most, positions)
        sizes = _blocks(_of(network), self._size(_of(network)))
        work = sum(2 * count * b**2 * (3 * b + min(samples * outputs * most, 10 * b)) for count, b in sizes)
        memory = 8 * samples * rows + 8 * max(b * b for _, b in sizes)
        if memory <= MEMORY and work <= WORK:
            return ""
        return (
            f"OBS on {samples:,} samples of this network would keep {_bytes(memory)} and take about {_duration(work)} for its "
            f"inverses; the limits are {_bytes(MEMORY)} and {_duration(WORK)}. Use blocks=50 and fewer samples, or Kron-OBS."
        )

    def foretell(self, model: nn.Module) -> str:
        shapes = _shapes(model)
        size = self._size(shapes)
        sizes = _blocks(shapes, size)
        whole = sum(count * b * b for count, b in sizes) * 8
        work = sum(count * 3 * b**3 for count, b in sizes)
        what = "one inverse" if size is None else f"{sum(c for c, _ in sizes):,} inverses"
        return f"{what} of up to {max(b for _, b in sizes):,} weights, {_bytes(whole)}, about {_duration(work)}"

    def _size(self, shapes: Sequence[tuple[int, int]]) -> int | None:
        """The largest block, None for one whole matrix. Raises Unsuitable with what it would take."""
        total = sum(count * b for count, b in _blocks(shapes, LARGEST + 1))
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
        widest = max(b for _, b in _blocks(shapes, LARGEST + 1))
        if widest > LARGEST:
            raise Unsuitable(
                f"An output of this network reads {widest:,} weights; its inverse would take {_bytes(8 * widest**2)} and the "
                f"limit is {LARGEST:,}. Use blocks=50, or Kron-OBS."
            )
        return LARGEST


def _shapes(model: nn.Module, network: Network | None = None) -> list[tuple[int, int]]:
    """(outputs, weights that lead to each, the bias included) of every weight that OBS reads."""
    from torch import nn

    if network is None:
        layers = [m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
        return [(len(m.weight), m.weight[0].numel() + (m.bias is not None)) for m in layers]
    return _of(network)


def _of(network: Network) -> list[tuple[int, int]]:
    read = [w for w in network.weights.values() if w.slope and w.kind in Obs.kinds]
    return [(w.shape[0], w.shape[1:].numel() + bool(w.biases)) for w in read]


def _blocks(rows: Sequence[tuple[int, int]], size: int | None) -> list[tuple[int, int]]:
    """(how many, of which size) inverses this takes, layer by layer; one whole matrix where ``size`` is None."""
    if size is None:
        return [(1, sum(out * width for out, width in rows))]
    pieces = [-(-width // size) for _, width in rows]
    return [(out * p, -(-width // p)) for (out, width), p in zip(rows, pieces, strict=True)]


def _like(model: nn.Module, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Only the values of parameters that the model has, in their dtype and on their device."""
    from pruneviz.door.parameters import named

    params = named(model)
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

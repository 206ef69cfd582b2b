"""``pv.inspect``: what is seen of a network before any work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import nn

from pruneviz.door.arrival import enter
from pruneviz.door.loss import Loss
from pruneviz.door.network import Network, Weight
from pruneviz.door.samples import Chosen
from pruneviz.units.channels import Channels, trace
from pruneviz.units.weights import COVERED, counted_names, left_out, share, unpriced

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Inspection:
    """What one look at a network found; prints as a table.

    ``layers`` (DataFrame): name, kind, weights (how many), uses, shared_with, gradients (whether gradient scores reach it),
    curvature ("as a product", "sample by sample", or ""), filters (how many of its outputs can leave), reason. ``covered``:
    share of the matrix weights that sparsity counts; ``left_out``: name -> why; ``unused``, ``shared``, ``problems`` (sentences).
    ``outputs``: shape of one sample's; ``flops``: of one sample's forward pass, None where an operation's cost is not known.
    """

    layers: pd.DataFrame
    covered: float
    left_out: dict[str, str]
    unused: tuple[str, ...]
    shared: dict[str, tuple[str, ...]]
    problems: tuple[str, ...]
    outputs: tuple[int, ...]
    flops: int | None
    network: Network = field(repr=False)

    def __str__(self) -> str:
        shown = self.layers.assign(
            weights=self.layers["weights"].map("{:,}".format),
            shared_with=self.layers["shared_with"].map(", ".join),
        )
        lines = [shown.to_string(index=False), ""]
        lines.append(
            f"Sparsity counts {100 * self.covered:.0f}% of the matrix weights; outputs of a sample: {list(self.outputs)}."
        )
        lines += [f"Left out: {name}: {why}." for name, why in self.left_out.items()]
        lines += [f"Never read: {', '.join(self.unused)}."] if self.unused else []
        return "\n".join([*lines, *self.problems])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        from html import escape

        said = str(self).partition("\n\n")[2].splitlines()
        return self.layers.to_html(index=False) + "".join(f"<p>{escape(line)}</p>" for line in said)


def inspect(
    model: nn.Module,
    x: Any,
    y: Any = None,
    *,
    loss: str | Loss | Callable = "cross-entropy",
    outputs: Chosen = None,
) -> Inspection:
    """Look at a network on two samples: each weight that its forward pass reads, who can score it, what is left out and why.

    ``x``, ``y``, ``loss``, ``outputs`` as of :func:`pruneviz.score`; without ``y`` the targets are not looked at.
    Raises: Unsuitable where the network and the samples do not fit each other.
    """
    import pandas as pd

    at = enter(model, x, y, loss=loss, outputs=outputs, targets=y is not None)
    network = at.network
    names = counted_names(network)
    missing = left_out(network, names)
    channels = trace(at.model, at.sample)
    rows = [_row(weight, missing, channels) for weight in network.weights.values()]
    columns = ("name", "kind", "weights", "uses", "shared_with", "gradients", "curvature", "filters", "reason")
    return Inspection(
        layers=pd.DataFrame(rows, columns=pd.Index(columns)),
        covered=share(network, names),
        left_out=missing,
        unused=network.unused,
        shared=network.shared,
        problems=_problems(at.notes, network, names),
        outputs=tuple(network.outputs),
        flops=None if network.uncounted else network.flops,
        network=network,
    )


def _row(weight: Weight, missing: dict[str, str], channels: Channels) -> tuple[Any, ...]:
    scored = weight.name not in missing and weight.slope
    curvature = ("as a product" if weight.factors else "sample by sample") if scored else ""
    leaving = int(channels.removable(weight.layer).sum()) if weight.layer in channels.writes else 0
    last = bool(channels.writes) and weight.layer == list(channels.writes)[-1]
    reason = missing.get(weight.name, weight.why)
    if not weight.slope:
        reason = "no slope of the loss reaches it (no_grad, or detached): gradient scores leave it out"
    return (
        weight.name, weight.kind, weight.size, weight.uses, weight.shared_with, scored, curvature, 0 if last else leaving, reason,
    )  # fmt: skip


def _problems(notes: tuple[str, ...], network: Network, names: tuple[str, ...]) -> tuple[str, ...]:
    found = list(notes)
    if network.mixes:
        found.append(
            "Samples meet in the forward pass, in evaluation mode too: what belongs to which sample can't be told."
        )
    if (have := share(network, names)) < COVERED:
        found.append(f"Sparsity would count only {100 * have:.0f}% of the matrix weights.")
    found += unpriced(network)
    refused = [w for w in network.weights.values() if not w.stays]
    if refused:
        found.append(f"Methods refuse {', '.join(repr(w.name) for w in refused)} until skip= leaves them alone.")
    return tuple(found)

"""The stages at which a run is measured, and the moment that its scoring begins from."""

from __future__ import annotations

from enum import StrEnum


class Stage(StrEnum):
    """Where a number or an array belongs. In tables and file names it is its own text."""

    START = "start"  # the network that is scored first: initial or trained, not yet pruned
    DENSE = "dense"  # the trained network, nothing pruned
    ZEROED = "zeroed"  # pruned, survivors not yet moved
    PRUNED = "pruned"  # pruned, survivors moved where the method moves them, not yet trained again
    TUNED = "tuned"  # trained again


BEFORE_TRAINING = (Stage.ZEROED, Stage.PRUNED)
MEASURED = (*BEFORE_TRAINING, Stage.TUNED)  # of a sparsity, in the order in which they come

SAID = {
    Stage.START: "before pruning",
    Stage.DENSE: "dense",
    Stage.ZEROED: "by zeroing only",
    Stage.PRUNED: "right after pruning",
    Stage.TUNED: "trained again",
}

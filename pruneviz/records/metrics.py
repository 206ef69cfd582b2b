"""Names of the numbers that a run records."""

from __future__ import annotations

ACCURACY, LOSS = "accuracy", "loss"  # of the splits
REACHED = "reached"  # the sparsity that came out
REACHED_COMPACTED, REACHED_CORE = "reached_compacted", "reached_core"  # rotations counted, or not
MOST = "most"  # the sparsity that removing whole units can reach, where more was asked for
THRESHOLD = "threshold"  # the highest score that left
CONNECTED = "connected"  # 1 where a path leads from input to output
EPOCHS = "epochs"  # training epochs spent up to the end of the stage
PARAMETERS, FLOPS = "parameters", "flops"
AGAIN = (REACHED, PARAMETERS, FLOPS)  # recorded after pruning and once more after training

TEST, VALIDATION = "test", "val"  # splits; numbers of the network itself have none


def latency(batch: int) -> str:
    """Seconds of a forward pass of so many samples."""
    return f"latency_{batch}"


def speedup(batch: int) -> str:
    """How many times the dense network's latency is that of the smaller one."""
    return f"speedup_{batch}"

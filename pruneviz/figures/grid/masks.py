"""A layer's mask in blocks: outputs down, inputs across, in each the share of weights kept."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pruneviz.basics.errors import StoreError
from pruneviz.figures import base
from pruneviz.records.arrays import WHOLE, Kept

if TYPE_CHECKING:
    from pruneviz.store import Run

BLOCKS = 32  # to each side, as recorded


def kept(run: Run, sparsities: Sequence[float], layers: Sequence[str], merge: int = 1) -> dict[str, list[Any]]:
    """``shapes``: layer by layer (outputs, inputs); ``kept``: at each sparsity, layer by layer, the blocks row by row, a
    byte each (``WHOLE``: all of the block is kept), as base64. None where nothing is recorded."""
    shapes: list[list[int] | None] = [None] * len(layers)
    images: list[list[str | None]] = []
    for s in sparsities:
        found, row = run.read(Kept, s), list[str | None]()
        places = {base.module(layer): i for i, layer in enumerate(found.layers)} if found else {}
        for k, layer in enumerate(layers):
            density, shape = (
                (found.density[i], found.shape[i]) if found and (i := places.get(layer)) is not None else (None, None)
            )
            if density is None or shape is None:
                row.append(None)
                continue
            outputs, inputs = map(int, shape)
            shapes[k] = [outputs, inputs]
            row.append(b64encode(merged(density, outputs, inputs, merge).tobytes()).decode())
        images.append(row)
    return {"shapes": shapes, "kept": images}


def edges(size: int, merge: int = 1) -> list[int]:
    """Where blocks of so many rows or columns begin, and where the last one ends: those of ``numpy.array_split``, merged."""
    count = min(BLOCKS, size)
    starts = [i * (size // count) + min(i, size % count) for i in range(count)]
    return [*starts[::merge], size]


def merged(shares: np.ndarray, outputs: int, inputs: int, merge: int) -> np.ndarray:
    """Blocks with their neighbours, each weighing what it holds; 0 still means nothing is kept, ``WHOLE`` everything."""
    height, width = np.diff(edges(outputs)), np.diff(edges(inputs))
    sizes = np.outer(height, width).astype(float)
    if shares.shape != sizes.shape:
        raise StoreError(
            f"A mask of {outputs} x {inputs} has {sizes.shape} blocks; {shares.shape} are recorded. Delete the run and run it again."
        )
    rows, columns = (np.arange(0, n, merge) for n in sizes.shape)

    def total(values: np.ndarray) -> np.ndarray:
        return np.add.reduceat(np.add.reduceat(values, rows, 0), columns, 1)

    mean = total(shares * sizes) / total(sizes)
    return np.clip(np.round(mean), mean > 0, WHOLE - (mean < WHOLE)).astype(np.uint8)

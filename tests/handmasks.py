"""Masks for hand-made runs: the lowest scores leave, and a layer's weights are images of 3 x 4 pixels."""

from __future__ import annotations

from typing import Any

import numpy as np

SIZES = (1000, 200)


def with_masks(made: Any) -> Any:
    """The run with what a worker records of masks beside its other arrays."""
    rng = np.random.default_rng(made.config.seed)
    order = rng.permutation(sum(SIZES)) + 1
    images = rng.standard_normal((6, 1, 3, 4))
    layers = ["1", "3"]
    start = {"order": order.astype(np.uint16), "counts": np.array(SIZES, np.int32), "weights": images}
    made.probes["masks-start"] = start, layers
    for s in made.config.sparsities:
        cut = np.quantile(order, s)
        arrays = {
            "kept": np.packbits(order > cut), "weights": np.where(np.abs(images) > np.quantile(np.abs(images), s), images, 0),
            "pixels": rng.integers(0, 256, (1, 3, 4)).astype(np.uint8),
        }  # fmt: skip
        made.probes[f"masks-{s:g}"] = {**made.arrays(f"masks-{s:g}"), **arrays}, layers
    return made

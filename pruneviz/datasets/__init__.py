"""Data sets, one file each; importing them needs no torch."""

from __future__ import annotations

from pruneviz.basics.registry import Registry, files_of
from pruneviz.datasets.base import DataCard, Splits

DATASETS: Registry[DataCard] = Registry(
    "data set", {card.key: card for module in files_of(__name__, list(__path__)) for card in module.CARDS}
)


def load(key: str) -> Splits:
    """The fixed training, validation and test splits of a data set; local files first, else a checked download.

    Raises UnknownName, and DataUnavailable where files are missing or damaged.
    """
    import torch

    card = DATASETS[key]
    parts = [
        (torch.from_numpy(x).float().reshape(-1, *card.shape), torch.from_numpy(y).long()) for x, y in card.read(card)
    ]
    return Splits(*parts, classes=card.classes, shape=card.shape)

"""Networks, one file per family; importing them needs no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pruneviz.basics.errors import InvalidSetting
from pruneviz.basics.registry import Registry, files_of
from pruneviz.basics.seeds import number_for
from pruneviz.models.base import ModelCard, Shape

if TYPE_CHECKING:
    from torch import nn

    from pruneviz.datasets.base import Splits

MODELS: Registry[ModelCard] = Registry(
    "model", {card.key: card for module in files_of(__name__, list(__path__)) for card in module.CARDS}
)


def build(
    key: str,
    data: Splits | None = None,
    *,
    shape: Shape | None = None,
    classes: int | None = None,
    seed: int = 0,
    width: float = 1.0,
) -> nn.Module:
    """A registered network with fresh weights, for ``data`` or for samples of ``shape`` in ``classes`` classes.

    ``width``: a factor on the channels of all its layers, where its card says that it has widths. Same seed, same weights.
    Raises UnknownName, Unsuitable (the data do not fit), InvalidSetting (no shape, or not in this width).
    """
    import torch

    from pruneviz.models._torch.initialisation import initialise_, seeded

    card = MODELS[key]
    if data is not None:
        shape, classes = data.shape, len(data.classes)
    if shape is None or classes is None:
        raise InvalidSetting(f"build({key!r}) needs data, or shape and classes, e.g. shape=(1, 28, 28), classes=10.")
    card.check(tuple(shape), classes)
    card.check_width(width)
    wanted = (tuple(shape), classes, width) if card.widths else (tuple(shape), classes)
    with seeded(number_for(seed, "construction")):  # what no rule below draws anew: a position embedding
        made = card.build(*wanted)
    return initialise_(made, torch.Generator().manual_seed(number_for(seed, "initial weights")))

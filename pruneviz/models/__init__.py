"""Networks, one file per family; importing them needs no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pruneviz.models.base import ModelCard, Shape
from pruneviz.registry import Registry, files_of

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
    from pruneviz.errors import InvalidSetting
    from pruneviz.initialisation import initialise_
    from pruneviz.task import generator_for

    card = MODELS[key]
    if data is not None:
        shape, classes = data.shape, len(data.classes)
    if shape is None or classes is None:
        raise InvalidSetting(f"build({key!r}) needs data, or shape and classes, e.g. shape=(1, 28, 28), classes=10.")
    card.check(tuple(shape), classes)
    card.check_width(width)
    wanted = (tuple(shape), classes, width) if card.widths else (tuple(shape), classes)
    return initialise_(card.build(*wanted), generator_for(seed, "initial weights"))

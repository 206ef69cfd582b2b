"""The words that a run takes along from its cards."""

from __future__ import annotations

from pruneviz.methods import METHODS
from pruneviz.plan.config import RunConfig
from pruneviz.plan.departures import told
from pruneviz.records.about import About


def about(config: RunConfig) -> About:
    """What it takes to look at this run where its method, network or data are not known. Raises UnknownName."""
    card, model, data = METHODS[config.method], config.network, config.data
    departures = config.departures
    return About(
        method=card.title,
        idea=card.idea,
        unit=card.unit,
        removes=card.unit.plural,
        colour=card.colour,
        mark=card.mark,
        place=list(METHODS).index(config.method),
        usual=card.starts,
        predicts=card.predicts,
        paper=card.paper,
        departures=departures,
        changes=tuple(str(told(text, config.method)) for text in departures),
        network=model.title,
        layers=model.layers,
        loss=config.loss_name,
        data=data.title,
        sizes=data.sizes,
        shape=data.shape,
        classes=data.classes,
    )

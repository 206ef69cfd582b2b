"""What a pruning method is: a card (who, what, why), parameters, and answers to three questions.

A method file holds its card and its parameters at the top level and imports torch only inside functions, so that
the web process, the command line's lists and the citation list read cards without loading torch.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pruneviz.basics.citation import Paper
from pruneviz.basics.errors import InvalidSetting, UnknownName
from pruneviz.curvature.statistic import Statistic
from pruneviz.records.units import Unit

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from pruneviz.curvature.task import Batch, Part, Task
    from pruneviz.door.network import Network, Weight
    from pruneviz.models.base import ModelCard
    from pruneviz.units.masks import Mask, Scores


CURVATURE_SAMPLES = (
    1000  # drawn for second-order methods: enough for a diagonal or a block, and far fewer than a data set
)


class Start(StrEnum):
    INIT = "init"
    TRAINED = "trained"


class Survivors(StrEnum):
    RETAIN = "retain"
    REWIND = "rewind"
    REINIT = "reinit"
    REINIT_SIGN = "reinit-sign"


class Scope(StrEnum):
    GLOBAL = "global"
    LAYER = "layer"
    STAGE = "stage"


@dataclass(frozen=True)
class Card:
    """What the catalogue, the form, the command line and the citation list are made from.

    ``rounds``: None for one shot, a count, or a share of the kept weights removed a round (the lottery ticket's 0.2).
    ``predicts``: the score is the rise of the loss in nats that removing the unit should cause.
    ``colour`` (#rrggbb) and ``mark`` (a Plotly symbol) are the method's own in every figure; left out, it gets free ones.
    ``schema`` is raised whenever the meaning of a parameter or of the score changes: it is part of every run's id.
    """

    key: str
    title: str
    idea: str
    formula: str
    criterion: str
    starts: Start
    paper: Paper | None = None
    unit: Unit = Unit.WEIGHT
    survivors: Survivors = Survivors.RETAIN
    rounds: int | float | None = None
    scope: Scope = Scope.GLOBAL
    symbols: tuple[tuple[str, str], ...] = ()
    steps: tuple[str, ...] = ()
    departures: tuple[str, ...] = ()
    positive: bool = True
    needs_initial: bool = False
    predicts: bool = False
    colour: str = ""
    mark: str = ""
    schema: int = 1

    @property
    def schedule(self) -> Literal["one shot", "iterative"]:
        return "one shot" if self.rounds is None else "iterative"


class Method(BaseModel):
    """A pruning method. Fields (with range and help) are its switches: they make form, flags and error texts.

    Only :meth:`score` must be written. Scores are "higher = keep" whatever the paper's sign.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    card: ClassVar[Card]
    slopes: ClassVar[bool] = True  # the score reads slopes of the loss, so that only what they reach is scored
    kinds: ClassVar[tuple[str, ...]] = ()  # of weights that it scores; none: all

    @classmethod
    def from_params(cls, params: dict[str, Any]) -> Method:
        """The method with these switches; raises InvalidSetting or UnknownName with the mend."""
        for name in params:
            if name not in cls.model_fields:
                raise UnknownName(f"switch of {cls.card.key!r}", name, cls.model_fields)
        try:
            return cls(**params)
        except ValidationError as error:
            raise InvalidSetting(f"{cls.card.key}: {explain(error)}") from None

    @classmethod
    def suits(cls, model: ModelCard) -> None:
        """Raises Unsuitable, with the reason, where this method cannot prune this network; by default it can."""

    @classmethod
    def patterns(cls, skip: Iterable[str]) -> tuple[str, ...]:
        """Of what is to be left alone, the patterns of layers' names; a method that numbers its layers takes numbers itself."""
        return tuple(skip)

    def needs(self) -> tuple[Statistic, ...]:
        """The statistics that one pass over the data should gather for this method."""
        return ()

    def counts(self, model: nn.Module, task: Task) -> tuple[str, ...]:
        """Names of the weights that it scores, in forward order (biases if ``include_bias``); what was skipped left out.

        Raises: Unsuitable where a weight can't be pruned.
        """
        from pruneviz.units.weights import counted

        return counted(
            task.network(model),
            skip=task.skip,
            slopes=self.slopes,
            kinds=self.kinds,
            embeddings=getattr(self, "embeddings", False),
            biases=getattr(self, "include_bias", False),
        )

    def whole(self, weight: Weight) -> str:
        """Why a layer can't be scored in this method's units, so that it stays whole; "" where it can."""
        return ""

    def prunable(self, model: nn.Module) -> tuple[str, ...]:
        """The same without samples: weights of Linear, Conv1d and Conv2d; biases if ``include_bias``."""
        from pruneviz.units.weights import prunable

        return prunable(model, biases=getattr(self, "include_bias", False))

    def full(self, model: nn.Module, task: Task) -> Mask:
        """Everything kept that is there at the start, in this method's units: single weights, unless it says otherwise."""
        from pruneviz.units.masks import Mask

        return Mask.full(model, self.counts(model, task), alive=task.alive)

    def prepare(self, model: nn.Module, task: Task) -> nn.Module:
        """The network that a run scores, where the method wants another than it is given (an initialisation)."""
        return self.frame(model, task)

    def frame(self, model: nn.Module, task: Task) -> nn.Module:
        """The same function in the coordinates whose units leave, before every scoring; may work in place. EigenDamage turns."""
        return model

    def draw(self, train: Part, generator: torch.Generator) -> Iterable[Batch]:
        """The samples a run scores on: by default all training samples, in batches of 500."""
        x, y = train
        return [(x[i : i + 500], y[i : i + 500]) for i in range(0, len(x), 500)]

    def score(self, model: nn.Module, task: Task, mask: Mask) -> Scores:
        """One value for each unit, higher = keep. Pure: model, gradients, mode and generators are left as they were."""
        raise TypeError(f"{type(self).__name__} does not define score()")

    def choose(self, model: nn.Module, task: Task, scores: Scores, mask: Mask, target: float) -> Mask:
        """Which units stay at sparsity ``target``; by default exact counts by rank within the task's scope."""
        from pruneviz.units.choice import select

        return select(scores, mask, target, scope=getattr(self, "scope", task.scope), seed=task.seed)

    def repaired(self, model: nn.Module, task: Task, scores: Scores, mask: Mask) -> dict[str, Tensor]:
        """New values of surviving parameters once the mask is known; by default none."""
        return {}

    def without(self, model: nn.Module, scores: Scores, name: str, place: int) -> dict[str, Tensor] | None:
        """New parameter values once one unit alone, at flat ``place`` in ``name``, is gone; None where it only becomes zero."""
        return None

    def beyond(self, network: Network, samples: int, outputs: int) -> str:
        """Why scoring this network on so many samples is more than a machine should be asked for; "" where it is not."""
        return ""

    def foretell(self, model: nn.Module) -> str:
        """Memory and time that scoring will take, in words, where they are worth telling before; by default nothing."""
        return ""


class WeightMethod(Method):
    """A method whose units are single weights of any kind of layer."""

    embeddings: bool = Field(False, description="Count lookup tables (embeddings) among the weights")


def drawn(train: Part, most: int, generator: torch.Generator) -> list[Batch]:
    """At most ``most`` samples drawn without replacement, in batches of 500."""
    import torch

    x, y = train
    order = torch.randperm(len(x), generator=generator)[:most].to(x.device)
    return [(x[part], y[part]) for part in order.split(500)]


def explain(error: ValidationError) -> str:
    """A pydantic error as one sentence: field, rule, value."""
    parts = []
    for item in error.errors():
        field = ".".join(str(part) for part in item["loc"]) or "configuration"
        said = item["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
        found = "" if item["type"] in ("missing", "value_error") else f", found {item['input']!r}"
        parts.append(f"{field}: {said[0].lower() + said[1:] if said[:5] in ('Input',) else said}{found}")
    return "; ".join(parts)

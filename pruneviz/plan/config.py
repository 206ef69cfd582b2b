"""What a run is, as plain validated data: canonical JSON and an id that follows from it. No torch."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError, ValidationInfo, field_validator, model_validator

from pruneviz.basics.errors import InvalidSetting, Unsuitable
from pruneviz.basics.reference import name_in_ids
from pruneviz.datasets.base import DataCard
from pruneviz.methods import METHODS, method_class
from pruneviz.methods.base import Card, Scope, Start, Survivors, explain
from pruneviz.models.base import WIDEST, ModelCard
from pruneviz.plan.own import data_card, network_card, resolved
from pruneviz.plan.recipe import Frozen, Training, budget
from pruneviz.plan.schedule import layers_given, round_targets, rounds_given, sparsities_given

SCHEMA = 4  # raised when the loop's meaning of a configuration, or of a default, changes
SPARSITIES = (0.5, 0.8, 0.9, 0.95, 0.98)
_VERBS = {Survivors.REWIND: "rewound", Survivors.REINIT: "reinitialised", Survivors.REINIT_SIGN: "reinitialised"}
_AS_IT_IS: dict[str, Any] = {"stored": True}
_FILLED_IN: Any = None  # fields that the cards fill in where they are left out
Share = Annotated[float, Field(ge=0, lt=1)]
PROBES = ("saliency", "masks", "change", "spectra", "jacobians")
_NAMES = ("dataset", "model", "method", "seed")  # what every run says
_BESIDE = ("content", "facts", "places")  # what goes with references
# Settings whose default follows from others come after these
_IN_ORDER = (
    "initial", "weights", "loss",
    "width", "sparsities", "start", "rounds", "scope", "survivors", "rewind_step", "control", "repair", "normalise", "train",
    "tune", "params", "probes",
)  # fmt: skip
ID = re.compile(r"[a-z0-9][a-z0-9.-]{0,120}-[0-9a-f]{12}")


@dataclass(frozen=True)
class Step:
    """One prune-then-train step: up to ``target``; ``requested`` is True where the user asked for this sparsity."""

    name: str
    target: float
    requested: bool


class RunConfig(Frozen):
    """One run: a data set, a network, a method, a seed and the sparsities to visit.

    What is left out is filled in from the method's and the data set's cards, so a configuration is always complete.
    One shot (``rounds`` = 1): each sparsity starts from the same network. Iterative: one trajectory that passes through
    every sparsity, ``rounds`` counted to the last.
    """

    dataset: str = "digits"
    model: str = Field(default=_FILLED_IN)
    width: float = Field(
        default=1.0, gt=0, le=WIDEST, description="A factor on the channels of all layers, of networks that have widths"
    )
    method: str
    params: dict[str, Any] = Field(default_factory=dict, validate_default=True)
    start: Start = Field(default=_FILLED_IN)
    sparsities: tuple[Share, ...] = SPARSITIES
    rounds: int = Field(
        default=_FILLED_IN, ge=1, le=500, description="Prune-and-train rounds up to the highest sparsity; 1 is one shot"
    )
    scope: Scope = Field(default=_FILLED_IN)
    survivors: Survivors = Field(default=_FILLED_IN)
    rewind_step: int = Field(
        default=0, ge=0, le=10_000_000, description="Optimiser steps after which the rewound weights were"
    )
    control: Literal["none", "shuffle", "invert"] = Field(
        default="none", description="Sanity control: shuffle the mask within layers, or invert the score"
    )
    repair: Literal["none", "isometry", "rescale"] = Field(
        default="none", description="After pruning make each layer's weights isometric again, or only rescale the layer"
    )
    skip: tuple[str, ...] = Field(
        default=(), description="Layers that are left alone and not counted, by name; * stands for anything"
    )
    recalibrate: bool = Field(
        default=False, description="Estimate batch normalisation's statistics again after each pruning, before training"
    )
    between: Literal["train", "none"] = Field(
        default="train",
        description="What happens between rounds: training, or nothing (then each sparsity trains by itself)",
    )
    normalise: bool = Field(
        default=False, description="Subtract the training pixels' mean and divide by their standard deviation"
    )
    train: Training = Field(default=_FILLED_IN)
    tune: Training = Field(default=_FILLED_IN)
    seed: int = Field(default=0, ge=0, le=2**31 - 1)
    probes: tuple[Literal["saliency", "masks", "change", "spectra", "jacobians"], ...] = PROBES
    note: str = Field(default="", max_length=64, pattern=r"^[A-Za-z0-9 ._-]*$")
    weights: str = Field(
        default="", description="A file of trained weights: no training before pruning, unless asked for"
    )
    initial: str = Field(default="", description="A file of the weights that those were trained from")
    loss: Literal["", "cross-entropy", "squared"] = Field(
        default="", description="The loss; the network's, if left out"
    )
    content: dict[str, str] = Field(default_factory=dict)  # of each reference: sha256, in the id
    facts: dict[str, dict[str, Any]] = Field(default_factory=dict)  # that follow from the content
    places: dict[str, str] = Field(default_factory=dict)  # on this machine

    @classmethod
    def stored(cls, values: Mapping[str, Any]) -> RunConfig:
        """A configuration as it was written down: complete, so that no registry is asked, and settings that this version does
        not have are left out. Raises InvalidSetting."""
        known = {name: value for name, value in values.items() if name in cls.model_fields}
        if "probes" in known:
            known["probes"] = [name for name in known["probes"] if name in PROBES]
        for name in ("train", "tune"):
            known[name] = {k: v for k, v in dict(known.get(name) or {}).items() if k in Training.model_fields}
        if missing := [
            name for name, said in cls.model_fields.items() if said.default is _FILLED_IN and name not in known
        ]:
            raise InvalidSetting(f"It says nothing of {', '.join(missing)}.")
        try:  # past __init__, which would lose the context
            made = cls.__new__(cls)
            return cls.__pydantic_validator__.validate_python(known, context=_AS_IT_IS, self_instance=made)
        except ValidationError as error:
            raise InvalidSetting(explain(error)) from None

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, given: Any, info: ValidationInfo) -> Any:
        if not isinstance(given, dict) or info.context is _AS_IT_IS:
            return given
        values = {key: value for key, value in given.items() if value is not None}
        if "method" not in values:
            raise InvalidSetting(f"A run needs a method; known: {', '.join(METHODS)}.")
        card = METHODS[values["method"]]
        values = resolved(values)
        facts = values.get("facts") or {}
        data = data_card(values.get("dataset", "digits"), facts, values.get("content") or {})
        network = network_card(values.setdefault("model", data.model), facts)
        network.check(data.shape, len(data.classes))
        params = dict(values.get("params") or {})
        method = method_class(card.key)
        method.suits(network)
        if "loss" in method.model_fields:
            params.setdefault("loss", values.get("loss") or network.loss)
        if str(values.get("repair", "none")) != "none" and "repair" in method.model_fields:
            params.setdefault("repair", False)  # the run's repair takes the place of the method's own
        if "scope" in values and "scope" in method.model_fields:
            params.setdefault("scope", str(values["scope"]))
        if "skip" in values:
            values["skip"] = skip = layers_given(values["skip"])
            if skip and "skip" in method.model_fields:  # L1 filters knows convolutions by number too
                params.setdefault("skip", skip)
        chosen = method.from_params(params)
        values["params"] = chosen.model_dump(mode="json")
        values.setdefault("scope", getattr(chosen, "scope", card.scope))
        values.setdefault("start", card.starts)
        values.setdefault("survivors", card.survivors)
        values["sparsities"] = asked = sparsities_given(values.get("sparsities", SPARSITIES))
        values["rounds"] = rounds_given(values.get("rounds", card.rounds), asked)
        if values["rounds"] == 1:  # nothing lies between: the same run
            values.pop("between", None)
        epochs = 0 if values.get("weights") and _goes_on(values["start"], values["survivors"]) else data.epochs
        values["train"] = train = budget(values.get("train"), {"epochs": epochs, **network.budget})
        values["tune"] = budget(
            values.get("tune"), {**train.model_dump(), "epochs": data.tune_epochs, "lr": train.lr / 2}
        )
        return values

    @field_validator("width")
    @classmethod
    def _known_width(cls, width: float, info: ValidationInfo) -> float:
        if "model" in info.data and info.context is not _AS_IT_IS:
            network_card(info.data["model"], {}).check_width(width)
        return width

    @model_validator(mode="after")
    def _fits_the_units(self, info: ValidationInfo) -> RunConfig:
        if info.context is _AS_IT_IS:
            return self
        card = METHODS[self.method]
        if self.weights and not self.initial:
            self._needs_no_initial(card)
        if self.weights and self.rewind_step:
            raise ValueError("rewind_step counts steps of a training that given weights have behind them; leave it out")
        if self.scope is Scope.STAGE and card.scope is not Scope.STAGE:
            raise ValueError("scope 'stage' is for L1 filters; use global or layer")
        if card.unit.turned:
            if self.survivors is not Survivors.RETAIN:
                raise ValueError(
                    f"survivors of {card.title} are directions of the trained network, which cannot be {_VERBS[self.survivors]}; "
                    "use survivors retain, or Kron-OBD"
                )
            if self.repair != "none":
                raise ValueError(
                    f"{card.title} has no single weights for a repair to move; use repair none, or Kron-OBD"
                )
            if self.scope is not Scope.GLOBAL:
                raise ValueError(f"{card.title} ranks the directions of all layers together; use scope global")
        return self

    def _needs_no_initial(self, card: Card) -> None:
        back = self.start is Start.TRAINED and self.survivors in (Survivors.REWIND, Survivors.REINIT_SIGN)
        reads = card.needs_initial or "initial" in str(self.params.get("criterion", ""))
        if back or reads:
            why = "goes back to" if back else "reads"
            raise Unsuitable(
                f"{card.title} {why} the weights from before training, which given weights do not tell. Name them by --initial FILE."
            )

    @property
    def network(self) -> ModelCard:
        """The card of its network. Raises UnknownName."""
        return network_card(self.model, self.facts)

    @property
    def data(self) -> DataCard:
        """The card of its data. Raises UnknownName."""
        return data_card(self.dataset, self.facts, self.content)

    @property
    def loss_name(self) -> str:
        """The loss that it is trained and scored with."""
        return self.loss or self.network.loss

    @property
    def dense_epochs(self) -> int:
        """Epochs of training before pruning: given weights are trained already, unless more is asked of a run that goes on from them."""
        return 0 if self.weights and not _goes_on(self.start, self.survivors) else self.train.epochs

    @property
    def one_shot(self) -> bool:
        """Whether each sparsity starts from the same network."""
        return self.rounds == 1

    @property
    def epochs(self) -> int:
        """Epochs of training that it takes in all, the dense network's included."""
        trained = len(self.steps if self.between == "train" else self.sparsities)
        return self.dense_epochs + trained * self.after_pruning.epochs

    @property
    def after_pruning(self) -> Training:
        """The budget after pruning: fine-tuning where trained survivors are kept, else the full training."""
        kept = self.start is Start.TRAINED and self.survivors is Survivors.RETAIN
        return self.tune if kept else self.train

    @property
    def steps(self) -> tuple[Step, ...]:
        """The prune-then-train steps, in order."""
        if self.one_shot:
            return tuple(Step(f"shot-{s:g}", s, True) for s in self.sparsities)
        return tuple(
            Step(f"round-{i:03d}", target, requested)
            for i, (target, requested) in enumerate(round_targets(self.sparsities, self.rounds), 1)
        )

    def epochs_spent(self, step: Step) -> int:
        """Training epochs up to the end of a step, the dense network's own included where the run starts from it."""
        alone = self.one_shot or self.between == "none"
        after = 1 if alone else self.steps.index(step) + 1
        return after * self.after_pruning.epochs + (self.dense_epochs if self.start is Start.TRAINED else 0)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> RunConfig:
        """A copy with other values, whose id is its own."""
        copied = super().model_copy(update=update, deep=deep)
        for name in ("given", "id", "dense_key"):
            vars(copied).pop(name, None)
        return copied

    @cached_property
    def given(self) -> dict[str, Any]:
        """The least that has to be said for this very run: its names and seed, and what differs from what is filled in anyway."""
        said: dict[str, Any] = {name: getattr(self, name) for name in _NAMES}
        usual = self._usual(said)
        later = (name for name in type(self).model_fields if name not in (*_NAMES, *_IN_ORDER, *_BESIDE, "note"))
        for name in (*_IN_ORDER, *later):
            mine, theirs = getattr(self, name), getattr(usual, name)
            if mine == theirs:
                continue
            if isinstance(mine, Training):
                mine = {k: v for k, v in mine if v != getattr(theirs, k)}
            elif isinstance(mine, dict):
                mine = {k: v for k, v in mine.items() if v != theirs.get(k)}
                if not mine:  # it lacks a switch that came later
                    continue
            said[name] = mine
            usual = self._usual(said)
        return said | ({"content": self.content} if self.content else {})

    def _usual(self, said: Mapping[str, Any]) -> RunConfig:
        """What is filled in where only so much is said."""
        known = dict.fromkeys(("weights", "initial"), "") | {name: getattr(self, name) for name in _BESIDE}
        return type(self)(**{**known, **said})

    @property
    def canonical(self) -> str:
        """What is :attr:`given` as JSON with sorted keys: equal for equal runs, whatever settings later versions add."""
        return json.dumps(self.given, sort_keys=True, separators=(",", ":"), default=_plain_json)

    @property
    def stands_on(self) -> tuple[str, tuple[int, int, int]]:
        """The digest of the data, and the schemas of loop, network and method."""
        return self.data.digest, (SCHEMA, self.network.schema, METHODS[self.method].schema)

    @cached_property
    def id(self) -> str:
        """Method, model, data set and twelve digits of a hash over everything that the numbers depend on."""
        data, schemas = self.stands_on
        names = (self.method, name_in_ids(self.model), name_in_ids(self.dataset))
        return f"{'-'.join(names)}-{_digest(self.canonical, data, str(schemas))[:12]}"

    @cached_property
    def dense_key(self) -> str:
        """A hash over what the dense network depends on: runs with the same key share it."""
        names = ("dataset", "model", "seed", "width", "normalise", "train", "weights", "initial", "loss", "content")
        said = {name: value for name, value in self.given.items() if name in names}
        data, schemas = self.stands_on
        return _digest(json.dumps(said, sort_keys=True, separators=(",", ":")), data, str(schemas[:2]))[:24]

    @property
    def departures(self) -> tuple[str, ...]:
        """Where this run answers differently from its method's card, in words."""
        names = ("method", "dataset", "model", "sparsities", "weights", "initial", "loss")
        preset = self._usual({name: getattr(self, name) for name in names})
        said = [
            f"{name.replace('_', ' ')} {_plain(getattr(self, name))} instead of {_plain(getattr(preset, name))}"
            for name in (
                "start",
                "survivors",
                "scope",
                "rounds",
                "rewind_step",
                "control",
                "repair",
                "skip",
                "recalibrate",
                "between",
            )
            if getattr(self, name) != getattr(preset, name)
        ]
        said += [
            f"{name} {_plain(value)} instead of {_plain(preset.params[name])}"
            for name, value in self.params.items()
            if value != preset.params[name]
            and name != "scope"
            and not (name == "repair" and self.repair != "none")
            and not (name == "skip" and self.skip)
        ]
        return tuple(said)


def _goes_on(start: Any, survivors: Any) -> bool:
    """Whether a run prunes the trained network and keeps what it has learned."""
    return str(start) == Start.TRAINED and str(survivors) == Survivors.RETAIN


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _plain_json(value: Any) -> Any:
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else str(value)


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ",".join(f"{name}={part:g}" for name, part in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ",".join(map(str, value)) or "none"
    return str(value).lower() if isinstance(value, bool) else str(value)

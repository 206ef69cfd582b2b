"""What a run is, as plain validated data: canonical JSON and an id that follows from it. No torch."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from math import ceil, log
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from pruneviz.datasets import DATASETS
from pruneviz.errors import InvalidSetting
from pruneviz.methods import METHODS, method_class
from pruneviz.methods.base import Scope, Start, Survivors, Unit, explain
from pruneviz.models import MODELS
from pruneviz.models.base import WIDEST
from pruneviz.schedule import round_targets

SCHEMA = 3  # raised when the pipeline's meaning of a configuration changes
SPARSITIES = (0.5, 0.8, 0.9, 0.95, 0.98)
_VERBS = {Survivors.REWIND: "rewound", Survivors.REINIT: "reinitialised", Survivors.REINIT_SIGN: "reinitialised"}
_FILLED_IN: Any = None  # fields that the cards fill in where they are left out
PROBES = ("saliency", "masks", "change", "spectra", "jacobians")
ID = re.compile(r"[a-z0-9][a-z0-9.-]{0,120}-[0-9a-f]{12}")


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    def __init__(self, **values: Any):
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise InvalidSetting(explain(error)) from None


class Training(_Frozen):
    """One training budget: plain minibatch training with a mask."""

    epochs: int = Field(ge=0, le=10_000, description="Passes over the training set")
    batch_size: int = Field(default=64, ge=1, le=65_536, description="Samples a step")
    optimizer: Literal["adam", "sgd"] = Field(default="adam", description="Optimiser")
    lr: float = Field(default=1.2e-3, gt=0, le=10, description="Learning rate")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="Momentum, of SGD only")
    weight_decay: float = Field(default=0.0, ge=0, le=1, description="L2 weight decay")
    keep: Literal["last", "best"] = Field(
        default="last", description="Keep the last epoch, or the best on validation data"
    )


@dataclass(frozen=True)
class Stage:
    """One prune-then-train step: up to ``target``; ``requested`` is True where the user asked for this sparsity."""

    name: str
    target: float
    requested: bool


class RunConfig(_Frozen):
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
    sparsities: tuple[float, ...] = SPARSITIES
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
    normalise: bool = Field(
        default=False, description="Subtract the training pixels' mean and divide by their standard deviation"
    )
    train: Training = Field(default=_FILLED_IN)
    tune: Training = Field(default=_FILLED_IN)
    seed: int = Field(default=0, ge=0, le=2**31 - 1)
    probes: tuple[Literal["saliency", "masks", "change", "spectra", "jacobians"], ...] = PROBES
    note: str = Field(default="", max_length=64, pattern=r"^[A-Za-z0-9 ._-]*$")

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        values = {key: value for key, value in given.items() if value is not None}
        if "method" not in values:
            raise InvalidSetting(f"A run needs a method; known: {', '.join(METHODS)}.")
        card = METHODS[values["method"]]
        data = DATASETS[values.get("dataset", "digits")]
        network = MODELS[values.setdefault("model", data.model)]
        network.check(data.shape, len(data.classes))
        params = dict(values.get("params") or {})
        method = method_class(card.key)
        method.suits(network)
        if "loss" in method.model_fields:
            params.setdefault("loss", network.loss)
        if str(values.get("repair", "none")) != "none" and "repair" in method.model_fields:
            params.setdefault("repair", False)  # the run's repair takes the place of the method's own
        if "scope" in values and "scope" in method.model_fields:
            params.setdefault("scope", str(values["scope"]))
        chosen = method.from_params(params)
        values["params"] = chosen.model_dump(mode="json")
        values.setdefault("scope", getattr(chosen, "scope", card.scope))
        values.setdefault("start", card.starts)
        values.setdefault("survivors", card.survivors)
        values["sparsities"] = asked = _sparsities(values.get("sparsities", SPARSITIES))
        values["rounds"] = _rounds(values.get("rounds", card.rounds), asked)
        values["train"] = train = _budget(values.get("train"), {"epochs": data.epochs, **network.budget})
        values["tune"] = _budget(
            values.get("tune"), {**train.model_dump(), "epochs": data.tune_epochs, "lr": train.lr / 2}
        )
        return values

    @field_validator("width")
    @classmethod
    def _known_width(cls, width: float, info: ValidationInfo) -> float:
        if "model" in info.data:
            MODELS[info.data["model"]].check_width(width)
        return width

    @model_validator(mode="after")
    def _fits_the_units(self) -> RunConfig:
        card = METHODS[self.method]
        if self.scope is Scope.STAGE and card.scope is not Scope.STAGE:
            raise ValueError("scope 'stage' is for L1 filters; use global or layer")
        if card.unit is Unit.EIGENBASIS:
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

    @property
    def one_shot(self) -> bool:
        """Whether each sparsity starts from the same network."""
        return self.rounds == 1

    @property
    def after_pruning(self) -> Training:
        """The budget after pruning: fine-tuning where trained survivors are kept, else the full training."""
        kept = self.start is Start.TRAINED and self.survivors is Survivors.RETAIN
        return self.tune if kept else self.train

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The prune-then-train steps, in order."""
        if self.one_shot:
            return tuple(Stage(f"shot-{s:g}", s, True) for s in self.sparsities)
        return tuple(
            Stage(f"round-{i:03d}", target, requested)
            for i, (target, requested) in enumerate(round_targets(self.sparsities, self.rounds), 1)
        )

    def epochs_spent(self, stage: Stage) -> int:
        """Training epochs up to the end of a stage, the dense network's own included where the run starts from it."""
        stages = self.stages
        after = 1 if self.one_shot else stages.index(stage) + 1
        return after * self.after_pruning.epochs + (self.train.epochs if self.start is Start.TRAINED else 0)

    @property
    def canonical(self) -> str:
        """The configuration as JSON with sorted keys, without the note."""
        return json.dumps(self.model_dump(mode="json", exclude={"note"}), sort_keys=True, separators=(",", ":"))

    @property
    def id(self) -> str:
        """Method, model, data set and twelve digits of a hash over everything that the numbers depend on."""
        data, model, method = DATASETS[self.dataset], MODELS[self.model], METHODS[self.method]
        parts = [self.canonical, data.digest, str((SCHEMA, model.schema, method.schema))]
        digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()
        return f"{self.method}-{self.model}-{self.dataset}-{digest[:12]}"

    @property
    def dense_key(self) -> str:
        """A hash over what the dense network depends on: runs with the same key share it."""
        data, model = DATASETS[self.dataset], MODELS[self.model]
        parts = [
            self.dataset,
            data.digest,
            self.model,
            str((SCHEMA, model.schema, self.width, self.seed, self.normalise)),
            self.train.model_dump_json(),
        ]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:24]

    @property
    def departures(self) -> tuple[str, ...]:
        """Where this run answers differently from its method's card, in words."""
        preset = RunConfig(method=self.method, dataset=self.dataset, model=self.model, sparsities=self.sparsities)
        said = [
            f"{name.replace('_', ' ')} {_plain(getattr(self, name))} instead of {_plain(getattr(preset, name))}"
            for name in ("start", "survivors", "scope", "rounds", "rewind_step", "control", "repair")
            if getattr(self, name) != getattr(preset, name)
        ]
        said += [
            f"{name} {_plain(value)} instead of {_plain(preset.params[name])}"
            for name, value in self.params.items()
            if value != preset.params[name] and name != "scope" and not (name == "repair" and self.repair != "none")
        ]
        return tuple(said)


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ",".join(f"{name}={part:g}" for name, part in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ",".join(map(str, value)) or "none"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _budget(given: Any, defaults: dict[str, Any]) -> Training:
    if isinstance(given, Training):
        return given
    return Training(**{**defaults, **{k: v for k, v in (given or {}).items() if v is not None}})


def _sparsities(given: Any) -> tuple[float, ...]:
    try:
        values = [float(s) for s in ([given] if isinstance(given, int | float | str) else given)]
    except (TypeError, ValueError):
        raise InvalidSetting(f"Sparsities are numbers such as 0.5,0.9; found {given!r}.") from None
    if not values:
        raise InvalidSetting("A run needs at least one sparsity, e.g. 0.5,0.9.")
    for s in values:
        if not 0 <= s < 1:
            hint = f" Did you mean {s / 100:g}?" if 1 < s < 100 else ""
            raise InvalidSetting(f"A sparsity is the fraction removed, at least 0 and below 1; found {s:g}.{hint}")
    return tuple(sorted(set(values)))


def _rounds(given: Any, sparsities: tuple[float, ...]) -> int:
    """None: one shot. A whole number: rounds up to the last sparsity, at least one for each. A share: that much a round."""
    if given is None or given == 1:
        return 1
    if isinstance(given, float) and 0 < given < 1:
        given = ceil(log(1 - sparsities[-1]) / log(1 - given) - 1e-9)
    elif isinstance(given, bool) or not isinstance(given, int | str) or not str(given).isdecimal():
        raise InvalidSetting(f"rounds is a whole number from 1 to 500; found {given!r}.")
    given = int(given)
    return max(given, len(sparsities)) if given > 0 else given

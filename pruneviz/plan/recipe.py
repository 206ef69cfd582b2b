"""How a network is trained: one budget, as plain validated data. No torch."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pruneviz.basics.errors import InvalidSetting
from pruneviz.methods.base import explain


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    def __init__(self, **values: Any):
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise InvalidSetting(explain(error)) from None


class Training(Frozen):
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


def budget(given: Any, defaults: dict[str, Any]) -> Training:
    if isinstance(given, Training):
        return given
    return Training(**{**defaults, **{k: v for k, v in (given or {}).items() if v is not None}})

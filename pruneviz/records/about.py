"""What it takes to look at a run: the words of its cards, which it carries, so that looking never asks a registry."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from pruneviz.basics.citation import Paper
from pruneviz.records.units import Unit

GREY = "#808080"
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def plain_text(text: str, most: int = 200) -> str:
    """A stranger's words as one line of text: no control characters, and no angle brackets, which charts read as markup."""
    return _CONTROL.sub(" ", text).replace("<", "‹").replace(">", "›").strip()[:most]


class About(BaseModel):
    """The words of a run's method, network and data, as its cards had them when it was asked for.

    ``place``: of the method in its catalogue; ``usual``: the start that its paper has; ``predicts``: whether its score is a rise of
    the loss; ``departures`` from the paper, each with what it ``changes``. Whatever is not as it should be becomes its default.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    method: str = ""
    idea: str = ""
    unit: str = Unit.WEIGHT
    removes: str = Unit.WEIGHT.plural
    colour: str = Field(default=GREY, pattern=r"^#[0-9a-fA-F]{6}$")
    mark: str = Field(default="circle", pattern=r"^[a-z-]{1,24}$")
    place: int = 999
    usual: str = ""
    predicts: bool = False
    paper: Paper | None = None
    departures: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()
    network: str = ""
    layers: str = ""
    loss: str = "cross-entropy"
    data: str = ""
    sizes: tuple[int, ...] = ()
    shape: tuple[int, ...] = ()
    classes: tuple[str, ...] = ()

    @field_validator("*", mode="after")
    @classmethod
    def _as_text(cls, value: Any) -> Any:
        if isinstance(value, str):
            return plain_text(value)
        if isinstance(value, tuple):
            return tuple(plain_text(v, 1000) if isinstance(v, str) else v for v in value[:1000])
        if isinstance(value, Paper):
            return replace(
                value, **{name: plain_text(v, 1000) for name, v in vars(value).items() if isinstance(v, str)}
            )
        return value

    @classmethod
    def read(cls, given: Any, *, method: str = "", model: str = "", dataset: str = "") -> About:
        """What a run carries; where it carries nothing, or a field is not as it should be, its keys and defaults."""
        values: dict[str, Any] = {"method": method, "network": model, "data": dataset}
        values |= given if isinstance(given, dict) else {}
        try:
            return cls(**values)
        except ValidationError as error:
            wrong = {str(item["loc"][0]) for item in error.errors()}
            return cls(**{name: value for name, value in values.items() if name not in wrong})

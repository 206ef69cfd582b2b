"""Widgets made from a method's pydantic fields: range, default and help come from the field itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args, get_origin

import streamlit as st
from pydantic.fields import FieldInfo

from pruneviz.basics.errors import InvalidSetting
from pruneviz.datasets import DATASETS
from pruneviz.datasets.base import DataCard
from pruneviz.methods.base import Method, Start, Survivors
from pruneviz.models.base import WIDEST, ModelCard


def follow_data() -> None:
    """Another data set was chosen: its usual network and its budgets take the place of the last one's."""
    data = DATASETS[st.session_state["data"]]
    st.session_state.update({"model": data.model, "epochs": data.epochs, "tune": data.tune_epochs})


PAPER = "the paper's"
_HELP = {
    "survivors": "EigenDamage's survivors are directions of the trained network: they can only be retained.",
    "scope": "L1 filters' own is one share for all layers of a stage, which no other method has; EigenDamage ranks over all layers.",
}


def settings(data: DataCard) -> dict[str, Any]:
    """Widgets for what all methods share: budgets, schedule, and the answers that a run may change; as RunConfig takes them."""
    epochs, tune, rounds, rewind = st.columns(4)
    given: dict[str, Any] = {
        "train": {
            "epochs": epochs.number_input(
                "Training epochs", 0, 1000, data.epochs, key="epochs", bind="query-params",
                help="For the dense network, and after pruning where a method starts from initial weights or rewinds to them.",
            )
        },
        "tune": {
            "epochs": tune.number_input(
                "Fine-tuning epochs", 0, 1000, data.tune_epochs, key="tune", bind="query-params",
                help="After pruning, where trained survivors are kept.",
            )
        },
        "rounds": rounds.number_input(
            "Rounds", 0, 100, 0, key="rounds", bind="query-params",
            help="0: the paper's. 1: one shot. More: prune and train in turns.",
        ) or None,
        "rewind_step": rewind.number_input(
            "Rewind to step", 0, 1_000_000, 0, key="rewind", bind="query-params",
            help="For survivors that rewind: 0 is the initial weights.",
        ) or None,
    }  # fmt: skip
    start, survivors, scope = st.columns(3)
    for name, column, label, options in (
        ("start", start, "Start", list(map(str, Start))),
        ("survivors", survivors, "Survivors", list(map(str, Survivors))),
        ("scope", scope, "Rank", ["global", "layer"]),
    ):
        value = column.selectbox(label, [PAPER, *options], key=name, bind="query-params", help=_HELP.get(name))
        given[name] = None if value == PAPER else value
    repair, control, pixels = st.columns(3, vertical_alignment="bottom")
    given["repair"] = repair.selectbox(
        "Repair after pruning", ["none", "isometry", "rescale"], key="repair", bind="query-params",
        help="Move the survivors until each layer keeps the size of signals again, or only rescale each layer (the control).",
    )  # fmt: skip
    given["control"] = control.selectbox(
        "Sanity control", ["none", "shuffle", "invert"], key="control", bind="query-params",
        help="Shuffle the mask within each layer, or remove the best instead of the worst.",
    )  # fmt: skip
    given["normalise"] = pixels.toggle(
        "Normalise the inputs", key="normalise", bind="query-params",
        help="Subtract the training samples' mean and divide by their standard deviation.",
    )  # fmt: skip
    return given


def width(card: ModelCard) -> dict[str, float]:
    """A widget for the width of a network that has one; as RunConfig takes it."""
    if not card.widths:
        return {}
    return {
        "width": st.number_input(
            "Width", 0.01, float(WIDEST), 1.0, 0.125, "%g", key="width", bind="query-params",
            help="A factor on the channels of all layers: 0.125 is an eighth of them, with about a sixty-fourth of the weights.",
        )
    }  # fmt: skip


def switches(cls: type[Method], *, key: str) -> dict[str, Any]:
    """One widget for each of a method's switches; returns the values that differ from the defaults."""
    fields = {name: field for name, field in cls.model_fields.items() if name != "scope"}
    values = {name: _widget(name, field, f"{key}.{name}") for name, field in fields.items()}
    return {switch: value for switch, value in values.items() if value != _default(fields[switch])}


def _default(field: FieldInfo) -> Any:
    return field.get_default(call_default_factory=True, validated_data={})


def _widget(name: str, field: FieldInfo, key: str) -> Any:
    label, default, text = name.replace("_", " "), _default(field), field.description
    if field.annotation is bool:
        return st.toggle(label, default, key=key, help=text, bind="query-params")
    if get_origin(field.annotation) is Literal:
        options = list(get_args(field.annotation))
        return st.selectbox(label, options, options.index(default), key=key, help=text, bind="query-params")
    if get_origin(field.annotation) in (dict, tuple):  # typed in; the method reads the text
        example = "e.g. 1=0.5, 4=0.5" if get_origin(field.annotation) is dict else "e.g. 15, 20"
        typed = st.text_input(label, key=key, help=text, bind="query-params", placeholder=example)
        return typed if typed.strip() else default
    words = [word for part in get_args(field.annotation) for word in get_args(part)]
    if words:  # int | Literal[...]: one of the words, or a number typed in
        typed = st.selectbox(
            label, words, words.index(default), key=key, help=text, bind="query-params", accept_new_options=True
        )
        return int(typed) if str(typed).isdecimal() else typed
    if field.annotation not in (int, float):  # typed in; the method reads the text
        typed = st.text_input(label, "" if default is None else str(default), key=key, help=text, bind="query-params")
        return typed if typed.strip() not in ("", str(default)) else default
    limits = {type(rule).__name__: rule for rule in field.metadata}
    low = getattr(limits.get("Ge"), "ge", getattr(limits.get("Gt"), "gt", None))
    high = getattr(limits.get("Le"), "le", getattr(limits.get("Lt"), "lt", None))
    kind = int if field.annotation is int else float
    bounds = [None if limit is None else kind(limit) for limit in (low, high)]
    look = {"format": "%g", "step": kind(default) / 10 or 0.1} if kind is float else {}
    return st.number_input(label, *bounds, value=kind(default), key=key, help=text, bind="query-params", **look)


def numbers(text: str, kind: Callable[[str], Any], what: str, example: str) -> list[Any]:
    """The numbers in a text, separated by commas or spaces. Raises InvalidSetting, with an example."""
    try:
        return [kind(part) for part in text.replace(",", " ").split()]
    except ValueError:
        raise InvalidSetting(f"{what} are numbers separated by commas, e.g. {example}; found {text!r}.") from None

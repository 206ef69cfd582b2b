"""Widgets made from a method's pydantic fields: range, default and help come from the field itself."""

from __future__ import annotations

from typing import Any, Literal, get_args, get_origin

import streamlit as st
from pydantic.fields import FieldInfo

from pruneviz.datasets import DATASETS
from pruneviz.methods.base import Method


def follow_data() -> None:
    """Another data set was chosen: its usual network and its budgets take the place of the last one's."""
    data = DATASETS[st.session_state["data"]]
    st.session_state.update({"model": data.model, "epochs": data.epochs, "tune": data.tune_epochs})


def switches(cls: type[Method], *, key: str) -> dict[str, Any]:
    """One widget for each of a method's switches; returns the values that differ from the defaults."""
    values = {
        name: _widget(name, field, f"{key}.{name}") for name, field in cls.model_fields.items() if name != "scope"
    }
    return {name: value for name, value in values.items() if value != cls.model_fields[name].default}


def _widget(name: str, field: FieldInfo, key: str) -> Any:
    label, default, text = name.replace("_", " "), field.default, field.description
    if field.annotation is bool:
        return st.toggle(label, default, key=key, help=text, bind="query-params")
    if get_origin(field.annotation) is Literal:
        options = list(get_args(field.annotation))
        return st.selectbox(label, options, options.index(default), key=key, help=text, bind="query-params")
    words = [word for part in get_args(field.annotation) for word in get_args(part)]
    if words:  # int | Literal[...]: one of the words, or a number typed in
        typed = st.selectbox(
            label, words, words.index(default), key=key, help=text, bind="query-params", accept_new_options=True
        )
        return int(typed) if str(typed).isdecimal() else typed
    limits = {type(rule).__name__: rule for rule in field.metadata}
    low = getattr(limits.get("Ge"), "ge", getattr(limits.get("Gt"), "gt", None))
    high = getattr(limits.get("Le"), "le", getattr(limits.get("Lt"), "lt", None))
    kind = int if field.annotation is int else float
    bounds = [None if limit is None else kind(limit) for limit in (low, high)]
    return st.number_input(label, *bounds, value=kind(default), key=key, help=text, bind="query-params")

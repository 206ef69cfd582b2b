"""Widgets made from a method's pydantic fields: range, default and help come from the field itself."""

from __future__ import annotations

from typing import Any, Literal, get_args, get_origin

import streamlit as st
from pydantic.fields import FieldInfo

from pruneviz.methods.base import Method


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
    limits = {type(rule).__name__: rule for rule in field.metadata}
    low = getattr(limits.get("Ge"), "ge", getattr(limits.get("Gt"), "gt", None))
    high = getattr(limits.get("Le"), "le", getattr(limits.get("Lt"), "lt", None))
    kind = int if field.annotation is int else float
    bounds = [None if limit is None else kind(limit) for limit in (low, high)]
    return st.number_input(label, *bounds, value=kind(default), key=key, help=text, bind="query-params")

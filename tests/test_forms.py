"""Widgets made from switches: what is typed and chosen on the Run page reaches the runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from reading import read

PAGE = Path(__file__).resolve().parent.parent / "pages" / "run.py"


@pytest.fixture
def page(tmp_path, monkeypatch):
    """The Run page with structured methods chosen."""
    testing = pytest.importorskip("streamlit.testing.v1", reason="streamlit is not installed")
    monkeypatch.setenv("PRUNEVIZ_STORE", str(tmp_path))
    made = testing.AppTest.from_file(str(PAGE), default_timeout=60).run()
    made.selectbox(key="model").set_value("digits-cnn").run()
    return made.button_group(key="methods").set_value(["l1-filters", "eigendamage"]).run()


def test_ratios_of_stages_and_layers_to_skip_are_typed_in(page):
    assert not page.exception
    page.text_input(key="l1-filters.per_stage").set_value("1=0.5, 2=0.25").run()
    page.text_input(key="l1-filters.skip").set_value("2").run()
    assert not page.exception
    assert not page.error
    told = read("\n".join(text.value for text in page.markdown))
    assert "**per stage** 1=0.5,2=0.25 instead of none" in told
    assert "**skip** 2 instead of none" in told


def test_a_ratio_that_cannot_be_read_is_answered_with_the_mend(page):
    page.text_input(key="l1-filters.per_stage").set_value("half").run()
    (error,) = page.error
    assert "per_stage is written 1=0.5,4=0.5; found 'half'" in read(error.value)


def test_what_sparsity_means_for_whole_units_is_told(page):
    told = [text.value for text in page.caption]
    assert "For L1 filters, EigenDamage: the fraction of weights that the smaller network no longer has." in told
    page.button_group(key="methods").set_value(["snip"]).run()
    assert not any("smaller network" in text.value for text in page.caption)


def test_switches_of_any_kind_have_a_widget():
    testing = pytest.importorskip("streamlit.testing.v1", reason="streamlit is not installed")

    def script() -> None:
        import streamlit as st
        from pydantic import Field

        from pruneviz.methods.base import Method
        from pruneviz.ui import forms

        class Odd(Method):
            name: str = Field(default="plain", description="A word")
            limit: float | None = Field(default=None, description="A number, or none")

        st.json(forms.switches(Odd, key="odd"))

    made = testing.AppTest.from_function(script).run()
    assert not made.exception
    assert json.loads(made.json[0].value) == {}
    made.text_input(key="odd.name").set_value("fancy").run()
    made.text_input(key="odd.limit").set_value("0.5").run()
    assert json.loads(made.json[0].value) == {"name": "fancy", "limit": "0.5"}

"""What a person chose outlives what a page can show, without a browser."""

from __future__ import annotations

import pytest

testing = pytest.importorskip("streamlit.testing.v1")


def script() -> None:
    import streamlit as st

    from pruneviz.ui.pick import kept

    kept.show(layer=st.session_state.get("near") or kept.wish("layer") or "usual")
    if st.session_state.get("mine"):
        kept.choose(layer=st.session_state.pop("mine"))
    st.text(kept.wish("layer"))


def wished(run) -> str:
    assert not run.exception
    return run.text[0].value


def test_what_a_page_shows_for_want_of_a_wish_is_no_wish():
    run = testing.AppTest.from_function(script).run()
    assert (wished(run), run.query_params["layer"]) == ("None", "usual")
    assert wished(run.run()) == "None"


def test_a_link_is_a_wish_and_the_nearest_in_its_place_is_none():
    run = testing.AppTest.from_function(script)
    run.query_params["layer"] = "3"
    assert wished(run.run()) == "3"
    run.session_state["near"] = "2"
    assert (wished(run.run()), run.query_params["layer"]) == ("3", "2")
    assert wished(run.run()) == "3"
    run.query_params["layer"] = "4"  # another link, or the browser's way back
    assert wished(run.run()) == "4"


def test_a_person_s_choice_replaces_what_the_link_asked_for():
    run = testing.AppTest.from_function(script)
    run.query_params["layer"] = "3"
    run.session_state["mine"] = "5"
    assert wished(run.run()) == "5"
    assert wished(run.run()) == "5"

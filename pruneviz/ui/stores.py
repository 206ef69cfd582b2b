"""The one store that the pages read."""

from __future__ import annotations

import os

import streamlit as st

from pruneviz.errors import StoreError
from pruneviz.store import Store

SHARED = bool(os.environ.get("PRUNEVIZ_SHARED"))


@st.cache_resource(show_spinner=False)
def _opened() -> tuple[Store, str]:
    try:
        return Store(), ""
    except StoreError as error:
        return Store(readonly=True), str(error)


def open_store() -> Store:
    """The store; where it cannot be written the page says so and what is finished stays readable."""
    store, problem = _opened()
    if problem:
        st.error(f"{problem} Until then nothing can be run; finished results are shown.", icon=":material/error:")
        if st.button("Try again"):
            _opened.clear()
            st.rerun()
    return store

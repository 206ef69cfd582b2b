"""The one store that the pages read."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress

import streamlit as st

from pruneviz.basics.errors import PrunevizError, StoreError
from pruneviz.store import Run, Store
from pruneviz.ui.text import plain

SHARED = bool(os.environ.get("PRUNEVIZ_SHARED"))


@st.cache_resource(show_spinner=False)
def _opened() -> tuple[Store, str]:
    try:
        return Store(), ""
    except StoreError as error:
        return Store(readonly=True), str(error)


def readable(store: Store, ids: Iterable[str]) -> list[Run]:
    """Those of the runs that can be read: what is wrong with the others stands on the Runs page."""
    found = []
    for id_ in ids:
        with suppress(PrunevizError):
            found.append(store.run(id_))
    return found


def open_store() -> Store:
    """The store; where it cannot be written the page says so and what is finished stays readable."""
    store, problem = _opened()
    if problem:
        st.error(
            f"{plain(problem)} Until then nothing can be run; finished results are shown.", icon=":material/error:"
        )
        if st.button("Try again"):
            _opened.clear()
            st.rerun()
    return store

"""The button that runs a method of each of the nine papers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

from pruneviz.plan.comparison import nine

if TYPE_CHECKING:
    from pruneviz.store import Store


def run_all_nine(store: Store) -> None:
    """Queue the nine runs and go where one watches them."""
    asked = st.button(
        "Run all nine on digits",
        type="primary",
        icon=":material/rocket_launch:",
        disabled=store.readonly,
        help="One method of each paper, a small network, six sparsities: about a minute. You watch the curves fill in.",
    )
    if asked:
        st.switch_page("pages/run.py", query_params={"watch": ",".join(store.queue(nine().configs))})

"""What all pages share, kept from page to page: sparsity, layer, columns that ``pin`` or ``hide`` names.

A page's own controls come back with it; one that several pages have is another widget on each, and the address is empty after
a page switch. So what is shared is a *wish*, which only a link or a person's own hand sets. A page whose runs do not have it
shows the nearest, says so in its address, and leaves the wish as it is.
"""

from __future__ import annotations

import streamlit as st

_WISHES, _SHOWN = "wishes", "shown in the address"


def wish(name: str) -> str | None:
    """What a link or a person asked for last, on any page; None where nobody did."""
    wishes, shown = st.session_state.setdefault(_WISHES, {}), st.session_state.setdefault(_SHOWN, {})
    asked = st.query_params.get(name)
    if asked is not None and asked != shown.get(name):  # not what the page wrote there by itself
        wishes[name] = shown[name] = asked
    return wishes.get(name)


def choose(**values: str) -> None:
    """A person's own choice, from a widget's callback."""
    for name in values:
        wish(name)  # a link that was followed just now is older
    st.session_state[_WISHES].update(values)


def show(**values: str) -> None:
    """Write what the page shows into its address, so that the link shows the same; an empty text leaves the address."""
    for name, value in values.items():
        wish(name)
        st.session_state[_SHOWN][name] = value
        if value and st.query_params.get(name) != value:
            st.query_params[name] = value
        elif not value and name in st.query_params:
            del st.query_params[name]

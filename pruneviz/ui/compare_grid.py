"""The Compare page's grid: runs as columns, four views as rows, moved by one slider in the browser without a rerun."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import streamlit as st

from pruneviz.figures import grid
from pruneviz.figures.base import MAX_RUNS, SPARSITY, module, too_many
from pruneviz.ui.card import state

if TYPE_CHECKING:
    from pruneviz.store import Run


_component = st.components.v2.component("pruneviz_compare_grid", html=grid.HTML, css=grid.CSS, js=grid.JS)


def compare_grid(
    runs: Sequence[Run], *, sparsity: float | None = None, layer: str | None = None, key: str = "grid"
) -> tuple[float, str | None]:
    """Draw up to six runs side by side; returns the sparsity and the layer that the user looks at.

    ``sparsity`` and ``layer`` are wishes, say from a link: they count when first given and whenever they change. The
    data of all sparsities and layers goes to the browser once; a move comes back some 400 ms after it ended.
    """
    runs, layer = list(runs), module(layer) if layer else None
    if not runs:
        st.info("Choose two to six finished runs to see them side by side.")
        return sparsity if sparsity is not None else SPARSITY, layer
    if len(runs) > MAX_RUNS:
        st.caption(too_many(runs))
    sent = _payload(tuple(state(run) for run in runs), runs)
    if sent["left_out"]:
        st.caption(f"The {len(sent['layers'])} largest layers are here; {sent['left_out']} smaller ones are left out.")
    memory = st.session_state.setdefault(f"{key}-wish", {"turn": 0, "known": [], "stale": None})
    told = (st.session_state.get(key) or {}).get("view")
    asked = (sparsity, layer)
    if asked not in memory["known"] and not (told and asked == (told["sparsity"], told["layer"])):
        # A new wish. Where the page only repeats what it asked or got before, the data stays and is not sent again.
        memory |= {"turn": memory["turn"] + 1, "wish": asked, "stale": told}
    wish = {"sparsity": memory["wish"][0], "layer": memory["wish"][1]}
    view = _component(key=key, data={**sent, "turn": memory["turn"], "wish": wish}, on_view_change=lambda: None).view
    seen = (
        (float(view["sparsity"]), view["layer"]) if view and view != memory["stale"] else _first(sent, *memory["wish"])
    )
    memory["known"] = [asked, seen]
    return seen


def _first(sent: dict[str, Any], sparsity: float | None, layer: str | None) -> tuple[float, str | None]:
    """What the browser shows before anyone has moved anything."""
    names = [each["name"] for each in sent["layers"]]
    asked = sparsity if sparsity is not None else SPARSITY
    near = min(sent["sparsities"], key=lambda s: abs(s - asked), default=asked)
    return near, layer if layer in names else names[sent["layer"]] if names else None


@st.cache_data(max_entries=50, show_spinner=False)
def _payload(states: tuple[tuple[str, str], ...], _runs: list[Run]) -> dict[str, Any]:
    """The grid's data with a digest, so that the browser knows when it is the same."""
    found = grid.payload(_runs)
    return {"id": hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()[:16], **found}

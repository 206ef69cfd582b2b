"""The Compare page's grid: columns are runs or methods, rows are views, moved in the browser without a rerun."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import streamlit as st
from streamlit.components.v2 import component

from pruneviz.basics.errors import PrunevizError
from pruneviz.figures import grid
from pruneviz.figures.base import MAX_RUNS, SPARSITY, module, too_many
from pruneviz.ui import pick
from pruneviz.ui.card import state
from pruneviz.ui.pick import kept
from pruneviz.ui.text import plain

if TYPE_CHECKING:
    from pruneviz.store import Run

_component = component("pruneviz_compare_grid", html=grid.HTML, css=grid.CSS, js=grid.JS)

_COVER = "[data-testid=stHeader]"  # opaque while the sidebar is folded


@dataclass(frozen=True)
class View:
    """What someone looks at: sparsity and layer, the columns' order, and which are pinned or hidden (ids of runs)."""

    sparsity: float | None = None
    layer: str | None = None
    order: tuple[str, ...] = ()
    pinned: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()

    @classmethod
    def asked(cls, runs: Sequence[Run]) -> View:
        """What was chosen by a link or on any page, with the runs as they stand in the address."""

        def listed(name: str) -> tuple[str, ...]:
            named = (kept.wish(name) or "").split(",")
            return tuple(run.id for run in runs if run.id in named)

        return cls(
            pick.share(kept.wish("sparsity")),
            module(kept.wish("layer") or "") or None,
            tuple(run.id for run in runs),
            listed("pin"),
            listed("hide"),
        )

    def said(self, *, columns: bool) -> dict[str, str]:
        """As an address says it."""
        said = {"sparsity": "" if self.sparsity is None else f"{self.sparsity:g}", "layer": self.layer or ""}
        return said | ({"pin": ",".join(self.pinned), "hide": ",".join(self.hidden)} if columns else {})


def compare_grid(
    runs: Sequence[Run],
    view: View,
    *,
    seeds: Mapping[str, Sequence[Run]] | None = None,
    fixed: bool = False,
    key: str = "grid",
) -> View:
    """Draw up to six runs side by side; returns what the user looks at.

    ``view`` is a wish, say from a link: it counts when first given and whenever it changes. The data of all sparsities
    and layers goes to the browser once; a move comes back some 400 ms after it ended. ``seeds``: columns are methods,
    see :func:`pruneviz.figures.grid.payload`. ``fixed`` columns are neither moved, pinned nor hidden.
    """
    if len(runs) > MAX_RUNS:
        st.caption(plain(too_many(runs)))
    view = view if view.order else replace(view, order=tuple(run.id for run in runs))
    view = replace(view, pinned=(), hidden=()) if fixed else view
    # Sorted, so that the columns' order is no part of the data: a move sends nothing again.
    runs = sorted(list(runs)[:MAX_RUNS], key=lambda run: run.id)
    siblings = [sibling for run in runs for sibling in (seeds or {}).get(run.id, ())]
    try:
        sent = _payload(tuple(map(state, runs)), tuple(map(state, siblings)), runs, seeds)
    except PrunevizError as error:
        st.error(plain(f"Side by side: {error}"), icon=":material/broken_image:")
        return view
    if sent["left_out"]:
        st.caption(
            f"The {len(sent['layers'])} largest layers are here; {sent['left_out']:d} smaller ones are left out."
        )
    view = _near(view, sent)
    memory = st.session_state.setdefault(f"{key}-wish", {"turn": 0, "wish": None, "asked": None, "stale": None})
    told, wish = _told(key), memory["wish"]
    shown = wish and _seen(memory, told)
    fresh = told is None and view not in (wish, shown)  # the page was left, and the browser starts anew
    if fresh or view not in (memory["asked"], shown):
        # Where the page only repeats what it asked or got before, the data stays and is not sent again.
        memory |= {"turn": memory["turn"] + 1, "wish": view, "stale": told}
    memory["asked"] = view
    data = {**sent, "fixed": fixed, "cover": _COVER, "turn": memory["turn"], "wish": asdict(memory["wish"])}
    _component(key=key, data=data, on_view_change=lambda: _followed(key, columns=not fixed))
    seen = memory["seen"] = _seen(memory, _told(key))
    kept.show(**seen.said(columns=not fixed))
    return seen


def _told(key: str) -> View | None:
    """What the browser last told."""
    told = (st.session_state.get(key) or {}).get("view")
    return told and View(
        told["sparsity"], told["layer"], *(tuple(told[name]) for name in ("order", "pinned", "hidden"))
    )


def _followed(key: str, *, columns: bool) -> None:
    """Before the page runs again, its menus and the other pages follow what was done in the browser, and only that: what was
    shown for want of what was chosen is no choice."""
    if told := _told(key):
        before = st.session_state[f"{key}-wish"]["seen"].said(columns=columns)
        kept.choose(**{name: text for name, text in told.said(columns=columns).items() if text != before[name]})
        if columns:
            pick.reorder(told.order)


def _seen(memory: Mapping[str, Any], told: View | None) -> View:
    """What the browser shows: what it told since the last wish, or else that wish."""
    return told if told and told != memory["stale"] else memory["wish"]


def _near(view: View, sent: dict[str, Any]) -> View:
    """The view as these runs can show it: the nearest sparsity, a layer that they have."""
    names = [each["name"] for each in sent["layers"]]
    near = pick.nearest(sent["sparsities"], SPARSITY if view.sparsity is None else view.sparsity)
    layer = view.layer if view.layer in names else names[sent["layer"]] if names else None
    return replace(view, sparsity=near, layer=layer)


@st.cache_data(max_entries=50, show_spinner=False)
def _payload(
    states: tuple[tuple[str, str], ...],
    siblings: tuple[tuple[str, str], ...],
    _runs: list[Run],
    _seeds: Mapping[str, Sequence[Run]] | None,
) -> dict[str, Any]:
    """The grid's data with a digest, so that the browser knows when it is the same."""
    found = grid.payload(_runs, _seeds)
    return {"id": hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()[:16], **found}

"""Which runs, which sparsity, which layer: chosen once, kept in the address, carried from page to page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd
import streamlit as st

from pruneviz.config import RunConfig
from pruneviz.datasets import DATASETS
from pruneviz.errors import PrunevizError
from pruneviz.figures import base
from pruneviz.methods import METHODS
from pruneviz.models import MODELS
from pruneviz.models.base import in_words
from pruneviz.store import Run, Store

_CHOSEN, _WIDGET, _NETWORK, _LOOK = "chosen runs", "picked runs", "picked network", "looked at"


def runs(store: Store, *, most: int = base.MAX_RUNS) -> list[Run]:
    """The runs that the address names, else those chosen before, else one of each method on the newest network. None where
    someone took all of them away."""
    table = store.runs()
    table = table[table["state"] == "succeeded"]
    if table.empty:
        with st.container(border=True):
            st.markdown(":material/hourglass_empty: **No finished run yet**")
            st.caption(
                "Scores, masks, spectra and curves appear here as soon as a run has ended. A small one takes seconds."
            )
            st.page_link("pages/run.py", label="Run a pruning method", icon=":material/play_circle:")
        st.stop()
    chosen = _from_address(set(table["id"]))
    networks = {network(row): row for row in table.to_dict("records")}
    of_run = {row["id"]: network(row) for row in table.to_dict("records")}
    emptied = st.session_state.get(_CHOSEN) == [] and st.session_state.get(_NETWORK) in networks
    if not chosen and not emptied:
        chosen = one_of_each(table[[network(r) == next(iter(networks)) for r in table.to_dict("records")]], most)
    if chosen:
        st.session_state[_NETWORK] = of_run[chosen[0]]
    left, right = st.columns([1, 2.6], vertical_alignment="bottom")
    left.selectbox("Network and data", list(networks), key=_NETWORK, on_change=_new_network, args=(table, most))
    wanted = st.session_state[_NETWORK]
    among = [store.run(id_) for id_, name in of_run.items() if name == wanted]
    names = base.labels(among)
    order = {key: i for i, key in enumerate(METHODS)}
    among.sort(key=lambda run: (order.get(run.config.method, 99), str(run.config.start), run.config.seed))
    st.session_state[_WIDGET] = [id_ for id_ in chosen if id_ in names][:most]
    picked = right.multiselect(
        f"Runs (up to {most})", [r.id for r in among], key=_WIDGET, format_func=names.__getitem__, max_selections=most,
        placeholder="Choose runs to compare", wrap=True, on_change=_new_runs,
    )  # fmt: skip
    _remember(picked)
    by_id = {run.id: run for run in among}
    return [by_id[id_] for id_ in picked]


def another(store: Store, found: Sequence[Run], most: int = 4) -> None:
    """A panel beside a lone run: what could stand next to it, a click each."""
    table = store.runs()
    table = table[table["state"] == "succeeded"]
    here = network(found[0].config.model_dump()) if found else None
    same = table[[here in (None, network(row)) for row in table.to_dict("records")]]
    rest = same[~same["id"].isin([run.id for run in found])]
    others = rest[~rest["method"].isin([run.config.method for run in found])]
    offered = [store.run(id_) for id_ in one_of_each(others if len(others) else rest, most)]
    names = base.labels([*found, *offered])
    with st.container(border=True):
        st.markdown(":material/view_column: **Set another run beside it**")
        st.caption(
            "A column for each run, the same rows for all: differences show at once. Choose above, or take one of these."
            if offered
            else f"This is the only finished run of {here}. Another method on the same network can stand beside it."
        )
        with st.container(horizontal=True):
            for run in offered:
                st.button(names[run.id], key=f"add {run.id}", icon=":material/add:", on_click=add, args=(run.id,))
            if not offered:
                st.page_link("pages/run.py", label="Run another method", icon=":material/play_circle:")


def sparsity(found: Sequence[Run], *, label: str = "Sparsity (weights removed)") -> float:
    """One of the sparsities that the runs recorded: that of the address, else the one looked at last; ``sparsity=0.9``."""
    options = sorted({s for run in found for s in base.sparsities(run)})
    if not options:
        return base.SPARSITY

    def nearest(text: str | None) -> float:
        return min(options, key=lambda s: abs(base.spaced(s) - base.spaced(share(text))))

    _ask("sparsity", options, nearest)
    value = st.select_slider(label, options, format_func=base.percent, key="sparsity")
    look(sparsity=f"{value:g}")
    return value


def share(text: str | None) -> float:
    """The sparsity that an address names, "0.9" or "90%"; the usual one where it names none."""
    try:
        found = float(text.rstrip("%")) / (100 if text.endswith("%") else 1) if text else base.SPARSITY
    except ValueError:
        return base.SPARSITY
    return found if 0 <= found < 1 else base.SPARSITY


def layer(found: Sequence[Run]) -> str | None:
    """One layer of the network: that of the address, else the one looked at last, else that with most weights; ``layer=0``."""
    sizes = base.layers(found)
    if not sizes:
        return None
    usual = base.chosen(found, None) or next(iter(sizes))
    _ask("layer", list(sizes), lambda text: base.module(text) if text and base.module(text) in sizes else usual)
    value = st.selectbox("Layer", list(sizes), key="layer", format_func=lambda name: f"{name}: {sizes[name]:,} weights")
    look(layer=value)
    return value


def _ask(key: str, options: list, read: Callable[[str | None], Any]) -> None:
    """Give a widget its value where it has none, or where a link asks for another than was looked at last."""
    asked, last = st.query_params.get(key), looked(key)
    if (asked is not None and asked != last) or st.session_state.get(key) not in options:
        st.session_state[key] = read(asked if asked is not None else last)


def looked(name: str) -> str | None:
    """What was looked at last on any page: the ``sparsity``, the ``layer``, columns that ``pin`` or ``hide`` names."""
    return st.session_state.get(_LOOK, {}).get(name)


def look(**values: str) -> None:
    """Keep what is looked at, for the other pages and in the address: all of it, so that a link says what it shows."""
    st.session_state.setdefault(_LOOK, {}).update(values)
    for name, value in values.items():
        if value and st.query_params.get(name) != value:
            st.query_params[name] = value
        elif not value and name in st.query_params:
            del st.query_params[name]


def clicked_layer(key: str) -> None:
    """A click on a bar of a chart whose x axis names layers: the layer menu follows. Empty selections say nothing."""
    points = st.session_state[key]["selection"]["points"]
    if points:
        st.session_state["layer"] = str(points[0]["x"])


def network(row: Mapping) -> str:
    """The network and its data, in words: what a row of ``store.runs()`` or a configuration ran on."""
    return f"{model(row)} on {DATASETS[row['dataset']].title}"


def model(row: Mapping) -> str:
    """The network in words, with its width where that is not 1."""
    width = f", width {in_words(row['width'])}" if row["width"] != 1 else ""
    return f"{MODELS[row['model']].title}{width}"


def _from_address(known: set[str]) -> list[str]:
    asked = [part for part in st.query_params.get("runs", "").split(",") if part]
    missing = [id_ for id_ in asked if id_ not in known]
    if missing:
        st.warning(
            f"{len(missing)} of the runs in this link are not in this store, or not finished.",
            icon=":material/link_off:",
        )
    found = [id_ for id_ in asked if id_ in known]
    if found or (asked and missing):
        return found
    return [id_ for id_ in st.session_state.get(_CHOSEN, []) if id_ in known]


def one_of_each(table: pd.DataFrame, most: int) -> list[str]:
    """The lowest seed of each method and start, newest first among equals, in the catalogue's order; a start that is not the
    paper's comes last."""
    order = {key: i for i, key in enumerate(METHODS)}
    first = table.sort_values("seed", kind="stable").drop_duplicates(["method", "start"])

    def place(row: Mapping) -> tuple[bool, int]:
        known = row["method"] in METHODS
        return known and METHODS[row["method"]].starts != row["start"], order.get(row["method"], 99)

    return [row["id"] for row in sorted(first.to_dict("records"), key=place)][:most]


def _new_network(table: pd.DataFrame, most: int) -> None:
    wanted = st.session_state[_NETWORK]
    _remember(one_of_each(table[[network(row) == wanted for row in table.to_dict("records")]], most))


def _new_runs() -> None:
    _remember(st.session_state[_WIDGET])


def reorder(ids: Sequence[str]) -> None:
    """The chosen runs in this order; those that it does not name stand behind."""
    chosen = st.session_state.get(_CHOSEN, [])
    _remember(sorted(chosen, key=lambda id_: ids.index(id_) if id_ in ids else len(ids)))


def add(id_: str) -> None:
    """Choose one more run."""
    _remember([*st.session_state.get(_CHOSEN, []), id_])


def _remember(ids: Sequence[str]) -> None:
    st.session_state[_CHOSEN] = list(ids)
    text = ",".join(ids)
    if st.query_params.get("runs", "") != text:
        st.query_params["runs"] = text


def every_seed(store: Store, found: Sequence[Run], alike: Callable[[RunConfig], str] | None = None) -> list[Run]:
    """The runs, and their siblings that differ in the seed alone (or are ``alike``: their configurations give one text)."""
    alike = alike or _but_seed
    wanted = {alike(run.config) for run in found}
    table = store.runs()
    candidates = table[(table["state"] == "succeeded") & table["method"].isin({run.config.method for run in found})]
    everything = {run.id: run for run in found}
    for id_ in candidates["id"]:
        try:
            run = store.run(id_)
        except PrunevizError:
            continue
        if alike(run.config) in wanted:
            everything.setdefault(id_, run)
    return list(everything.values())


def by_configuration(store: Store, found: Sequence[Run]) -> dict[str, list[Run]]:
    """Id of the first of these runs of each configuration -> all its finished seeds, rising."""
    first = {}
    for run in found:
        first.setdefault(_but_seed(run.config), run.id)
    groups: dict[str, list[Run]] = {id_: [] for id_ in first.values()}
    for run in every_seed(store, found):
        groups[first[_but_seed(run.config)]].append(run)
    return {id_: sorted(group, key=lambda run: run.config.seed) for id_, group in groups.items()}


def _but_seed(config: RunConfig) -> str:
    """What the numbers depend on beside the seed; not what was recorded beside them."""
    return config.model_copy(update={"seed": 0, "probes": ()}).canonical

"""Which runs, which sparsity, which layer: chosen once, kept in the address, carried from page to page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pandas as pd
import streamlit as st

from pruneviz.figures import base
from pruneviz.plan.config import RunConfig
from pruneviz.store import Run, Store
from pruneviz.ui.pick import kept
from pruneviz.ui.stores import readable
from pruneviz.ui.text import plain

_CHOSEN, _RUNS, _NETWORK, _MENU = "chosen runs", "picked runs", "chosen network", "picked network"
_SPARSITY, _LAYER = "picked sparsity", "picked layer"


def runs(store: Store, *, most: int = base.MAX_RUNS) -> list[Run]:
    """The runs that the address names, else those chosen before, else one of each method on the newest network. None where
    someone took all of them away."""
    table = store.runs()
    table = table.loc[table["state"] == "succeeded"]
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
        chosen = one_of_each(table.loc[[network(r) == next(iter(networks)) for r in table.to_dict("records")]], most)
    if chosen:
        st.session_state[_NETWORK] = of_run[chosen[0]]
    left, right = st.columns([1, 2.6], vertical_alignment="bottom")
    wanted = st.session_state[_MENU] = st.session_state[_NETWORK]
    left.selectbox("Network and data", list(networks), key=_MENU, on_change=_new_network, args=(table, most))
    among = readable(store, (id_ for id_, name in of_run.items() if name == wanted))
    names = base.labels(among)
    among.sort(key=lambda run: (run.about.place, run.config.method, str(run.config.start), run.config.seed))
    st.session_state[_RUNS] = [id_ for id_ in chosen if id_ in names][:most]
    picked = right.multiselect(
        f"Runs (up to {most})", [r.id for r in among], key=_RUNS, format_func=names.__getitem__, max_selections=most,
        placeholder="Choose runs to compare", wrap=True, on_change=_new_runs,
    )  # fmt: skip
    _remember(picked)
    by_id = {run.id: run for run in among}
    return [by_id[id_] for id_ in picked]


def another(store: Store, found: Sequence[Run], most: int = 4) -> None:
    """A panel beside a lone run: what could stand next to it, a click each."""
    table = store.runs()
    table = table.loc[table["state"] == "succeeded"]
    here = network_of(found[0]) if found else None
    same = table.loc[[here in (None, network(row)) for row in table.to_dict("records")]]
    rest = same.loc[~same["id"].isin([run.id for run in found])]
    others = rest.loc[~rest["method"].isin([run.config.method for run in found])]
    offered = readable(store, one_of_each(others if len(others) else rest, most))
    names = base.labels([*found, *offered])
    with st.container(border=True):
        st.markdown(":material/view_column: **Set another run beside it**")
        st.caption(
            "A column for each run, the same rows for all: differences show at once. Choose above, or take one of these."
            if offered
            else f"This is the only finished run of {plain(here)}. Another method on the same network can stand beside it."
        )
        with st.container(horizontal=True):
            for run in offered:
                st.button(
                    plain(names[run.id]), key=f"add {run.id}", icon=":material/add:", on_click=add, args=(run.id,)
                )
            if not offered:
                st.page_link("pages/run.py", label="Run another method", icon=":material/play_circle:")


def sparsity(found: Sequence[Run], *, label: str = "Sparsity (weights removed)") -> float:
    """One of the sparsities that the runs recorded: the nearest to what was chosen on any page; ``sparsity=0.9``."""
    options = sorted({s for run in found for s in base.sparsities(run)})
    if not options:
        return base.SPARSITY
    st.session_state[_SPARSITY] = nearest(options, share(kept.wish("sparsity")))
    value = st.select_slider(label, options, format_func=base.percent, key=_SPARSITY, on_change=_new_sparsity)
    kept.show(sparsity=f"{value:g}")
    return value


def nearest(options: Sequence[float], wanted: float) -> float:
    """The sparsity among these that is nearest in what is kept; the wanted one where there are none."""
    return min(options, key=lambda s: abs(base.spaced(s) - base.spaced(wanted)), default=wanted)


def share(text: str | None) -> float:
    """The sparsity that an address names, "0.9" or "90%"; the usual one where it names none."""
    try:
        found = float(text.rstrip("%")) / (100 if text.endswith("%") else 1) if text else base.SPARSITY
    except ValueError:
        return base.SPARSITY
    return found if 0 <= found < 1 else base.SPARSITY


def layer(found: Sequence[Run]) -> str | None:
    """One layer of the network: what was chosen on any page, else that with most weights; ``layer=0``."""
    sizes = base.layers(found)
    if not sizes:
        return None
    wanted = base.module(kept.wish("layer") or "")
    st.session_state[_LAYER] = wanted if wanted in sizes else base.chosen(found, None) or next(iter(sizes))
    value = st.selectbox(
        "Layer",
        list(sizes),
        key=_LAYER,
        format_func=lambda name: f"{name}: {sizes[name]:,} weights",
        on_change=_new_layer,
    )
    kept.show(layer=value)
    return value


def _new_sparsity() -> None:
    kept.choose(sparsity=f"{st.session_state[_SPARSITY]:g}")


def _new_layer() -> None:
    kept.choose(layer=st.session_state[_LAYER])


def clicked_layer(key: str) -> None:
    """A click on a bar of a chart whose x axis names layers: the layer menu follows. Empty selections say nothing."""
    points = st.session_state[key]["selection"]["points"]
    if points:
        kept.choose(layer=str(points[0]["x"]))


def network(row: Mapping) -> str:
    """The network and its data, in words: what a row of ``store.runs()`` ran on."""
    return f"{row['network']} on {row['data']}"


def network_of(run: Run) -> str:
    """The same of a run."""
    return f"{base.network(run)} on {run.about.data}"


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
    first = table.sort_values("seed", kind="stable").drop_duplicates(["method", "start"])

    def place(row: Mapping) -> tuple[bool, int]:
        return not usual(row), row["place"]

    return [row["id"] for row in sorted(first.to_dict("records"), key=place)][:most]


def usual(row: Mapping) -> bool:
    """Whether a run starts as its paper does, as far as that is known."""
    return row["usual"] in ("", row["start"])


def _new_network(table: pd.DataFrame, most: int) -> None:
    wanted = st.session_state[_NETWORK] = st.session_state[_MENU]
    _remember(one_of_each(table.loc[[network(row) == wanted for row in table.to_dict("records")]], most))


def _new_runs() -> None:
    _remember(st.session_state[_RUNS])


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
    candidates = table.loc[(table["state"] == "succeeded") & table["method"].isin([run.config.method for run in found])]
    everything = {run.id: run for run in found}
    for run in readable(store, candidates["id"]):
        if alike(run.config) in wanted:
            everything.setdefault(run.id, run)
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
    return base.spelled(config, seed=0, probes=(), note="")

"""Where runs depart from their papers, named run by run, with what each departure changes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import streamlit as st

from pruneviz.figures import base
from pruneviz.methods import METHODS, method_class

if TYPE_CHECKING:
    from pruneviz.config import RunConfig
    from pruneviz.store import Run

# What the settings that all methods share change; a method's own switches are explained on its card.
_MEANING = {
    "start trained": "the trained network's weights are scored, not the random ones it began with",
    "start init": "the random first weights are scored, before any training",
    "survivors retain": "the weights that stay train on from where they are",
    "survivors rewind": "the weights that stay go back to their first values before they train again",
    "survivors reinit": "the weights that stay get new random values before they train again",
    "survivors reinit-sign": "the weights that stay get new random sizes and keep their first signs",
    "scope global": "all layers are ranked together, so that some lose far more than others",
    "scope layer": "each layer is ranked by itself, so that all lose about the same share",
    "rounds 1": "everything leaves at once, and the network cannot recover in between",
    "rounds": "in each round a share leaves, the rest trains again, and all that is left is scored anew",
    "rewind step": "survivors go back to the weights of that step of training",
    "control shuffle": "the mask is shuffled within each layer: where the score is right, this does worse",
    "control invert": "what scores highest leaves: where the score is right, this does far worse",
    "repair isometry": "survivors move until each layer keeps lengths again, as Lee et al. 2020 do after their own score",
    "repair rescale": "each layer is multiplied by one number, the control for the repair of Lee et al. 2020",
}


def of_runs(runs: Sequence[Run]) -> None:
    """A folded panel that names every departure of these runs; nothing where there are none."""
    names = base.labels(runs, seeds=False)
    _panel([(names[run.id], run.config) for run in runs], "run")


def of_configs(configs: Iterable[RunConfig]) -> None:
    """The same, before the click."""
    first = {(config.method, config.start): config for config in configs}
    _panel([(METHODS[config.method].title, config) for config in first.values()], "method", expanded=True)


def _panel(named: Sequence[tuple[str, RunConfig]], what: str, *, expanded: bool = False) -> None:
    found = [(name, config) for name, config in named if config.departures and METHODS[config.method].paper]
    if not found:
        return
    how_many = f"{len(found)} of {len(named)} {what}s" if len(named) > 1 else f"This {what}"
    how = "depart from their papers" if len(found) > 1 else "departs from its paper"
    with st.expander(f"{how_many} {how}", expanded, icon=":material/alt_route:"):
        lines = []
        for (name, method), said in {(name, c.method): c.departures for name, c in found}.items():
            paper = METHODS[method].paper
            lines += [
                f"* **{name}** ({paper.short if paper else ''})",
                *(f"    * {explained(text, method)}" for text in said),
            ]
        st.markdown("\n".join(lines))


def explained(departure: str, method: str) -> str:
    """A departure with what it changes: "**rounds** 1 instead of 5: prunes in one shot; …"."""
    taken, _, usual = departure.partition(" instead of ")
    what, _, value = taken.rpartition(" ")
    switch, words = what.replace(" ", "_"), what.replace("_", " ")
    ways = (f"{switch}={value} ", f"{switch}=k ", f"{switch}=n ")
    told = (t for t in METHODS[method].departures if t.startswith(ways) or f" and {switch}={value} " in t.split(",")[0])
    own = next((text.split(" ", 1)[1] for text in told), "")
    if own.startswith("and "):  # "blocks=rows and blocks=50 look only at …"
        own = own.split(" ", 2)[2]
    field = method_class(method).model_fields.get(switch)
    meaning = (
        own or _MEANING.get(f"{words} {value}") or _MEANING.get(words) or (field.description if field else "") or ""
    )
    return f"**{words}** {value} instead of {usual}{': ' if meaning else ''}{meaning.rstrip('.')}."

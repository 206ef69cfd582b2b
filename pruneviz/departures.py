"""Where a run departs from its paper, in words, with what each departure changes."""

from __future__ import annotations

from dataclasses import dataclass

from pruneviz.methods import METHODS, method_class

# What the settings that all methods share change; a method's own switches are explained on its card.
_MEANING = {
    "start": "the weights that are scored are others",
    "survivors": "the weights that stay are treated otherwise before they train again",
    "scope": "other layers lose more, and others less",
    "rounds": "the network is scored anew, and recovers, as often on its way down",
    "rewind step": "survivors go back to weights of that step",
    "control": "a sanity check; where the score is right, this does worse",
    "repair isometry": "survivors move until each layer is isometric again, as Lee et al. 2020 do after their own score",
    "repair rescale": "each layer is multiplied by one number, the control for the repair of Lee et al. 2020",
}


@dataclass(frozen=True)
class Departure:
    """ "rounds" and "1 instead of 5: prunes in one shot; …"."""

    what: str
    rest: str

    def __str__(self) -> str:
        return f"{self.what} {self.rest}"


def told(departure: str, method: str) -> Departure:
    """One of :attr:`RunConfig.departures` with what it changes, from the method's card or its switch."""
    taken, _, usual = departure.partition(" instead of ")
    what, _, value = taken.rpartition(" ")
    switch, words = what.replace(" ", "_"), what.replace("_", " ")
    ways = (f"{switch}={value} ", f"{switch}=k ", f"{switch}=n ")
    own = next((text.split(" ", 1)[1] for text in METHODS[method].departures if text.startswith(ways)), "")
    if own.startswith("and "):  # "blocks=rows and blocks=50 look only at …"
        own = own.split(" ", 2)[2]
    field = method_class(method).model_fields.get(switch)
    meaning = (
        own or _MEANING.get(f"{words} {value}") or _MEANING.get(words) or (field.description if field else "") or ""
    )
    return Departure(words, f"{value} instead of {usual}{': ' if meaning else ''}{meaning.rstrip('.')}.")

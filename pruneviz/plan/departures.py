"""Where a run departs from its paper, in words, with what each departure changes."""

from __future__ import annotations

from dataclasses import dataclass

from pruneviz.methods import METHODS, method_class

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
    "skip": "these layers keep all their weights, and sparsity does not count them",
    "recalibrate true": "after each pruning batch normalisation's statistics are estimated again on the samples that were scored",
    "between none": "rounds follow each other without training; each sparsity asked for is trained by itself",
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
    said = (t for t in METHODS[method].departures if t.startswith(ways) or f" and {switch}={value} " in t.split(",")[0])
    own = next((text.split(" ", 1)[1] for text in said), "")
    if own.startswith("and "):  # "blocks=rows and blocks=50 look only at …"
        own = own.split(" ", 2)[2]
    field = method_class(method).model_fields.get(switch)
    meaning = (
        own or _MEANING.get(f"{words} {value}") or _MEANING.get(words) or (field.description if field else "") or ""
    )
    return Departure(words, f"{value} instead of {usual}{': ' if meaning else ''}{meaning.rstrip('.')}.")

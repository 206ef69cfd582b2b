"""``pv.show``: runs and pruned networks side by side in a notebook cell, or in a file."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from pruneviz.basics.errors import InvalidSetting
from pruneviz.figures.given import runs_of
from pruneviz.figures.report import report
from pruneviz.store.archive import Run

HEIGHT = 900  # pixels of a notebook's cell


class Shown:
    """The report of some runs: a notebook draws it where it is the cell's last value; ``save`` writes it."""

    def __init__(self, runs: Sequence[Run], text: str):
        self.runs, self.text = tuple(runs), text

    def _repr_html_(self) -> str:
        return (
            f'<iframe srcdoc="{escape(self.text, quote=True)}" title="Pruning, side by side" sandbox="allow-scripts allow-downloads" '
            f'style="width: 100%; height: {HEIGHT}px; border: 0"></iframe>'
        )

    def __repr__(self) -> str:
        return f"{len(self.runs)} side by side: {', '.join(run.id for run in self.runs)}. Save it: .save('x.html')."

    def save(self, path: Path | str) -> Path:
        """One HTML file that needs nothing else. Raises InvalidSetting where it cannot be written."""
        path = Path(path)
        try:
            path.write_text(self.text, encoding="utf-8")
        except OSError as error:
            raise InvalidSetting(
                f"{path} cannot be written ({error.strerror}). Name a file in a folder that is there."
            ) from None
        return path


def show(*given: Any, sparsity: float | None = None, layer: str | None = None) -> Shown:
    """One to six runs (what :func:`pruneviz.explore` gives, ``store.run(ID)``) and pruned networks (of :func:`pruneviz.prune`).

    What a pruned network does not carry (accuracy, curvature) is left out; ``sparsity`` and ``layer``: what figures show first.
    Raises InvalidSetting where there is none, are more than six, or something else is given.
    """
    runs = [run for one in given for run in runs_of(one)]
    return Shown(runs, report(runs, sparsity=sparsity, layer=layer))

"""The runs that come with the program: exported folders, read in place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from pruneviz.basics.errors import StoreError
from pruneviz.store.archive import Run, damage
from pruneviz.store.exports import read_export
from pruneviz.store.rows import EMPTY_ROW, UNREADABLE, summary


class Samples(Mapping[str, Run]):
    """A folder of exported runs, read-only: those of the network that has most of them first. ``broken``: folder -> why it
    cannot be read."""

    def __init__(self, folder: Path | None):
        runs, self.broken = [], dict[str, str]()
        for path in sorted(folder.glob("*/run.json")) if folder is not None else ():
            try:
                runs.append(_read(path.parent))
            except StoreError as error:
                self.broken[path.parent.name] = str(error)
        networks = Counter((run.config.dataset, run.config.model, run.config.width) for run in runs)

        def place(run: Run) -> int:
            return -networks[run.config.dataset, run.config.model, run.config.width]

        self._found: dict[str, Run] = {run.id: run for run in sorted(runs, key=place)}

    def __getitem__(self, id_: str) -> Run:
        return self._found[id_]

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)

    def rows(self) -> list[dict[str, Any]]:
        """A row of ``store.runs()`` for each, those that cannot be read last."""
        found = [summary({**EMPTY_ROW, **run.row}, run.about.model_dump(), "samples") for run in self._found.values()]
        lost = {**EMPTY_ROW, "state": UNREADABLE}
        return found + [summary({**lost, "id": name}, {}, "samples", why) for name, why in self.broken.items()]


@lru_cache(maxsize=500)
def _read(folder: Path) -> Run:
    run = read_export(folder)
    if problem := damage(folder):
        raise StoreError(
            problem.replace("Delete the run and run it again.", "Install PruneViz again, or remove its folder.")
        )
    return run

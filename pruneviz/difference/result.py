"""A comparison of two networks' tensors, as people use it: with figures and pages."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from pruneviz.basics.errors import InvalidSetting
from pruneviz.difference import drawing
from pruneviz.difference.found import Found
from pruneviz.difference.page import page


@dataclass(frozen=True)
class Diff(Found):
    """Two networks' tensors, compared number for number: a :meth:`frame`, a :meth:`figure`, a page to :meth:`save`."""

    def figure(self, name: str | None = None) -> Any:
        """A Plotly figure: what became of every weight tensor, or with a ``name`` its two histograms. Raises UnknownName."""
        if name is None:
            return drawing.OVERVIEW.plot(drawing.OVERVIEW.data(self))
        return drawing.HISTOGRAM.plot(drawing.HISTOGRAM.data([self.tensor(name)]))

    def html(self) -> str:
        """A self-contained page: sentences, table, figures; no request leaves it, no script but its own runs."""
        return page(self)

    def save(self, path: Path | str) -> None:
        """Write :meth:`html`. Raises InvalidSetting where the file cannot be written."""
        try:
            Path(path).write_text(self.html(), encoding="utf-8")
        except OSError as error:
            raise InvalidSetting(
                f"The comparison cannot be written to {path} ({error.strerror}). Name a file in a folder that is there."
            ) from None

    def _repr_html_(self) -> str:
        sentences = "".join(f"<p>{escape(sentence)}</p>" for sentence in self.said())
        return f"<div>{sentences}{self.frame().to_html(index=False, na_rep='–', max_rows=60)}</div>"

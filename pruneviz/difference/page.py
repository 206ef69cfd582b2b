"""A comparison as one HTML file that needs nothing else, as reports of runs are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from pruneviz.difference import drawing
from pruneviz.difference.found import Found, Tensor, dtype, spelled
from pruneviz.figures import base
from pruneviz.figures.report import page as put_together
from pruneviz.figures.report import sheet

ROWS = 500  # tensors in the table; the data beside it have all


def page(diff: Found) -> str:
    """Sentences, a table of every tensor, the figures with their data. Everything that files say is escaped."""
    figures = [sheet(drawing.OVERVIEW, drawing.OVERVIEW.data(diff))]
    if chosen := drawing.changed(diff):
        figures.append(sheet(drawing.HISTOGRAM, drawing.HISTOGRAM.data(chosen)))
    rows = [row(t) for t in diff.tensors[:ROWS]]
    data = {"grid": None, "figures": {each["key"]: each.pop("sent") for each in figures}}
    return put_together(
        "difference.html",
        data,
        folder=Path(__file__).parent,
        before=diff.before,
        after=diff.after,
        said=diff.said(),
        columns=[name for name in (*COLUMNS, "Note") if any(each[name] for each in rows)],
        counts=COLUMNS[1:7],
        rows=rows,
        hidden=max(len(diff.tensors) - ROWS, 0),
        figures=figures,
        alone=[
            (label, [(t.name, spelled(t.shape), dtype(t.kind)) for t in lone[:ROWS]])
            for label, lone in ((diff.before, diff.only_before), (diff.after, diff.only_after))
            if lone
        ],
    )


COLUMNS = ("Tensor", "Zero before", "Zero after", "Gone", "Come back", "Moved", "By", "Pattern", "Shape", "Kept")


def row(t: Tensor) -> dict[str, Any]:
    """One tensor in words, for a table under COLUMNS."""
    n, shapes = t.numbers, list(dict.fromkeys(map(spelled, t.shapes)))
    share = [base.percent(side.zero / side.size) if side.size else "–" for side in (n.before, n.after)]
    counts = ["–" if count is None else f"{count:,}" for count in (n.gone, n.back, n.moved)]
    by = f"{100 * n.moved_by:.3g}%" if n.moved and n.moved_by is not None else ""
    said = (t.name, *share, *counts, by, "; ".join(n.after.patterns), " → ".join(shapes), t.kept)
    return dict(zip(COLUMNS, said, strict=True)) | {"Note": t.note}


def table(diff: Found) -> pd.DataFrame:
    """One row a tensor under COLUMNS and "Note", shares and counts as numbers; columns that say nothing are left out."""
    rows = [row(t) | _numbers(t) for t in diff.tensors]
    found = pd.DataFrame(rows, columns=[*COLUMNS, "Note"]).astype(
        dict.fromkeys(("Gone", "Come back", "Moved"), "Int64")
    )
    return found.drop(
        columns=[name for name in ("By", "Pattern", "Kept", "Note") if not found[name].replace("", pd.NA).notna().any()]
    )


def _numbers(t: Tensor) -> dict[str, Any]:
    n = t.numbers
    zero = [side.zero / side.size if side.size else None for side in (n.before, n.after)]
    return {
        "Zero before": zero[0],
        "Zero after": zero[1],
        "Gone": n.gone,
        "Come back": n.back,
        "Moved": n.moved,
        "By": n.moved_by if n.moved else None,
    }

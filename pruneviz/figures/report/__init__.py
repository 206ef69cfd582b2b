"""Reports: runs beside each other in one HTML file that needs nothing else, neither a network nor this program.

``report(runs)`` is the file's text. The page forbids itself every request and every script but its own: their hashes are
in its content policy, so that no name or error message of a run can bring another.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import inspect
import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from latex2mathml.converter import convert
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from pruneviz.basics.errors import InvalidSetting, PrunevizError
from pruneviz.basics.version import __version__
from pruneviz.figures import base, grid
from pruneviz.figures.report import words

if TYPE_CHECKING:
    import pandas as pd

    from pruneviz.store import Run

_HERE = Path(__file__).parent
_TEMPLATES = Environment(
    loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)
_GRID = "export default function"  # what begins the grid's module; in the report it stands beside its caller


def report(runs: Iterable[Run], *, sparsity: float | None = None, layer: str | None = None) -> str:
    """One to six runs as a self-contained, interactive HTML page; opens from disk, prints, right in light and dark.

    What was compared, each configuration in words with its departures and its paper, test accuracy at each sparsity, the
    moving comparison, every figure that has data, each with caption, formula, alt text and its table, and the commands
    that repeat the runs. ``sparsity`` and ``layer``: what the figures show first (default: 0.9 and the largest layer).
    Raises InvalidSetting where there is no run or are more than six.
    """
    runs = list({run.id: run for run in runs}.values())
    if not 1 <= len(runs) <= base.MAX_RUNS:
        raise InvalidSetting(f"A report takes 1 to {base.MAX_RUNS} runs; found {len(runs)}. Name the ones to compare.")
    figures = list(_figures(runs, sparsity=sparsity, layer=layer))
    sent, trouble = _grid(runs)
    wish = {"id": "report", "turn": 1, "wish": {"sparsity": sparsity, "layer": layer}}
    data = {
        "grid": {"html": grid.HTML, "css": grid.CSS, "data": {**sent, **wish}} if sent.get("sparsities") else None,
        "figures": {each["key"]: each.pop("sent") for each in figures if "sent" in each},
    }
    return page(
        "report.html",
        data,
        script=_shim(grid.JS),
        title=words.title(runs),
        subject=words.subject(runs),
        runs=[words.about(run, base.label(run, runs)) for run in runs],
        accuracy=words.accuracy(runs),
        figures=figures,
        moving=data["grid"] is not None or trouble,
        trouble=trouble,
        versions=words.versions(runs),
    )


def page(template: str, data: dict[str, Any], *, folder: Path = _HERE, script: str = "", **said: Any) -> str:
    """A self-contained page from a template of ``folder``: ``data`` are the figures that its script draws, ``said`` what the
    template says; ``script`` stands before the page's own."""
    scripts = [get_plotlyjs(), script + (_HERE / "report.js").read_text(encoding="utf-8")]
    templates = _TEMPLATES.overlay(loader=FileSystemLoader([folder, _HERE]))
    return templates.get_template(template).render(
        when=datetime.now(UTC),
        version=__version__,
        policy=_policy(scripts),
        style=Markup((_HERE / "report.css").read_text(encoding="utf-8")),
        plotly=Markup(scripts[0]),
        script=Markup(scripts[1]),
        data=Markup(_embedded(data)),
        **said,
    )


def _figures(runs: Sequence[Run], **wishes: Any) -> Iterable[dict[str, Any]]:
    """Every figure that has something to draw: what the page says about it, and what is ``sent`` to draw it."""
    from pruneviz.figures import FIGURES

    finished = [run for run in runs if not run.metrics.empty]
    for figure in FIGURES.values():
        takes = inspect.signature(figure.data).parameters
        choices = {name: value for name, value in wishes.items() if name in takes and value is not None}
        try:
            table = figure.data(finished, **choices)
        except PrunevizError as error:
            yield {"key": figure.key, "title": figure.title, "problem": str(error)}
            continue
        if not table.empty:
            yield sheet(figure, table)


def sheet(figure: base.Figure, table: pd.DataFrame) -> dict[str, Any]:
    """What a page says about a figure of this table, and what is ``sent`` to draw it."""
    chart = figure.plot(table).update_layout(template=None)
    return {
        "key": figure.key,
        "title": figure.title,
        "problem": "",
        "alt": base.alt(chart) or figure.title,
        "caption": " ".join(text for text in (figure.caption, base.note(chart)) if text),
        "formula": Markup(convert(figure.formula, display="block")) if figure.formula else "",
        "least": base.least(chart),
        "height": base.layout(chart).height,
        "rows": len(table),
        "sent": {"chart": json.loads(str(chart.to_json())), "csv": _packed(table.to_csv(index=False))},
    }


def _grid(runs: Sequence[Run]) -> tuple[dict[str, Any], str]:
    """The moving comparison's data, or why there are none."""
    try:
        return grid.payload(runs), ""
    except PrunevizError as error:
        return {}, str(error)


def _packed(text: str) -> str:
    """A table's text, a fifth as long: numbers repeat each other."""
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


def _shim(module: str) -> str:
    """The grid's module as a statement that a script may hold beside its own: a function ``drawGrid``."""
    if module.count(_GRID) != 1:
        raise AssertionError("The grid's module no longer has one default export.")
    return f"const drawGrid = (() => {{\n{module.replace(_GRID, 'const drawn = function')}\nreturn drawn\n}})()\n"


def _policy(scripts: Sequence[str]) -> str:
    """No request at all, and no script but these."""
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    allowed = " ".join(f"'sha256-{found}'" for found in hashes)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


def _embedded(data: Any) -> str:
    """JSON that may stand inside a script element, whatever its texts say."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", r"\u003c").replace(">", r"\u003e").replace("&", r"\u0026")

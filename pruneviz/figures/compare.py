"""Compare: four views of every run side by side. :mod:`pruneviz.figures.grid` has more of them, and moves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from pruneviz.figures import base, curves, jacobians, saliency, spectra
from pruneviz.records.stages import Stage

if TYPE_CHECKING:
    from pruneviz.store import Run

ORDER = 60
TITLE = "Runs side by side"
ROWS = {
    "saliency": "per bin",
    "spectra": "eigenvalue",
    "jacobians": "singular value",
    "curve": "test accuracy (%)",
}
COLUMNS = [
    *base.WHO, "layer", "sparsity", "view", "series", "unit", "x", "y", "width", "mark", "log", "linear", "without_path",
]  # fmt: skip
BOX = ("low", "q1", "median", "q3", "high")
POINTS = 120  # of an eigenvalue curve in the static figure


def data(runs: Sequence[Run], sparsity: float = base.SPARSITY, layer: str | None = None) -> pd.DataFrame:
    """One row a mark: ``view`` (saliency, spectra, jacobians, curve) and ``series`` within it, ``x``, ``y``.

    ``mark`` is the threshold of a histogram and 1 at the curve's point of this sparsity; box quantiles are their series;
    ``unit`` is what a histogram counts;
    ``without_path`` is 1 at points of the curve where no path is left from input to output;
    ``log`` and ``linear`` say how a histogram's axis was made (:func:`pruneviz.figures.saliency.scale`).
    """
    runs = list(runs)[: base.MAX_RUNS]
    wanted, names = base.chosen(runs, layer), base.labels(runs)
    parts = [_column(run, sparsity, wanted).assign(**base.who(run, names)) for run in runs]
    table = pd.concat(parts) if parts else pd.DataFrame(columns=COLUMNS)
    return table.assign(layer=wanted, sparsity=sparsity).reindex(columns=COLUMNS).reset_index(drop=True)


def _column(run: Run, sparsity: float, layer: str | None) -> pd.DataFrame:
    """The marks of one run."""
    rows: list[dict[str, Any]] = []
    for panel in (p for p in saliency.histograms(run, sparsity) if p["layer"] == layer):
        bins = saliency.folded(pd.DataFrame({key: panel[key] for key in ("lower", "upper", "kept", "removed")}))
        axis = {key: panel[key] for key in ("log", "linear")}
        same = {"view": "saliency", "unit": panel["unit"], **axis, "mark": saliency.place(panel["threshold"], **axis)}
        for series in ("kept", "removed"):
            places = zip((bins["lower"] + bins["upper"]) / 2, bins[series], bins["upper"] - bins["lower"], strict=True)
            rows += [{**same, "series": series, "x": x, "y": int(y), "width": w} for x, y, w in places]
        break
    for when, _, recorded in spectra.moments(run, sparsity):
        for factor, values in spectra.spectrum(recorded, layer).items():
            same = {"view": "spectra", "series": f"{factor} {when}"}
            kept = [i for i in base.thinned(len(values), POINTS) if values[i] > 1e-9 * values[0]]
            rows += [{**same, "x": int(i) + 1, "y": float(values[i])} for i in kept]
    found = jacobians.data([run], sparsity)
    for row in base.rows(found[found["layer"] == layer]):
        said = jacobians.WHEN[row.when].split()[0]  # before, pruned, repaired, trained
        rows += [{"view": "jacobians", "series": key, "x": said, "y": getattr(row, key)} for key in BOX]
    line = curves.data([run])
    line = line[line["stage"] == Stage.TUNED].sort_values("sparsity")
    here = min(line["sparsity"], key=lambda s: abs(base.spaced(s) - base.spaced(sparsity)), default=None)
    rows += [
        {
            "view": "curve",
            "series": str(Stage.TUNED),
            "x": r.sparsity,
            "y": 100 * r.mean,
            "mark": float(r.sparsity == here),
            "without_path": r.without_path,
        }
        for r in base.rows(line)
    ]
    return pd.DataFrame(rows, columns=[c for c in COLUMNS if c not in (*base.WHO, "layer", "sparsity")])


def plot(table: pd.DataFrame) -> go.Figure:
    """A column a run, a row a view; at most five traces a column."""
    if table.empty:
        return base.empty(TITLE, "Choose two to six finished runs.")
    columns = list(base.groups(table, "run"))
    titles = [f"<b>{part['label'].iloc[0]}</b>" for _, part in columns]
    fig = make_subplots(
        4, len(columns), column_titles=titles, shared_yaxes=False, vertical_spacing=0.075,
        horizontal_spacing=0.2 / max(len(columns), 1) ** 1.2,
    )  # fmt: skip
    for col, (_, part) in enumerate(columns, 1):
        views = {view: part[part["view"] == view] for view in ROWS}
        shade, symbol = part["colour"].iloc[0], base.marked(part["symbol"].iloc[0])
        _saliency(fig, views["saliency"], shade, col)
        _spectra(fig, views["spectra"], shade, col)
        _jacobians(fig, views["jacobians"], shade, col, len(columns))
        _curve(fig, views["curve"], shade, symbol, col)
    at, layer = base.percent(table["sparsity"].iloc[0]), table["layer"].iloc[0]
    said = []
    for _, part in columns:
        point = part[(part["view"] == "curve") & (part["mark"] == 1)]
        said += [
            f"{part['label'].iloc[0]} reaches {y:.1f}% at {base.percent(x)}"
            for x, y in zip(point["x"], point["y"], strict=True)
        ]
    alt = f"Saliency, Kronecker spectra, Jacobian values and accuracy of {len(columns)} runs, layer {layer}: {base.listed(said, 6)}."
    fig = base.finish(fig, f"Layer {layer} at {at} sparsity", alt, height=1080)
    fig.update_layout(barmode="stack", bargap=0, showlegend=False, margin_t=84)
    fig.update_annotations(font_size=13)
    for row, view in enumerate(ROWS, 1):
        values = table[table["view"] == view]["y"]
        if view in ("spectra", "jacobians", "curve") and len(values):
            low, high = (
                (np.log10(values.min()), np.log10(values.max())) if view == "spectra" else (values.min(), values.max())
            )
            low = min(low, 0) if view == "jacobians" else low
            pad = 0.06 * (high - low) or 0.5
            fig.update_yaxes(range=[low - (pad if view != "jacobians" else 0), high + pad], row=row)
            if view == "spectra":
                where, texts = base.log_ticks(low, high, most=4)
                fig.update_yaxes(tickvals=[10**e for e in where], ticktext=texts, row=row)
        fig.update_yaxes(title_text=ROWS[view], row=row, col=1)
    counted = table["unit"].dropna().unique()
    if len(counted) == 1:
        fig.update_yaxes(title_text=f"{counted[0]} per bin", row=1, col=1)
    return fig


def _saliency(fig: go.Figure, part: pd.DataFrame, shade: str, col: int) -> None:
    if part.empty:
        return
    wide = part.pivot_table(index=["x", "width"], columns="series", values="y").reset_index()
    x = [*wide["x"], *wide["x"]]
    fig.add_bar(
        x=x, y=[*wide["kept"], *wide["removed"]], base=[*([0] * len(wide)), *wide["kept"]], width=[*wide["width"], *wide["width"]],
        marker={"color": [shade] * len(wide) + [base.faded(shade, 0.32)] * len(wide), "line_width": 0},
        customdata=["kept"] * len(wide) + ["removed"] * len(wide),
        hovertemplate=f"%{{y:,}} {part['unit'].iloc[0]} %{{customdata}}<extra></extra>",
        row=1, col=col,
    )  # fmt: skip
    low, high = wide["x"].min(), wide["x"].max()
    place = part["mark"].iloc[0]
    if np.isfinite(place):
        base.rule(fig, x=float(np.clip(place, low, high)), facet=col - 1)
    first = part.iloc[0]
    fig.update_xaxes(**saliency.ticks(low, high, int(first["log"]), float(first["linear"])), row=1, col=col)
    fig.update_xaxes(title_text=f"score of {first['unit']}{' (log)' if first['log'] else ''}", row=1, col=col)


def _spectra(fig: go.Figure, part: pd.DataFrame, shade: str, col: int) -> None:
    for when, dash in spectra.WHEN.items():
        x: list[float | None] = []
        y: list[float | None] = []
        text: list[str] = []
        for factor in spectra.FACTORS:
            curve = part[part["series"] == f"{factor} {when}"]
            x, y = [*x, *curve["x"], None], [*y, *curve["y"], None]
            text += [factor if i == 0 and when == "after" else "" for i in range(len(curve))] + [""]
        if len(x) > 2:
            fig.add_scatter(
                x=x, y=y, text=text, mode="lines+text", textposition="middle left", name=when,
                line={"color": shade, "width": 2, "dash": dash}, hovertemplate=f"{when}, index %{{x}}: %{{y:.3g}}<extra></extra>",
                row=2, col=col,
            )  # fmt: skip
    last = np.log10(part["x"].max()) if len(part) else 1
    axis = {"type": "log", "range": [-0.12 * last - 0.1, last + 0.05], "tickvals": spectra.INDICES}
    fig.update_xaxes(**axis, title_text="index (dotted: before)", row=2, col=col)
    fig.update_yaxes(type="log", row=2, col=col)


def _jacobians(fig: go.Figure, part: pd.DataFrame, shade: str, col: int, count: int) -> None:
    if part.empty:
        return
    boxes = part.pivot_table(index="x", columns="series", values="y").reindex(part["x"].unique())
    fig.add_box(
        x=boxes.index, q1=boxes["q1"], median=boxes["median"], q3=boxes["q3"], lowerfence=boxes["low"],
        upperfence=boxes["high"], name="", line={"color": shade, "width": 1.5}, fillcolor=base.faded(shade, 0.25),
        row=3, col=col,
    )  # fmt: skip
    base.rule(fig, y=1, facet=2 * count + col - 1)
    fig.update_xaxes(tickangle=0, tickfont_size=10, row=3, col=col)


def _curve(fig: go.Figure, part: pd.DataFrame, shade: str, symbol: str, col: int) -> None:
    if part.empty:
        return
    fig.add_scatter(
        x=base.spaced(part["x"]), y=part["y"], mode="lines+markers", line={"color": shade, "width": 2},
        marker={"size": [15 if here else 6 for here in part["mark"] == 1], "symbol": symbol, "opacity": 1},
        customdata=[base.percent(s) for s in part["x"]], hovertemplate="%{customdata} sparsity: %{y:.1f}%<extra></extra>",
        row=4, col=col,
    )  # fmt: skip
    fig.update_xaxes(**{**base.sparsity_axis(part["x"]), "title": {"text": "weights removed (%)"}}, row=4, col=col)


FIGURE = base.Figure(
    "compare",
    TITLE,
    "A column for each run. Saliency: the layer's weights, filters or directions by score, removed light, dashed the "
    "threshold. Spectra: eigenvalues of the Kronecker factors A (inputs) and S (gradients), dotted before pruning, solid "
    "after. Jacobians: singular values of the layer, box 25 to 75%, whiskers 5 to 95%; repaired only where survivors move. "
    "Curve: test accuracy after training again.",
    r"s_q \le \tau, \qquad F_\ell \approx S_\ell \otimes A_\ell, \qquad J_\ell = D_\ell W_\ell",
    data,
    plot,
)

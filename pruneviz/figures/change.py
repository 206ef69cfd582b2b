"""Change: what each score predicts against what removing the weight really does to the loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from pruneviz.figures import base
from pruneviz.methods.base import Start
from pruneviz.records.arrays import Change
from pruneviz.records.stages import Stage

if TYPE_CHECKING:
    from pruneviz.store import Run

ORDER = 20
TITLE = "Predicted and measured loss change"
ZEROED = str(Stage.ZEROED)
RISES = ("predicted", "measured", ZEROED)
COLUMNS = [
    *base.WHO, "start", "layer", *RISES, "correlation", "sizes", "every", "of", "same_unit", "unit", "removed",
]  # fmt: skip
ALL_POINTS = 1536  # over all facets, so that six stay as light as three
PALE = 0.3  # removed by zeroing alone


def data(runs: Sequence[Run]) -> pd.DataFrame:
    """One row a measured unit: ``predicted`` (the score), ``measured`` and ``zeroed`` (rises of the loss with the
    method's own update of the survivors, and without it).

    ``correlation`` is Spearman's of predicted and measured, ``sizes`` that of predicted and the size of the measured
    change; ``of`` units (``removed`` says what: weights, filters or directions) were measured, which were ``every`` one or
    a sample. ``same_unit``: the score is itself a rise.
    """
    runs, names = list(runs), base.labels(runs)
    tables = [pd.DataFrame(columns=COLUMNS)]
    for run in runs:
        if found := run.read(Change, stage=Stage.START):
            layers = np.array([base.module(name) for name in found.layers])
            rises = (found.predicted, found.measured, found.zeroed)
            table = pd.DataFrame(dict(zip(RISES, (values.astype(float) for values in rises), strict=True)))
            tables.append(
                table.assign(
                    **base.who(run, names), start=str(run.config.start), layer=layers[found.layer], correlation=found.correlation,
                    sizes=spearman(found.predicted, np.abs(found.measured)), every=bool(found.all), of=len(table),
                    same_unit=run.about.predicts, unit="nats" if run.about.loss == "cross-entropy" else "",
                    removed=run.about.removes,
                )
            )  # fmt: skip
    return pd.concat(tables[1:] or tables, ignore_index=True)[COLUMNS]


def spearman(first: np.ndarray, second: np.ndarray) -> float:
    """Rank correlation with ties at their mean rank; NaN where one side is constant."""
    ranks = [pd.Series(values).rank() for values in (first, second)]
    return float("nan") if min(r.nunique() for r in ranks) < 2 else float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def plot(table: pd.DataFrame) -> go.Figure:
    """One facet a run: the score across, the measured rise up; removed by zeroing alone pale; dashed: as predicted."""
    if table.empty:
        return base.empty(TITLE, "Choose a finished run that measured what its removals do to the loss.")
    parts = [part for _, part in base.groups(table, "run")]
    drawn = parts[: base.MAX_FACETS]
    fig, height = base.facets([_heading(part) for part in drawn], lines=3, space=140, row=230)
    most = min(base.MAX_POINTS, ALL_POINTS // len(drawn))
    for i, part in enumerate(drawn):
        _scatter(fig, part, i, most, base.place(i, len(drawn)))
    shown = pd.concat(drawn)
    if any(map(_moves, drawn)):
        for name, alpha in (("removed with the method's own update", 1), ("removed by zeroing alone", PALE)):
            marker = {"color": base.faded(base.NEUTRAL, alpha), "size": 8}
            fig.add_scatter(x=[None], y=[None], mode="markers", name=name, marker=marker, row=1, col=1)
    if shown["same_unit"].any():
        base.key(fig, "rises as predicted", "dash", row=1, col=1)
    alt = f"Score against the measured rise of the loss: {base.listed([_sentence(part) for part in drawn], 6)}."
    fig = base.finish(fig, TITLE, alt, height=height, note=_note(parts, most))
    return fig.update_layout(margin_t=base.TOP + 28).update_annotations(font_size=13)


def _scatter(fig: go.Figure, part: pd.DataFrame, facet: int, most: int, at: dict[str, Any]) -> None:
    first, moves = part.iloc[0], _moves(part)
    shade, unit = first["colour"], f" ({first['unit']})" if first["unit"] else ""
    rises = part[["measured", ZEROED]].to_numpy() if moves else part["measured"].to_numpy()
    both = [part["predicted"].to_numpy(), rises.ravel()]
    across, up = [nearly_zero(np.concatenate(both))] * 2 if first["same_unit"] else map(nearly_zero, both)
    picked = part.iloc[np.unique(np.linspace(0, len(part) - 1, min(most, len(part))).astype(int))]
    x = base.signed(picked["predicted"], across).astype(np.float32)
    for key, alpha in ((ZEROED, PALE), ("measured", 0.75)) if moves else (("measured", 0.6),):
        how = "" if not moves else " by zeroing alone" if key == ZEROED else " with the update"
        fig.add_scatter(
            x=x, y=base.signed(picked[key], up).astype(np.float32), mode="markers", name=first["label"], showlegend=False,
            marker={"color": base.faded(shade, alpha), "size": 5, "line_width": 0},
            customdata=picked[["predicted", key]].to_numpy(np.float32), text=picked["layer"],
            hovertemplate="layer %{text}, score %{customdata[0]:.3g}<br>"
            f"rise{how} %{{customdata[1]:.3g}}{unit}<extra></extra>", **at,
        )  # fmt: skip
    spans = [_span(base.signed(values, linear)) for values, linear in zip(both, (across, up), strict=True)]
    axis = facet + 1 if facet else ""
    line = {"type": "line", "xref": f"x{axis}", "yref": f"y{axis}"}
    if spans[1][0] < 0:
        ends = {"x0": spans[0][0], "x1": spans[0][1], "y0": 0, "y1": 0}
        fig.add_shape(line={"color": base.NEUTRAL, "width": 1}, layer="below", **line, **ends)
    if first["same_unit"]:
        low, high = max(spans[0][0], spans[1][0]), min(spans[0][1], spans[1][1])
        ends = {"x0": low, "x1": high, "y0": low, "y1": high}
        fig.add_shape(line={"color": base.NEUTRAL, "width": 1.8, "dash": "dash"}, **line, **ends)
    for update, span, linear, most in ((fig.update_xaxes, spans[0], across, 5), (fig.update_yaxes, spans[1], up, 7)):
        values, texts = base.signed_ticks(*span, linear, most=most)
        update(range=span, tickvals=values, ticktext=texts, **at)
    fig.update_xaxes(title_text=f"predicted rise{unit}" if first["same_unit"] else "score", **at)
    fig.update_yaxes(title_text=f"measured rise{unit}" if at["col"] == 1 else "", **at)


def nearly_zero(values: np.ndarray) -> float:
    """Up to where an axis is linear: a tenth of the values are smaller, and at most six powers of ten lie above."""
    sizes = np.abs(values[values != 0])
    return max(float(np.quantile(sizes, 0.1)), float(sizes.max()) / 1e6) if len(sizes) else 1.0


def _span(places: np.ndarray) -> tuple[float, float]:
    low, high = float(places.min()), float(places.max())
    pad = 0.05 * (high - low) or 0.5
    return low - pad, high + pad


def _moves(part: pd.DataFrame) -> bool:
    """Whether the method moves the survivors when it removes a unit."""
    return not np.allclose(part["measured"], part[ZEROED], rtol=1e-3, atol=0)


def _heading(part: pd.DataFrame) -> str:
    first = part.iloc[0]
    lines = [f"rank correlation <b>{_correlation(first['correlation'])}</b>"]
    if _hides_sign(part):
        lines[0] += f", with its size {_correlation(first['sizes'])}"
    many = f"{first['of']:,} {first['removed']}"
    many = f"all {many}" if first["every"] else f"{many} at random"
    lines.append(f"{many}, {'trained' if first['start'] == Start.TRAINED else 'initial'} network")
    return f"<b>{first['label']}</b><br><span style='font-size:11px'>{'<br>'.join(lines)}</span>"


def _hides_sign(part: pd.DataFrame) -> bool:
    """Whether the score has no sign but the change has: then the sizes may agree where the changes do not."""
    return bool((part["predicted"] >= 0).all() and (part["measured"] < 0).mean() > 0.1)


def _correlation(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.2f}".replace("-", "−")


def _sentence(part: pd.DataFrame) -> str:
    first = part.iloc[0]
    return (
        f"{first['label']}, rank correlation {_correlation(first['correlation'])} over {first['of']:,} {first['removed']}, "
        f"{base.percent((part['measured'] < 0).mean())} of the removals lower the loss"
    )


def _note(parts: list[pd.DataFrame], most: int) -> str:
    """The shares of negative rises, what an update of the survivors saves, and what is not drawn."""
    drawn = parts[: base.MAX_FACETS]
    fell = [f"{part['label'].iloc[0]} {base.percent((part['measured'] < 0).mean())}" for part in drawn]
    said = [f"Removals that lower the loss: {', '.join(fell)}."]
    for part in filter(_moves, drawn):
        own, alone = part["measured"].mean(), part[ZEROED].mean()
        ratio = f", {base.number(alone / own)} times as much" if own > 0 and alone > 0 else ""
        said.append(
            f"{part['label'].iloc[0]}: mean rise {base.number(own)} with the update, {base.number(alone)} by zeroing alone{ratio}."
        )
    if most < max(map(len, drawn)):
        counted = base.in_common(part["removed"].iloc[0] for part in drawn)
        said.append(f"At most {most} of the measured {counted} are drawn for each run; the numbers are of all of them.")
    return " ".join([*said, base.too_many(parts, base.MAX_FACETS)]).strip()


FIGURE = base.Figure(
    "change",
    TITLE,
    "Measured: one weight, filter or direction at a time is removed (with the method's own update of the others, where it has "
    "one), the loss is read again on the samples that made the score, and it is put back. A rise below 0 is a fall. The rank "
    "correlation is 1 where the score puts the removals in their true order. Scores in units of the loss should lie on the "
    "dashed line; others need only rise with the measured change, and some never meant to predict it. Both axes are "
    "logarithmic on each side of 0 and linear close to it.",
    r"\Delta L_q = L(\theta + \delta\theta_q) - L(\theta), \quad \delta\theta_q = -\theta_q e_q "
    r"\;\text{ or, for OBS, }\; -\frac{\theta_q}{[H^{-1}]_{qq}} H^{-1} e_q",
    data,
    plot,
)

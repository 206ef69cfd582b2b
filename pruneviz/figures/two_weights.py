"""One neuron, two weights: which of them three methods remove, and how far the loss climbs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from pruneviz.figures import base
from pruneviz.figures._neuron import Neuron

TITLE = "Which of two weights leaves?"
SIDE = 22  # points along an axis of the surface
NAMES = {"magnitude": "Magnitude", "obd": "OBD", "obs": "OBS"}
COLUMNS = ["kind", "method", "w1", "w2", "removed", "predicted", "real"]


def data(neuron: Neuron) -> pd.DataFrame:
    """``kind`` surface: the rise of the mean loss (nats, ``real``) on a grid of weights; trained: the minimum; removal: where
    each method ends, the rise it ``predicted`` and the ``real`` one."""
    w, low = neuron.trained, float(neuron.loss(neuron.trained))
    ends = neuron.removals()
    axes = []
    for i, value in enumerate(w):
        reached = [0.0, value, *(r.end[i] for r in ends.values())]
        edge = 0.25 * max(max(reached) - min(reached), 1e-9)
        axes.append(np.linspace(min(reached) - edge, max(reached) + edge, SIDE))
    mesh = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)
    rise = np.maximum(neuron.loss(mesh) - low, 0)
    rows = [("surface", "", a, b, None, None, r) for (a, b), r in zip(mesh, rise, strict=True)]
    rows.append(("trained", "", w[0], w[1], None, None, 0.0))
    rows += [("removal", key, *r.end, r.removed + 1, r.predicted, r.real) for key, r in ends.items()]
    return pd.DataFrame(rows, columns=COLUMNS)


def plot(table: pd.DataFrame) -> go.Figure:
    """The surface with the three ways down to an axis, and beside it the climb foretold and the real one."""
    fig = make_subplots(1, 2, column_widths=[0.62, 0.38], horizontal_spacing=0.14)
    surface = table[table["kind"] == "surface"].pivot(index="w2", columns="w1", values="real")
    fig.add_contour(
        x=surface.columns, y=surface.index, z=np.sqrt(surface.to_numpy()), showscale=False, ncontours=16,
        line={"width": 0.6, "color": base.NEUTRAL},
        colorscale=[[0, "rgba(128,128,128,0)"], [1, "rgba(128,128,128,0.55)"]], customdata=surface.to_numpy(),
        hovertemplate="w₁ %{x:.2f}, w₂ %{y:.2f}<br>loss +%{customdata:.3f} nats<extra></extra>", row=1, col=1,
    )  # fmt: skip
    start = table[table["kind"] == "trained"].iloc[0]
    ends = table[table["kind"] == "removal"]
    for i, end in enumerate(base.rows(ends)):
        _path(fig, start, end, i)
    fig.add_scatter(
        x=[start["w1"]], y=[start["w2"]], mode="markers+text", text=["trained"], textposition="top center", cliponaxis=False,
        marker={"symbol": "star", "size": 13, "color": base.NEUTRAL}, showlegend=False, row=1, col=1,
        hovertemplate="trained: w₁ %{x:.2f}, w₂ %{y:.2f}<extra></extra>",
    )  # fmt: skip
    _climbs(fig, ends)
    line = {"color": base.NEUTRAL, "dash": "dot", "width": 1.4}
    across, up = ([part.min(), part.max()] for part in (surface.columns, surface.index))
    for x, y in (([0, 0], up), (across, [0, 0])):  # a weight that is gone
        fig.add_scatter(x=x, y=y, mode="lines", line=line, showlegend=False, hoverinfo="skip", row=1, col=1)
    said = [
        f"{NAMES[r.method]} removes weight {r.removed}: the loss rises by {r.real:.3f} nats" for r in base.rows(ends)
    ]
    base.finish(fig, TITLE, f"{'; '.join(said)}.", height=420, least=560)
    fig.update_xaxes(title_text="weight w₁", range=across, row=1, col=1)
    fig.update_yaxes(title_text="weight w₂", range=up, showgrid=False, row=1, col=1)
    return fig.update_yaxes(showgrid=False, row=1, col=2)


def _path(fig: go.Figure, start: pd.Series, end: Any, place: int) -> None:
    """From the trained weights to where a method leaves them."""
    shade = base.colour(end.method)
    fig.add_scatter(
        x=[start["w1"], end.w1], y=[start["w2"], end.w2], mode="lines+markers", name=NAMES[end.method],
        line={"color": shade, "width": 3, "dash": base.DASHES[place]},
        marker={"color": shade, "size": [0, 12], "symbol": base.symbol(end.method), "opacity": 1},
        hovertemplate=f"<b>{NAMES[end.method]}</b> removes w{end.removed}<br>w₁ %{{x:.2f}}, w₂ %{{y:.2f}}<extra></extra>",
        row=1, col=1,
    )  # fmt: skip


def _climbs(fig: go.Figure, ends: pd.DataFrame) -> None:
    """The rise foretold, pale, above the real one."""
    names = [NAMES[key] for key in ends["method"]]
    shades = [base.colour(key) for key in ends["method"]]
    for kind, alpha in (("real", 1.0), ("predicted", 0.35)):
        fig.add_bar(
            y=names, x=ends[kind], orientation="h", name=kind, showlegend=False,
            marker={"color": [base.faded(shade, alpha) for shade in shades]},
            text=[f"{kind} {value:.3f}" if pd.notna(value) else "" for value in ends[kind]], textposition="outside",
            cliponaxis=False, hovertemplate=f"%{{y}}: {kind} +%{{x:.3f}} nats<extra></extra>", row=1, col=2,
        )  # fmt: skip
    top = float(np.nanmax(ends[["real", "predicted"]].to_numpy(float)))
    fig.update_xaxes(title_text="rise of the loss (nats)", range=[0, 1.5 * top], row=1, col=2)
    fig.update_yaxes(autorange="reversed", row=1, col=2)


FIGURE = base.Figure(
    "two-weights",
    TITLE,
    "Counted: the mean cross-entropy of one logistic neuron on 400 samples, trained to its minimum; the more shaded, the higher. "
    "Each method removes one weight, which ends on a dotted axis: magnitude the smaller one, OBD the one with the smaller half "
    "curvature times weight squared, OBS the one that costs least once the other has moved along. Magnitude foretells no rise.",
    r"\Delta L \approx \tfrac12 H_{qq} w_q^2 \;\text{(OBD)}, \qquad \Delta L \approx \frac{w_q^2}{2 [H^{-1}]_{qq}} \;\text{(OBS)}",
    data,
    plot,
    of_runs=False,
)

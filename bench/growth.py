"""How cost grows with width, depth, samples and classes: ``python bench/growth.py``. Writes ``bench/results/growth.json`` and
``docs/growth.png`` (``--draw`` draws the last results again).

A chain of 3 x 3 convolutions on 16 x 16 images, one size changed at a time. Time as a ratio to one plain forward and backward
pass, beside the same ratio of multiplications that cannot be left out: forward and backward passes, a symmetric product once, a
convolution's patches by their 13 different shifts.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from measure import ROOT, record, steady, turns  # puts the project on the path

steady()

import torch  # noqa: E402
from curvature import plain  # noqa: E402
from torch import nn  # noqa: E402

from pruneviz.curvature.calls import diagonal  # noqa: E402
from pruneviz.curvature.calls import kronecker_factors as kfac  # noqa: E402
from pruneviz.run.loop import default_device  # noqa: E402

BASE = {"width": 32, "depth": 4, "samples": 64, "classes": 10}
VALUES = {
    "width": (8, 16, 32, 64, 128), "depth": (2, 4, 8, 16), "samples": (16, 32, 64, 128, 256), "classes": (2, 5, 10, 30, 100),
}  # fmt: skip
SIDE, REPEATS = 16, 5
QUANTITIES = ("K-FAC, sampled", "K-FAC, exact", "diagonal, sampled", "diagonal, Gauss-Newton")


def network(width: int, depth: int, classes: int) -> nn.Module:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for i in range(depth):
        layers += [nn.Conv2d(width if i else 3, width, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes)).eval()


def floor(quantity: str, width: int, depth: int, samples: int, classes: int) -> float:
    """Multiplications of a quantity over those of a forward and a backward pass. All grow alike with the samples."""
    at, ins = SIDE**2, [3, *[width] * (depth - 1)]
    passes = [at * 9 * n * width for n in ins] + [width * classes]
    forward, backward, weights = sum(passes), sum(passes[1:]), sum(passes)
    inputs = sum(at * 13 * n * n for n in ins) + width * width / 2
    slopes = depth * at * width * width / 2 + classes * classes / 2
    k = classes - 1
    needed = {
        "K-FAC, sampled": forward + backward + inputs + slopes,
        "K-FAC, exact": forward + inputs + k * (backward + slopes),
        "diagonal, sampled": forward + backward + weights,
        "diagonal, Gauss-Newton": forward + k * (backward + weights),
    }[quantity]
    return needed / (forward + backward + weights)


def measured(device: torch.device) -> list[dict]:
    torch.set_num_threads(1)
    rows = []
    for axis, values in VALUES.items():
        for value in values:
            size = BASE | {axis: value}
            model = network(size["width"], size["depth"], size["classes"]).to(device)
            x = torch.rand(size["samples"], 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)).to(device)
            y = torch.arange(size["samples"], device=device) % size["classes"]
            times = turns(
                {
                    "plain": plain(model, x, y),
                    "K-FAC, sampled": lambda model=model, x=x, y=y: kfac(model, [(x, y)]),
                    "K-FAC, exact": lambda model=model, x=x, y=y: kfac(model, [(x, y)], fisher="exact"),
                    "diagonal, sampled": lambda model=model, x=x, y=y: diagonal(model, [(x, y)], kind="fisher"),
                    "diagonal, Gauss-Newton": lambda model=model, x=x, y=y: diagonal(model, [(x, y)], kind="ggn"),
                },
                device, REPEATS,
            )  # fmt: skip
            for quantity in QUANTITIES:
                ratio = times[quantity] / times["plain"]
                least = floor(quantity, **size)
                row = {"axis": axis, "value": value, "quantity": quantity}
                rows.append(row | {"ratio": round(ratio, 2), "floor": round(least, 2)})
            print(axis, value, {r["quantity"]: (r["ratio"], r["floor"]) for r in rows[-4:]}, flush=True)
    return rows


def draw(rows: list[dict], path: Path) -> None:
    """Four panels; a line as measured, dots for the multiplications."""
    import plotly.graph_objects as go
    from playwright.sync_api import sync_playwright
    from plotly.subplots import make_subplots

    colours = dict(zip(QUANTITIES, ("#0072B2", "#D55E00", "#009E73", "#CC79A7"), strict=True))
    titles = [f"{axis.capitalize()} ({_rest(axis)})" for axis in VALUES]
    figure = make_subplots(2, 2, subplot_titles=titles, vertical_spacing=0.14, horizontal_spacing=0.08)
    for i, axis in enumerate(VALUES):
        at = {"row": i // 2 + 1, "col": i % 2 + 1}
        for quantity in QUANTITIES:
            own = [r for r in rows if r["axis"] == axis and r["quantity"] == quantity]
            x, style = [r["value"] for r in own], {"color": colours[quantity]}
            y = [r["ratio"] for r in own]
            figure.add_trace(go.Scatter(x=x, y=y, mode="lines", name=quantity, line=style, showlegend=not i), **at)
            circles = {**style, "symbol": "circle-open", "size": 9}
            y = [r["floor"] for r in own]
            figure.add_trace(go.Scatter(x=x, y=y, mode="markers", marker=circles, showlegend=False), **at)
        figure.update_xaxes(type="log", tickvals=VALUES[axis], **at)
    grey = {"color": "#777", "symbol": "circle-open", "size": 9}
    figure.add_trace(go.Scatter(x=[None], y=[None], mode="markers", marker=grey, name="multiplications alone"))
    figure.update_yaxes(type="log", tickvals=[1, 2, 5, 10, 20, 50, 100])
    figure.update_yaxes(title="forward + backward passes", col=1)
    figure.update_layout(
        template="plotly_white", width=1180, height=720, font_size=13, margin={"t": 40, "r": 20, "b": 20, "l": 70},
        legend={"orientation": "h", "y": -0.07, "x": 0.5, "xanchor": "center"},
    )  # fmt: skip
    with sync_playwright() as started:
        chromium = "/usr/bin/chromium"
        browser = started.chromium.launch(
            executable_path=chromium if Path(chromium).exists() else None, args=["--no-sandbox"]
        )
        page = browser.new_page(viewport={"width": 1200, "height": 740})
        page.set_content(figure.to_html(include_plotlyjs=True))
        page.locator(".scatterlayer").first.wait_for()
        page.screenshot(path=str(path))
        browser.close()


def _rest(axis: str) -> str:
    return ", ".join(
        f"{value} {name}" if name in ("samples", "classes") else f"{name} {value}"
        for name, value in BASE.items()
        if name != axis
    )


def main() -> None:
    results = ROOT / "bench" / "results" / "growth.json"
    if "--draw" not in sys.argv:
        device = default_device()
        record("growth", device, (), threads=1, repeats=REPEATS, base=BASE, rows=measured(device))
    draw(json.loads(results.read_text())["rows"], ROOT / "docs" / "growth.png")


if __name__ == "__main__":
    main()

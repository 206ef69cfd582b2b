"""Numbers as people write them, and the coordinates and ticks of axes: logarithms, logarithms with a sign, sparsities."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np


def percent(share: float) -> str:
    """0.98 -> "98%", 0.9844 -> "98.4%"."""
    return f"{round(100 * share, 1):g}%"


def number(value: float) -> str:
    """Three significant digits, as a person writes them: 0.0123, 1.2·10⁻⁵, ∞."""
    if not np.isfinite(value):
        return "–" if np.isnan(value) else "∞"
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        return f"{float(f'{value:.3g}'):,g}" if abs(value) < 1000 else f"{value:,.0f}"
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa}·{power(int(exponent))}"


def power(exponent: int) -> str:
    """10 to a whole power, in superscript; 1 and 10 as they are."""
    return (
        ("1", "10")[exponent]
        if exponent in (0, 1)
        else "10" + str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    )


def log_ticks(low: float, high: float, *, most: int = 5) -> tuple[list[float], list[str]]:
    """Ticks of an axis whose coordinate is log10 of the value: powers of ten, or 1, 2, 5 where few powers fit."""
    whole = [float(e) for e in range(int(np.ceil(low - 1e-9)), int(np.floor(high + 1e-9)) + 1)]
    if len(whole) >= 2:
        whole = whole[:: -(-len(whole) // most)]
        return whole, [power(int(e)) for e in whole]
    inside: list[tuple[float, float]] = []
    for multiples in ((1, 2, 5), (1, 1.2, 1.5, 2, 3, 4, 5, 6, 7, 8, 9)):  # the finer where the coarser leave one tick
        exponents = range(int(np.floor(low)), int(np.ceil(high)) + 1)
        fine = [(e + np.log10(m), m * 10.0**e) for e in exponents for m in multiples]
        if len(inside := [(at, value) for at, value in fine if low <= at <= high]) >= 2:
            break
    return [float(at) for at, _ in inside], [number(value) for _, value in inside]


def signed(value: Any, linear: float) -> Any:
    """Where a value of either sign stands on an axis that is linear up to about ``linear`` and logarithmic beyond.

    asinh(value / linear) / ln 10: a power of ten further out is one unit further, on both sides of 0.
    """
    return np.arcsinh(np.asarray(value, float) / linear) / np.log(10)


def unsigned(place: Any, linear: float) -> Any:
    """The inverse of :func:`signed`."""
    return linear * np.sinh(np.asarray(place, float) * np.log(10))


def signed_ticks(low: float, high: float, linear: float, *, most: int = 5) -> tuple[list[float], list[str]]:
    """Ticks of an axis in :func:`signed` coordinates: 0 and powers of ten on both sides (the largest 1, 2 or 5 of one
    where no power fits)."""
    reach = float(unsigned(max(-low, high, 1e-9), linear))
    powers = list(range(int(np.ceil(np.log10(linear) - 1e-9)), int(np.floor(np.log10(reach) + 1e-9)) + 1))
    powers = [e for e in powers if signed(10.0**e, linear) > 0.1 * (high - low)] or powers[-1:]  # not on top of the 0
    step = -(-len(powers) * ((low < 0) + (high > 0)) // (most - 1)) or 1
    sizes = [10.0**e for e in powers[::-step]]
    if not sizes:
        below = np.floor(np.log10(reach))
        sizes = [max(m * 10.0**below for m in (1, 2, 5) if m * 10.0**below <= reach * (1 + 1e-9))]
    text = {0.0: "0", **{v: power(round(np.log10(v))) if powers else number(v) for v in sizes}}
    text |= {-v: f"−{text[v]}" for v in sizes}
    places = sorted((float(signed(v, linear)), said) for v, said in text.items())
    inside = [(at, said) for at, said in places if low <= at <= high]
    return [at for at, _ in inside], [said for _, said in inside]


def spaced(sparsity: Any) -> Any:
    """Where a sparsity stands on its axis: -log10 of the kept share, so that 90% to 98% is not squeezed."""
    return -np.log10(np.maximum(1 - np.asarray(sparsity, float), 1e-6))


def sparsity_axis(sparsities: Iterable[float]) -> dict[str, Any]:
    """An x axis for :func:`spaced` coordinates, with ticks in % removed."""
    shown: list[float] = []
    every = sorted(set(sparsities))
    apart = 0.08 * (spaced(every[-1]) - spaced(every[0])) if every else 0
    for s in every:
        if not shown or spaced(s) - spaced(shown[-1]) > apart:
            shown.append(s)
    if len(shown) > 9:
        shown = [s for s in (0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999) if shown[0] <= s <= shown[-1]]
    return {
        "tickvals": [float(spaced(s)) for s in shown],
        "ticktext": [percent(s) for s in shown],
        "title": {"text": "weights removed (%, log scale)"},
    }


def thinned(count: int, most: int) -> np.ndarray:
    """At most ``most`` indices out of ``count``, first and last among them, denser at the start."""
    if count <= most:
        return np.arange(count)
    return np.unique(np.round(np.geomspace(1, count, most)).astype(int)) - 1

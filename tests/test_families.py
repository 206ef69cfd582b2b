"""Any network: sixteen families by every method, right or refused in a sentence. ``docs/networks.md`` is what this finds."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from families import OURS, THEIRS, family
from families_truth import Truth
from torch import Tensor

import pruneviz as pv
from pruneviz.door.parameters import named
from pruneviz.errors import PrunevizError, PruningWarning, Unreachable

PAGE = Path(__file__).resolve().parent.parent / "docs" / "networks.md"
TOLERANCE = 1e-6
GRADIENTS = ("random", "magnitude", "lottery-ticket", "obd", "snip", "grasp", "isometry")  # these refuse no family
SMALL = 700  # weights and biases up to which OBS's whole inverse is compared

pytestmark = pytest.mark.filterwarnings("ignore::pruneviz.errors.PruningWarning")  # what is left out is in the table


@cache
def truth(name: str) -> Truth:
    return Truth(family(name))


def near(one: Tensor, two: Tensor) -> bool:
    return one.shape == two.shape and bool((one - two).norm() <= TOLERANCE * two.norm() + 1e-15)


def scored(true: Truth, method: str, **options):
    found = true.family
    return pv.score(found.net, found.x, found.y, method=method, **found.options, **options)


def size(true: Truth, name: str) -> Tensor:
    return true.params[name].detach().abs()


WEIGHTS: dict[str, Callable[[Truth, str], Tensor]] = {
    "magnitude": lambda true, n: size(true, n) / true.params[n].detach().std(correction=0),
    "lottery-ticket": size,
    "obd": lambda true, n: true.diagonal(n) * size(true, n) ** 2 / 2,
    "snip": lambda true, n: size(true, n) * true.mean_slopes(True)[n].abs(),
    "isometry": lambda true, n: size(true, n) * true.mean_slopes(False)[n].abs(),
    "grasp": lambda true, n: true.params[n].detach() * true.flow[n],
}


def of_weights(true: Truth, method: str) -> dict:
    found = scored(true, method)
    assert set(found) == set(true.weights)
    if method == "random":
        again = scored(true, method)
        assert all(torch.equal(found[n], again[n]) and found[n].unique().numel() == found[n].numel() for n in found)
        assert all(v.shape == true.params[n].shape for n, v in found.items())
        return found
    for name, value in found.items():
        assert near(value, WEIGHTS[method](true, name)), name
    if method == "obd":
        others_of_obd(true)
    return found


def others_of_obd(true: Truth) -> None:
    """Its other curvatures: by given labels, and the exact one on some entries of each weight."""
    half = {n: size(true, n) ** 2 / 2 for n in true.weights}
    found = scored(true, "obd", hessian="empirical")
    assert all(near(value, half[n] * true.squares(n)) for n, value in found.items())
    found, second = scored(true, "obd", hessian="exact"), true.second(2)
    for name in true.weights:
        expected = half[name].flatten()[:2] * second[name]
        scale = found[name].norm()  # an entry alone may be 0 but for rounding
        assert bool((found[name].flatten()[:2] - expected).norm() <= TOLERANCE * scale + 1e-15), name


def rows_of(true: Truth, names: list[str]) -> list[list[tuple[str, Tensor]]]:
    """Blocks of what leads to one output: a row of the weight, and its bias."""
    found = []
    for name in names:
        layer = name.partition(".parametrizations.")[0].removesuffix(".weight")
        weight, bias = true.params[name], f"{layer}.bias"
        width = weight[0].numel()
        for o in range(len(weight)):
            own = [(bias, torch.tensor([o]))] if bias in true.params else []
            found.append([(name, torch.arange(o * width, (o + 1) * width)), *own])
    return found


def of_surgeon(true: Truth, method: str) -> dict:
    found = scored(true, method, blocks="rows")
    blocks = rows_of(true, list(found))
    expected = true.surgeon(blocks)
    assert all(near(value, expected[name]) for name, value in found.items())
    assert set(found) <= set(true.weights)
    if sum(len(places) for block in blocks for _, places in block) <= SMALL:
        expected = true.surgeon([[part for block in blocks for part in block]])
        assert all(near(value, expected[name]) for name, value in scored(true, method).items())
    return found


def of_filters(true: Truth, method: str) -> dict:
    options = {} if method == "l1-filters" else {"fisher": "empirical"}
    found = scored(true, method, **options)  # of EigenDamage nothing, where nothing can be turned: pruning says so
    for layer, value in found.items():
        weight = true.params[f"{layer}.weight"].detach()
        if method == "l1-filters":
            expected = {0: torch.stack([row.abs().sum() for row in weight])}
        elif method == "eigendamage":
            expected = dict(enumerate(true.directions(layer)))
        else:
            expected = {0: true.filters(layer, moved=method == "kron-obs")}
        assert set(value) == set(expected)
        assert all(near(value[axis], e) for axis, e in expected.items()), layer
    return found


def of_factors(true: Truth) -> None:
    found = true.family
    for layer, factors in pv.kfac(found.net, found.x, found.y, fisher="empirical", **found.options).items():
        A, S = (t.squeeze(0) for t in true.factors[f"{layer}.weight"])
        assert near(factors.A, A), layer
        assert near(factors.S, S), layer


CHECK: dict[str, Callable[[Truth, str], dict]] = dict.fromkeys(GRADIENTS, of_weights)
CHECK |= {"obs": of_surgeon} | dict.fromkeys(("l1-filters", "kron-obd", "kron-obs", "eigendamage"), of_filters)


def pruned(true: Truth, method: str) -> str:
    """Prune a little: what is gone is zero, and the outputs are finite. Returns what is left to say."""
    found = true.family
    options = found.options | ({"steps": 20} if method == "isometry" else {"blocks": "rows"} if method == "obs" else {})
    try:
        made = pv.prune(found.net, found.x, found.y, method=method, sparsity=0.1, **options)
        said = ""
    except Unreachable as error:  # of whole units
        most = float(re.search(r"at most ([\d.]+)%", str(error))[1])
        made = pv.prune(found.net, found.x, found.y, method=method, sparsity=max(0, most - 0.1) / 100, **options)
        said = f"{most:g}% at most"
    params = named(made.model)
    assert all(not bool(params[n][~keep].any()) for n, keep in made.mask.items())
    outputs = Truth.outputs(_Other(true, made.model))
    assert bool(torch.isfinite(outputs).all())
    if method == "eigendamage":
        same = pv.prune(found.net, found.x, found.y, method=method, sparsity=0, **options)
        assert near(Truth.outputs(_Other(true, same.model)), true.outputs())
    return said


class _Other:
    """The same samples through another network."""

    def __init__(self, true: Truth, net):
        self.family, self.net = true.family, net


@cache
def outcome(name: str, method: str) -> tuple[str, str]:
    """A cell: what it says, and the sentence of a refusal. Raises AssertionError for a wrong number, and any raw error."""
    true = truth(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PruningWarning)
        try:
            found = CHECK[method](true, method)
            more = pruned(true, method)
        except PrunevizError as error:
            return f"refused: {' '.join(str(error).split()[:6])} …", str(error)
    assert found
    covered = [n if n in true.params else f"{n}.weight" for n in found]
    parts = [] if set(covered) >= set(true.weights) else [f"{len(covered)} of {len(true.weights)}"]
    parts += [more] if more else []
    return f"right ({', '.join(parts)})" if parts else "right", ""


def names() -> list[str]:
    return [*(THEIRS if find_spec("transformers") else ()), *OURS]


def rows(name: str) -> tuple[str, list[str]]:
    """A family's row, and the sentences below the table."""
    found = {method: outcome(name, method) for method in pv.METHODS}
    row = f"| {name} | {' | '.join(cell for cell, _ in found.values())} |"
    said: dict[str, list[str]] = {}
    for method, (_, sentence) in found.items():
        if sentence:
            said.setdefault(sentence, []).append(method)
    return row, [f"- **{name}**, {', '.join(methods)}: {sentence}" for sentence, methods in said.items()]


def page() -> str:
    made = [rows(name) for name in names()]
    methods = list(pv.METHODS)
    refused = [line for _, lines in made for line in lines]
    text = f"""# Which networks, by which methods

Small random networks of many families, of `transformers` and of our own, by every method. `tests/test_families.py` makes
this page (`python docs/networks.py`), and fails where it no longer holds.

- **right**: every score is what a loop over single samples, or a dense matrix, gives in float64 (relative error at most
  1e-6), and pruning leaves zeros where the mask has them and finite outputs. Every matrix of the network is scored.
- **right (5 of 7)**: the same for so many of its matrices; `pv.inspect`, and the report of `pv.prune`, say why the others are
  left out. "6.6% at most": as far as removal of whole units goes there.
- **refused**: in one sentence, which stands below the table. Gradient scores and Optimal Brain Damage refuse no family.

| family | {" | ".join(methods)} |
|---|{"---|" * len(methods)}
"""
    text += "\n".join(row for row, _ in made)
    return text + "\n\n## Refusals\n\n" + "\n".join(refused or ["None."]) + "\n"


def there(name: str) -> None:
    if name in THEIRS and not find_spec("transformers"):
        pytest.skip("needs transformers: pip install -r requirements-heavy.txt")


@pytest.mark.parametrize("method", list(pv.METHODS))
@pytest.mark.parametrize("name", [*THEIRS, *OURS])
def test_every_family_is_scored_right_or_refused_as_the_page_says(name: str, method: str):
    there(name)
    lines = PAGE.read_text(encoding="utf-8").splitlines() if PAGE.exists() else []
    told = next((line.strip("| ").split(" | ")[1:] for line in lines if line.startswith(f"| {name} |")), None)
    cell, sentence = outcome(name, method)
    assert not (sentence and method in GRADIENTS), sentence
    assert told is not None, "docs/networks.md lacks this family: python docs/networks.py"
    before = told[list(pv.METHODS).index(method)]
    assert cell.startswith("right") or before.startswith("refused"), f"{before!r} became {sentence!r}: mend that"
    assert cell == before, f"{before!r} became {cell!r}: python docs/networks.py"
    assert not sentence or any(sentence in line and name in line for line in lines)


@pytest.mark.parametrize("name", [*THEIRS, *OURS])
def test_every_other_call_takes_every_family_or_says_why_not(name: str):
    there(name)
    true = truth(name)
    net, x, y, options = true.family.net, true.family.x, true.family.y, true.family.options
    seen = pv.inspect(net, x, y, **options)
    assert set(seen.network.counted()) == set(true.weights)
    assert seen.flops
    outputs = {k: v for k, v in options.items() if k == "outputs"}
    for conv in ("kernel", "operator"):
        values = pv.jacobian_singular_values(net, x, conv=conv, **outputs)
        assert all(bool(torch.isfinite(v).all()) for v in values.values())
    if name == "tied autoencoder":
        with pytest.raises(PrunevizError, match="'enc' is used twice"):
            of_factors(true)
    else:
        of_factors(true)
    for method in ("l1-filters", "kron-obs", "eigendamage", "obd"):
        if outcome(name, method)[1]:
            continue
        sparsity = 0.1 if "most" not in outcome(name, method)[0] else 0.01
        try:
            made = pv.prune(net, x, y, method=method, sparsity=sparsity, **options)
        except Unreachable:
            continue
        small = pv.compact(made)
        one = Truth.outputs(_Other(true, made.model))
        assert near(Truth.outputs(_Other(true, small.model)), one)

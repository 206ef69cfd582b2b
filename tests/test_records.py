"""One vocabulary: stages, arrays and their keys have their names in pruneviz/records, and are spelled out nowhere else."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pruneviz.basics.errors import StoreError
from pruneviz.figures import grid
from pruneviz.records.arrays import KINDS, WHOLE, Kept, Saliency, Spectra
from pruneviz.records.stages import Stage

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("figures", "ui", "papers")
FILES = [
    *(path for room in ROOMS for path in ROOT.glob(f"pruneviz/{room}/**/*.py")),
    *ROOT.glob("pages/*.py"),
    ROOT / "app.py",
]
SCRIPTS = [path for room in ROOMS for path in ROOT.glob(f"pruneviz/{room}/**/*.js")]

WORDS = {str(stage) for stage in Stage}
ARRAY = re.compile(rf"({'|'.join(sorted({kind.prefix for kind in KINDS}))})-({'|'.join(WORDS)}|[0-9.]*)(-[0-9.]*)?")
# Words that are prose, or other things of the same name -> where they may stand
PROSE = {
    # a run's setting of that name (init or trained), in its configuration, in tables and forms
    "start": ("figures/change.py", "figures/curves.py", "figures/first_layer.py", "figures/names.py", "ui/forms.py", "ui/pick/__init__.py",
              "pages/runs.py"),
    # a word of the glossary, which pages name to have it explained; a heading in the tables of reproductions
    "dense": ("ui/words.py", *(f"pages/{path.name}" for path in ROOT.glob("pages/*.py")), "papers/eigendamage.py", "papers/isometry.py",
              "papers/obs_lenet.py"),
    # a heading
    "pruned": ("papers/isometry.py",),
    # a column of the rows that a reproduction counts
    "zeroed": ("papers/loss_change.py",),
}  # fmt: skip


def place(path: Path) -> str:
    return str(path.relative_to(ROOT)).removeprefix("pruneviz/")


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """The string constants of a file, those within f-strings too; docstrings are prose."""
    tree = ast.parse(path.read_text())
    prose = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            yield node.lineno, node.value


def allowed(path: Path, word: str) -> bool:
    return place(path) in PROSE.get(word, ())


@pytest.mark.parametrize("path", FILES, ids=place)
def test_no_stage_and_no_array_is_spelled_out(path: Path):
    found = [
        f"{place(path)}:{line}: {text!r}" for line, text in texts(path) if text in WORDS and not allowed(path, text)
    ]
    found += [f"{place(path)}:{line}: {text!r}" for line, text in texts(path) if ARRAY.fullmatch(text)]
    assert found == []


@pytest.mark.parametrize("path", SCRIPTS, ids=place)
def test_no_stage_is_spelled_out_in_the_browser_s_code(path: Path):
    code = re.sub(r"^\s*//.*$", "", path.read_text(), flags=re.M)
    never = re.findall(r"\b(?:zeroed|pruned|tuned)\b", code)
    keys = re.findall(r"""[.{,\[]\s*["']?(?:start|dense)["']?\s*[,\]}:;.)\[]""", code)
    assert never + keys + re.findall(r"\b255\b", code) == []


def test_no_allowance_is_left_over():
    used = {(word, place(path)) for path in FILES for _, word in texts(path)}
    given = {
        (word, name)
        for word, names in PROSE.items()
        for name in names
        if not name.startswith("pages/") or word == "start"
    }
    assert given - used == set()


def test_the_browser_s_code_gets_its_names_from_here():
    said = json.loads(re.search(r"MOMENTS = (\{.*?\})", grid.JS)[1])
    assert next(iter(said)) == Stage.START
    assert f'TUNED = "{Stage.TUNED}"' in grid.JS
    assert f"WHOLE = {WHOLE}" in grid.JS


def test_an_array_is_written_and_read_back_and_another_shape_is_refused():
    made = Spectra(layers=("a", "b"), A=(np.ones(3), None), S=(np.ones(2), None))
    arrays, about = made.write()
    assert (sorted(arrays), about, arrays["A0"].dtype) == (["A0", "S0"], {"layers": "a\nb"}, np.float32)
    again = Spectra.read(arrays, about["layers"].split("\n"))
    assert [a is None for a in again.A] == [False, True]
    with pytest.raises(TypeError, match="Spectra"):
        Spectra(layers=("a", "b"), A=(np.ones(3),), S=(np.ones(2), None)).write()
    with pytest.raises(TypeError, match=r"Kept\.weights"):
        Kept(layers=("a",), density=(None,), shape=(None,), weights=np.ones(3)).write()


def test_an_array_that_lacks_a_part_says_so():
    with pytest.raises(StoreError, match="saliency lack 'edges'"):
        Saliency.read({}, ("a",))


def test_names_of_layers_are_text():
    found = Spectra.read({}, ['<a href="http://x">1</a>\x00'])
    assert found.layers == ('‹a href="http://x"›1‹/a›',)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_name_says_at_which_sparsity_it_was_recorded(kind):
    for stage in kind.stages:
        if stage in (Stage.START, Stage.DENSE):
            assert kind.name(stage=stage) == f"{kind.prefix}-{stage}"
        else:
            names = [kind.name(s, stage) for s in (0.98, 0.5)]
            assert kind.sparsities([*names, "other-0.5", f"{kind.prefix}-start"], stage) == [0.5, 0.98]

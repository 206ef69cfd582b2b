"""Free text never passes through Markdown: what is drawn as Markdown is made of constants, numbers and ``plain(…)``."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest
from reading import read

from pruneviz.ui.text import plain

ROOT = Path(__file__).resolve().parent.parent

# Streamlit's functions that draw Markdown -> the place of the text among their arguments. Options are Markdown in the last three.
TEXT = {
    **dict.fromkeys(
        (
            "markdown", "caption", "title", "header", "subheader", "error", "warning", "info", "success", "badge", "button",
            "download_button", "link_button", "form_submit_button", "popover", "expander", "toggle", "checkbox", "selectbox",
            "multiselect", "text_input", "text_area", "number_input", "slider", "select_slider", "metric", "toast", "status",
            "spinner", "table", "tabs", "write", "html", "file_uploader", "data_editor", "radio", "pills", "segmented_control",
        ),
        0,
    ),
    **dict.fromkeys(("progress", "page_link"), 1),
}  # fmt: skip
OPTIONS = {"radio", "pills", "segmented_control"}
NAMED = {"label", "help", "body", "text", "caption"}

MADE = {
    "plain",
    "len",
    "sum",
    "round",
    "int",
    "float",
    "percent",
    "number",
    "colour",
}  # plain text, numbers and colours
PROGRAM = {"method_class", "recorded", "model_fields"}  # what the program's own files say
PASSING = {
    "str", "list", "tuple", "dict", "sorted", "zip", "enumerate", "range", "min", "max", "next", "iter", "map", "DataFrame",
}  # fmt: skip
NUMBER = re.compile(r"[^s]*[,bdeEfFgGnoxX%]")  # a format that takes no text


@dataclass
class House:
    """Source files by module, and where free text would be drawn in them."""

    modules: dict[str, ast.Module]
    found: list[str] = field(default_factory=list)
    wanted: dict[tuple[str, str], set[str]] = field(default_factory=dict)  # function -> its parameters that are drawn

    def search(self) -> list[str]:
        """Calls that draw what is not made of constants, those of functions that draw their parameters among them."""
        known = None
        while known != self.wanted:
            known, self.found = {key: set(names) for key, names in self.wanted.items()}, []
            for module, tree in self.modules.items():
                self._visit(module, tree, [tree])
        return self.found

    def _visit(self, module: str, node: ast.AST, scopes: list[ast.AST]) -> None:
        for child in ast.iter_child_nodes(node):
            inner = [*scopes, child] if isinstance(child, ast.FunctionDef | ast.Lambda) else scopes
            if isinstance(child, ast.Call):
                for text in self._drawn(module, child):
                    if not self._safe(module, text, scopes, drawn=True):
                        self.found.append(f"{module}:{child.lineno}: {ast.unparse(text)[:90]}")
            self._visit(module, child, inner)

    def _drawn(self, module: str, call: ast.Call) -> Iterator[ast.expr]:
        """The arguments of a call that are drawn as Markdown."""
        named = {each.arg: each.value for each in call.keywords}
        if function := self._function(module, call.func):
            args = [each.arg for each in (*function[1].args.posonlyargs, *function[1].args.args)]
            for name in self.wanted.get((function[0], function[1].name), ()):
                if name in named:
                    yield named[name]
                elif name in args:
                    yield from call.args[args.index(name) :][:1]
                elif (rest := function[1].args.vararg) and rest.arg == name:
                    yield from call.args[len(args) :]
            return
        if (
            not isinstance(call.func, ast.Attribute)
            or call.func.attr not in TEXT
            or not self._streamlit(module, call.func)
        ):
            return
        name = call.func.attr
        yield from call.args[TEXT[name] : TEXT[name] + 1]
        yield from (value for key, value in named.items() if key in NAMED)
        if name in OPTIONS:
            shown = named.get("format_func")
            yield from [shown] if shown and ast.unparse(shown) != "str" else call.args[1:2]

    def _streamlit(self, module: str, func: ast.Attribute) -> bool:
        """Whether a method may be Streamlit's: not one of our modules', nor of what others brought."""
        root = func.value
        while isinstance(root, ast.Attribute | ast.Call | ast.Subscript):
            root = root.func if isinstance(root, ast.Call) else root.value
        others = {"archive", "log", "store"} | (_imported(self.modules[module]).keys() - {"st"})
        return isinstance(root, ast.Name) and root.id not in others

    def _function(self, module: str, func: ast.expr) -> tuple[str, ast.FunctionDef] | None:
        """One of our own functions in pages and ui, with its module."""
        imported = _imported(self.modules[module])
        if isinstance(func, ast.Name):
            at, _, name = imported.get(func.id, f"{module}.{func.id}").rpartition(".")
        elif isinstance(func, ast.Attribute) and isinstance(func.value, ast.Name):
            at, name = imported.get(func.value.id, ""), func.attr
        else:
            return None
        node = _functions(self.modules[at]).get(name) if at in self.modules else None
        return node and (at, node)

    def _safe(
        self, module: str, node: ast.expr, scopes: list[ast.AST], *, drawn: bool, seen: frozenset = frozenset()
    ) -> bool:
        """Whether a text is made of constants, numbers and ``plain(…)``. ``drawn``: a parameter is left to the callers."""

        def safe(part: ast.expr) -> bool:
            return self._safe(module, part, scopes, drawn=drawn, seen=seen)

        match node:
            case ast.Constant() | ast.Compare():
                return True
            case ast.JoinedStr():
                return all(safe(part) for part in node.values)
            case ast.FormattedValue():
                spec = node.format_spec.values[0].value if node.format_spec else ""  # type: ignore[attr-defined]
                return bool(NUMBER.fullmatch(spec)) or safe(node.value)
            case ast.Name():
                return _constant(node.id) or self._bound(module, node.id, scopes, drawn, seen)
            case ast.Attribute():
                return _constant(node.attr) or node.attr in PROGRAM or safe(node.value)
            case ast.Subscript() | ast.Starred() | ast.keyword():
                return safe(node.value)
            case ast.List() | ast.Tuple() | ast.Set():
                return all(map(safe, node.elts))
            case ast.Dict():
                return all(map(safe, node.values))
            case ast.ListComp() | ast.GeneratorExp() | ast.SetComp():
                return self._safe(module, node.elt, [*scopes, node], drawn=drawn, seen=seen)
            case ast.DictComp():
                return self._safe(module, node.value, [*scopes, node], drawn=drawn, seen=seen)
            case ast.IfExp():
                return safe(node.body) and safe(node.orelse)
            case ast.BoolOp():
                return all(map(safe, node.values))
            case ast.BinOp():
                sides = (node.left, node.right)
                numbers = any(isinstance(side, ast.Constant) and not isinstance(side.value, str) for side in sides)
                return (numbers and not isinstance(node.op, ast.Mult | ast.Mod)) or all(map(safe, sides))
            case ast.Lambda():
                return self._safe(module, node.body, [*scopes, node], drawn=False, seen=seen)
            case ast.Call():
                return self._made(module, node, scopes, drawn, seen)
        return False

    def _made(self, module: str, call: ast.Call, scopes: list[ast.AST], drawn: bool, seen: frozenset) -> bool:
        name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        if name in MADE | PROGRAM:
            return True
        parts = [*call.args, *(each.value for each in call.keywords)]
        if function := self._function(module, call.func):
            at, body = function
            returned = [node.value for node in ast.walk(body) if isinstance(node, ast.Return) and node.value]
            return body in seen or all(
                self._safe(
                    at, value, [self.modules[at], *_around(self.modules[at], body)], drawn=False, seen=seen | {body}
                )
                for value in returned
            )
        if isinstance(call.func, ast.Attribute):
            parts.append(call.func.value)
        if isinstance(call.func, ast.Attribute) and name in PASSING:  # pd.DataFrame(…), dict.fromkeys(…)
            parts.pop()
        elif isinstance(call.func, ast.Name) and name not in PASSING:
            return False
        return all(self._safe(module, part, scopes, drawn=drawn, seen=seen) for part in parts)

    def _bound(self, module: str, name: str, scopes: list[ast.AST], drawn: bool, seen: frozenset) -> bool:
        """Whether everything that a name stands for, in its innermost scope, is safe."""
        for i in range(len(scopes) - 1, -1, -1):
            scope = scopes[i]
            if isinstance(scope, ast.FunctionDef | ast.Lambda):
                args = scope.args
                rest = [args.vararg] if args.vararg else []
                if name in {each.arg for each in (*args.posonlyargs, *args.args, *args.kwonlyargs, *rest)}:
                    if isinstance(scope, ast.FunctionDef) and drawn:
                        self.wanted.setdefault((module, scope.name), set()).add(name)
                        return True
                    return False
            if values := _bindings(scope).get(name):
                here = (scope, name)  # a name that is made from itself is as safe as the rest
                return here in seen or all(
                    self._safe(module, value, scopes[: i + 1], drawn=drawn, seen=seen | {here}) for value in values
                )
        return name in PASSING


def _constant(name: str) -> bool:
    """METHODS, GLOSSARY, tour.STEPS: what the program's own files say."""
    return bool(re.fullmatch(r"_?[A-Z][A-Z0-9_]*", name))


def _around(tree: ast.Module, inner: ast.FunctionDef) -> list[ast.AST]:
    """The functions that a function is defined in, outermost first, and itself."""
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and inner in ast.walk(node)]


@cache
def _imported(tree: ast.Module) -> dict[str, str]:
    """Name -> the module or function that it was imported from."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            found |= {each.asname or each.name: f"{node.module}.{each.name}" for each in node.names}
        elif isinstance(node, ast.Import):
            found |= {each.asname or each.name: each.name for each in node.names}
    return found


@cache
def _functions(tree: ast.Module) -> dict[str, ast.FunctionDef]:
    return {node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


@cache
def _bindings(scope: ast.AST) -> dict[str, list[ast.expr]]:
    """Name -> what it is assigned, or drawn from, anywhere in a scope."""
    found: dict[str, list[ast.expr]] = {}
    for node in ast.walk(scope):
        match node:
            case ast.Assign():
                pairs = [(target, node.value) for target in node.targets]
            case ast.AugAssign() | ast.AnnAssign() | ast.NamedExpr() if node.value:
                pairs = [(node.target, node.value)]
            case ast.For() | ast.comprehension():
                pairs = [(node.target, node.iter)]
            case _:
                continue
        for target, value in pairs:
            rows = value.elts if isinstance(node, ast.For) and isinstance(value, ast.Tuple | ast.List) else [value]
            for row in rows:
                apart = (
                    isinstance(target, ast.Tuple) and isinstance(row, ast.Tuple) and len(target.elts) == len(row.elts)
                )
                for part, of in zip(target.elts, row.elts, strict=True) if apart else [(target, row)]:
                    names = [] if isinstance(part, ast.Subscript | ast.Attribute) else ast.walk(part)
                    for name in names:
                        if isinstance(name, ast.Name):
                            found.setdefault(name.id, []).append(of)
    return found


HOUSE = [*ROOT.glob("pages/*.py"), *ROOT.glob("pruneviz/ui/*.py")]
BROUGHT = """import pandas as pd
import streamlit as st
from pruneviz.methods import METHODS
from pruneviz.ui import words
from pruneviz.ui.text import plain
"""


def searched(paths: list[Path], line: str = "") -> list[str]:
    """Where free text is drawn in these files, and in a page that has this line."""
    files = {".".join(path.relative_to(ROOT).with_suffix("").parts): path.read_text() for path in paths}
    return House({name: ast.parse(text) for name, text in (files | {"pages.new": BROUGHT + line}).items()}).search()


def test_no_page_draws_free_text_as_markdown():
    assert len(HOUSE) > 20
    assert searched(HOUSE) == []


@pytest.mark.parametrize(
    "line",
    [
        "st.error(str(error))",
        "st.caption(f'{run.tag}: done')",
        "left, right = st.columns(2)\nleft.markdown(run.row['note'])",
        "st.button('Go', help=st.query_params['help'])",
        "st.page_link('pages/run.py', label=names[run.id])",
        "st.progress(0.5, run.row['message'])",
        "name = run.tag\nst.header(f'**{name}**')",
        "name = 'a'\nname += run.tag\nst.header(name)",
        "for name in tags:\n    st.badge(name)",
        "st.pills('Tags', tags)",
        "st.pills('Tags', [1], format_func=lambda k: tags[k])",
        "st.warning(', '.join(tag for tag in tags))",
        "def say(text):\n    st.info(text)\nsay(run.tag)",
        "def said(run):\n    return run.tag\nst.info(said(run))",
        "words.head(run.tag, 'About')",
        "st.table(pd.DataFrame({'Tag': tags}))",
        "st.html(f'<b>{run.tag}</b>')",
        "st.info('%s' % run.tag)",
        "st.info('{}'.format(run.tag))",
        "with st.expander(run.tag):\n    pass",
    ],
)  # fmt: skip
def test_free_text_is_found(line: str):
    assert [where for where in searched([ROOT / "pruneviz/ui/words.py"], line) if where.startswith("pages.new")]


@pytest.mark.parametrize(
    "line",
    [
        "st.error(plain(error))",
        "st.caption(f'{len(runs)} runs, {run.seconds:.1f} s, {plain(run.tag)}')",
        "st.markdown(METHODS[key].idea)",
        "about = METHODS[key]\nst.header(about.title)",
        "def say(text):\n    st.info(text)\nsay(plain(run.tag))",
        "names = [plain(tag) for tag in tags]\nst.warning(', '.join(names))",
        "st.selectbox('Tag', tags)",
    ],
)
def test_constants_numbers_and_plain_text_pass(line: str):
    assert searched([], line) == []


def test_plain_text_reads_as_it_was_written():
    text = "No method called '[x](http://a.example)': see $x$, :material/delete: -- or a_b*c*, C:\\new & <b>."
    assert read(plain(text)) == text


def test_plain_text_keeps_its_lines():
    assert plain("one\n    two\n\nthree") == "one\\\ntwo\\\nthree"

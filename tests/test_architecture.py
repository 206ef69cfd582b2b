"""Who may import whom: each folder only what stands before it, and torch where it is needed."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FILES = [*ROOT.glob("pruneviz/**/*.py"), *ROOT.glob("pages/*.py"), ROOT / "app.py"]
ORDER = ["basics", "records", "datasets", "models", "door", "curvature", "units", "methods", "plan", "run"]
ORDER += ["store", "figures", "difference", "jobs", "ui", "papers", "cli"]
CARDS = {"datasets", "models", "methods", "figures", "papers"}
BARRED = {
    "streamlit": {"ui", "pages", "app"},
    "plotly": {"figures", "difference", "ui"},
    "torch": {
        "difference",
        "door",
        "curvature",
        "units",
        "run",
        "jobs",
        "papers",
        "cli",
        "datasets",
        "models",
        "methods",
    },
}


def _imports(path: Path, nodes: list[ast.AST] | None = None) -> set[str]:
    """Every module that a file imports anywhere, under TYPE_CHECKING too; ``from pruneviz import x`` is pruneviz.x."""
    found = set()
    for node in nodes if nodes is not None else ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def _room(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[1] if parts[0] == "pruneviz" else parts[0]


def test_each_folder_imports_only_what_stands_before_it():
    place = {name: i for i, name in enumerate(ORDER)}
    rooms = {path: _room(path) for path in FILES if _room(path) in place}
    back = [
        f"{path.relative_to(ROOT)} -> {module}"
        for path, room in rooms.items()
        for module in _imports(path)
        if (name := [*module.split("."), ""][1]) in place
        and module.startswith("pruneviz.")
        and place[name] > place[room]
    ]
    assert back == []
    assert set(ORDER) == {path.name for path in ROOT.glob("pruneviz/*/") if (path / "__init__.py").is_file()}


def test_torch_streamlit_and_plotly_stay_where_they_belong():
    for path in FILES:
        tops = {module.split(".")[0] for module in _imports(path)}
        for package, rooms in BARRED.items():
            assert package not in tops or _room(path) in rooms, f"{path.relative_to(ROOT)} imports {package}"
        if _room(path) in CARDS - {"figures"} | {"difference"} and "_torch" not in path.parts:
            top = {module.split(".")[0] for module in _imports(path, ast.parse(path.read_text()).body)}
            assert "torch" not in top, f"{path.relative_to(ROOT)} imports torch at its top"


def test_no_files_import_each_other_in_a_circle():
    modules = {".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): p for p in FILES}
    graph = {name: (_imports(path) & set(modules)) - {name} for name, path in modules.items() if name != "pruneviz"}
    packages = {name for name, path in modules.items() if path.name == "__init__.py"}
    graph = {
        name: {m for m in used if m not in packages or not name.startswith(f"{m}.")} for name, used in graph.items()
    }
    assert len(list(TopologicalSorter(graph).static_order())) > 100  # raises CycleError, naming the files


def test_files_and_folders_are_small():
    for path in FILES:
        assert len(path.read_text().splitlines()) <= (150 if _room(path) == "pages" else 400), path.relative_to(ROOT)
    for folder in [ROOT / "pruneviz", *(p for p in ROOT.glob("pruneviz/**/") if p.name not in {*CARDS, "__pycache__"})]:
        assert len([p for p in folder.iterdir() if p.is_file()]) <= 16, folder.relative_to(ROOT)
    assert {p.stem for p in ROOT.glob("pruneviz/*.py")} == {"__init__", "__main__", "errors", "removal"}


def test_what_the_web_process_imports_brings_no_torch():
    code = (
        "import sys, importlib, pkgutil, pruneviz\n"
        "for room in 'basics records plan store figures difference ui papers datasets models methods'.split():\n"
        "    package = importlib.import_module(f'pruneviz.{room}')\n"
        "    for m in pkgutil.iter_modules(package.__path__):\n"
        "        m.name == '_torch' or importlib.import_module(f'pruneviz.{room}.{m.name}')\n"
        "import pruneviz.jobs.local\n"
        "pruneviz.METHODS['snip'], pruneviz.RunConfig(method='snip').id\n"
        "assert 'torch' not in sys.modules, 'torch came in'"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_core_brings_neither_streamlit_nor_plotly():
    code = "import sys, pruneviz.run.loop; assert not {'streamlit', 'plotly'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_no_two_test_files_share_a_name():
    names = [path.name for path in (ROOT / "tests").rglob("*.py")]
    shared = {name for name in names if names.count(name) > 1} - {"conftest.py"}
    assert shared == set()  # pytest imports both under one name, and stops before the first test

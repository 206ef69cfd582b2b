"""Who may import whom."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FILES = [p for p in [ROOT / "app.py", *ROOT.glob("pages/*.py"), *ROOT.glob("pruneviz/**/*.py")] if p.is_file()]


def _imports(path: Path, *, top_level: bool = False) -> set[str]:
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level else list(ast.walk(tree))
    found = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return found | {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}


def _outside(name: str, allowed: tuple[str, ...]) -> list[str]:
    """Files that import a package though they are not in an allowed place."""
    places = [ROOT / part for part in allowed]
    return [
        str(path.relative_to(ROOT))
        for path in FILES
        if any(module.split(".")[0] == name for module in _imports(path))
        and not any(path == place or place in path.parents for place in places)
    ]


def test_streamlit_only_in_the_app_the_pages_and_ui():
    assert len(FILES) > 20
    assert _outside("streamlit", ("app.py", "pages", "pruneviz/ui")) == []


def test_plotly_only_in_figures_and_ui():
    assert _outside("plotly", ("pruneviz/figures", "pruneviz/ui")) == []


@pytest.mark.parametrize(
    "path",
    sorted(
        p for part in ("methods", "models", "datasets", "figures", "jobs", "papers") for p in ROOT.glob(f"pruneviz/{part}/*.py")
    ),
    ids=lambda p: str(p.relative_to(ROOT)),
)  # fmt: skip
def test_no_torch_at_the_top_of(path: Path):
    assert not any(module.split(".")[0] == "torch" for module in _imports(path, top_level=True))


def test_methods_never_import_the_configuration_or_the_store():
    for path in ROOT.glob("pruneviz/methods/*.py"):
        assert not _imports(path) & {"pruneviz.config", "pruneviz.store", "pruneviz.pipeline"}, path.name


def test_curvature_knows_nothing_of_pruning():
    forbidden = {"pruneviz.masks", "pruneviz.pruning", "pruneviz.pipeline", "pruneviz.store", "pruneviz.config"}
    for path in ROOT.glob("pruneviz/curvature/*.py"):
        assert not _imports(path) & forbidden, path.name


def test_the_pipeline_knows_no_store_no_jobs_and_no_browser():
    assert not {
        m
        for m in _imports(ROOT / "pruneviz/pipeline.py")
        if m.startswith(("pruneviz.store", "pruneviz.jobs", "pruneviz.ui"))
    }


def test_what_the_web_process_imports_brings_no_torch():
    code = (
        "import sys, pruneviz, pruneviz.store, pruneviz.methods, pruneviz.models, pruneviz.datasets, pruneviz.comparison, pruneviz.papers\n"
        "import pruneviz.figures, pruneviz.jobs.local, pruneviz.ui, pruneviz.config\n"
        "pruneviz.METHODS['snip'], pruneviz.RunConfig(method='snip').id\n"
        "assert 'torch' not in sys.modules, 'torch came in'"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_core_brings_neither_streamlit_nor_plotly():
    code = "import sys, pruneviz.pipeline; assert not {'streamlit', 'plotly'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_pages_are_thin():
    for path in ROOT.glob("pages/*.py"):
        assert len(path.read_text().splitlines()) <= 150, path.name

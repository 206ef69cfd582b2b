"""One install: what the wheel holds, and what it asks for."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from email import message_from_bytes
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ASKED = {canonicalize_name(r.name): r for r in map(Requirement, PROJECT["dependencies"])}
UNREACHED = ("Could not find a version", "No matching distribution", "ConnectionError", "ProxyError")


def build(folder: Path, to: Path) -> zipfile.ZipFile:
    """The wheel of a checkout."""
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--retries", "1", "-w", str(to), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode and any(words in done.stderr for words in UNREACHED):
        pytest.skip("the wheel cannot be built: hatchling, which builds it, cannot be fetched from a package index")
    assert done.returncode == 0, done.stderr
    (wheel,) = to.glob("pruneviz-*.whl")
    return zipfile.ZipFile(wheel)


def page(wheel: zipfile.ZipFile) -> str:
    """What a package index shows."""
    (path,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    return message_from_bytes(wheel.read(path)).get_payload(decode=True).decode()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> zipfile.ZipFile:
    return build(ROOT, tmp_path_factory.mktemp("wheel"))


def files(folder: str) -> list[Path]:
    found = [p.relative_to(ROOT) for p in (ROOT / folder).rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    assert found
    return found


def test_the_wheel_holds_the_package_the_pages_the_theme_and_the_samples_and_nothing_else(wheel):
    dashboard = [Path("app.py"), *files("pages"), *files(".streamlit"), *files("samples")]
    due = {str(path) for path in files("pruneviz")}
    due |= {f"pruneviz/_dashboard/{path}" for path in dashboard if path != Path("samples/make.py")}
    held = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert {Path(name).suffix for name in held} >= {".js", ".css", ".html", ".svg", ".toml", ".safetensors"}
    assert held == due


def test_the_wheel_is_small(wheel):
    assert Path(wheel.filename).stat().st_size <= 8e6


def test_on_a_package_index_readme_points_at_nothing_that_is_not_there(wheel):
    targets = re.findall(r"\]\(([^)]+)\)", page(wheel))
    assert [target for target in targets if not re.match("https?:", target)] == []
    assert "![" not in page(wheel).replace("](http", "")


def test_with_an_address_readme_shows_its_images_there(wheel, tmp_path):
    left = shutil.ignore_patterns(".git", ".venv*", "__pycache__", "tests", "bench", "samples")
    shutil.copytree(ROOT, tmp_path / "copy", ignore=left)
    settings = tmp_path / "copy" / "pyproject.toml"
    written = settings.read_text()
    settings.write_text(re.sub(r'^address = "[^"]*"', 'address = "https://example.org/raw/"', written, flags=re.M))
    (tmp_path / "copy" / "samples").mkdir()
    shown = page(build(tmp_path / "copy", tmp_path))
    images = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", (ROOT / "README.md").read_text())
    assert images
    assert re.findall(r"!\[[^\]]*\]\(([^)]+)\)", shown) == [f"https://example.org/raw/{image}" for image in images]
    assert "[CONTRIBUTING.md](https://example.org/raw/CONTRIBUTING.md)" in shown


def test_everything_that_is_imported_is_asked_for():
    trees = [
        ast.parse(path.read_text())
        for path in (ROOT / "app.py", *ROOT.glob("pages/*.py"), *ROOT.glob("pruneviz/**/*.py"))
    ]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    modules = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    modules |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
    foreign = {m.split(".")[0] for m in modules} - {*sys.stdlib_module_names, "pruneviz"}
    distributions = packages_distributions()
    assert {"torch", "scipy", "sklearn"} <= foreign
    assert sorted(m for m in foreign if not {canonicalize_name(d) for d in distributions[m]} & ASKED.keys()) == []


def test_what_requirements_txt_pins_is_what_the_wheel_asks_for():
    lines = [line.split("#")[0].strip() for line in (ROOT / "requirements.txt").read_text().splitlines()]
    pinned = {canonicalize_name(r.name): r for r in map(Requirement, filter(None, lines))}
    assert pinned.keys() - {"pytest"} == ASKED.keys()
    exact = {name: next(iter(r.specifier)).version for name, r in pinned.items() if "==" in str(r.specifier)}
    assert {"torch", "streamlit"} <= exact.keys()
    assert [name for name, version in exact.items() if version not in ASKED[name].specifier] == []

"""What the server does before the first page is asked for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("streamlit")
from pruneviz.ui.server import load_imports


def test_what_a_page_imports_is_loaded_and_the_page_is_not_run(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("needed_first", "needed_part", "needed_late"):
        (tmp_path / f"{name}.py").write_text("thing = 1\n")
    pages = tmp_path / "pages"
    pages.mkdir()
    (pages / "new.py").write_text(
        "from __future__ import annotations\nimport needed_first\nfrom needed_part import thing\n"
        "def later():\n    import needed_late\nraise RuntimeError('the page ran')\n"
    )
    load_imports(pages)
    assert {"needed_first", "needed_part", "needed_late"} & set(sys.modules) == {"needed_first", "needed_part"}


def test_what_the_pages_import_brings_no_torch():
    code = (
        "import sys; from pathlib import Path; from pruneviz.ui.server import load_imports; load_imports(Path('pages'))\n"
        "assert 'pruneviz.ui.compare_grid' in sys.modules and 'torch' not in sys.modules"
    )
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

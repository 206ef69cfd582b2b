"""The notebook in docs/ runs from its first cell to its last, and every figure in it has something to show."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).resolve().parent.parent / "docs" / "figures.ipynb"
FIGURES = ("saliency", "spectra", "jacobians", "curves", "compare", "replot", "prune")  # ids of the cells that draw
PLOTLY = "application/vnd.plotly.v1+json"


@pytest.fixture(scope="module")
def cells(tmp_path_factory) -> dict[str, dict]:
    """Cell id -> the executed cell, in a kernel of its own."""
    nbclient = pytest.importorskip(
        "nbclient", reason="nbclient is not installed: pip install -r requirements-heavy.txt"
    )
    pytest.importorskip("ipykernel", reason="ipykernel is not installed: pip install -r requirements-heavy.txt")
    import nbformat

    home = tmp_path_factory.mktemp("notebook")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PRUNEVIZ_STORE", str(home / "store"))
        patched.setenv("TMPDIR", str(home))
        patched.setenv("PLOTLY_RENDERER", "plotly_mimetype")
        patched.setenv("IPYTHONDIR", str(home / "ipython"))
        notebook = nbformat.read(NOTEBOOK, as_version=4)
        client = nbclient.NotebookClient(
            notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(NOTEBOOK.parent)}}
        )
        client.execute()
    assert (home / "pruneviz-report.html").stat().st_size > 5e6
    return {cell["id"]: cell for cell in notebook.cells}


@pytest.mark.parametrize("cell", FIGURES)
def test_a_cell_that_draws_gives_a_figure_with_data(cells, cell: str):
    drawn = [out["data"][PLOTLY] for out in cells[cell]["outputs"] if PLOTLY in out.get("data", {})]
    assert len(drawn) == 1
    assert drawn[0]["data"]
    assert all("x" in trace or "z" in trace for trace in drawn[0]["data"])


def test_choices_reach_the_figures(cells):
    titles = {cell: cells[cell]["outputs"][0]["data"][PLOTLY]["layout"]["title"]["text"] for cell in FIGURES}
    assert "90%" in titles["saliency"]
    assert "layer 3" in titles["spectra"].lower()
    assert "epochs" in titles["curves"]
    assert "95%" in titles["compare"]


def test_nothing_fails_or_warns(cells):
    outputs = [out for cell in cells.values() for out in cell.get("outputs", [])]
    assert not [out for out in outputs if out["output_type"] == "error"]
    assert not [out["text"] for out in outputs if out.get("name") == "stderr"]


def test_it_is_kept_without_outputs():
    kept = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert not any(cell["outputs"] for cell in kept["cells"] if cell["cell_type"] == "code")
    assert NOTEBOOK.stat().st_size < 100_000

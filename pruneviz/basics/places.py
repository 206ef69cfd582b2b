"""Where the dashboard's files are: beside the package in a checkout, inside it once it is installed (see pyproject.toml)."""

from importlib.resources import files
from pathlib import Path

_PACKAGE = Path(str(files("pruneviz"))).resolve()
_INSTALLED = _PACKAGE / "_dashboard"
CHECKOUT = None if _INSTALLED.is_dir() else _PACKAGE.parent
_DASHBOARD = CHECKOUT or _INSTALLED
APP = _DASHBOARD / "app.py"  # with pages/ and .streamlit/ beside it, where Streamlit looks for them
SAMPLES = _DASHBOARD / "samples"

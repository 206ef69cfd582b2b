"""Makes docs/networks.md: ``python docs/networks.py``. What it says is found, and checked, by tests/test_families.py."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

if __name__ == "__main__":
    from test_families import PAGE, page

    PAGE.write_text(page(), encoding="utf-8")

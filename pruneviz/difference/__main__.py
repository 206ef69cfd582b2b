"""A comparison in a process of its own: ``python -m pruneviz.difference FOLDER NAME NAME``, for the dashboard.

``FOLDER`` holds the files ``before`` and ``after``, which the names call; what is done goes to ``progress.json``, and what was
found to ``found.json``: the comparison, or the sentence that says why there is none. Each appears whole.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from pruneviz.basics.errors import PrunevizError
from pruneviz.basics.tensors import File
from pruneviz.difference import diff


def main(folder: Path, before: str, after: str) -> None:
    """Compare, and write."""
    if hasattr(os, "nice"):
        os.nice(10)  # the dashboard and its workers come first

    def put(name: str, content: Any) -> None:
        (folder / f"{name}.part").write_text(json.dumps(content), encoding="utf-8")
        os.replace(folder / f"{name}.part", folder / name)

    try:
        files = [
            File(called, File.open(folder / name).buffer) for name, called in (("before", before), ("after", after))
        ]
        found = diff(*files, progress=lambda share, what: put("progress.json", {"share": share, "what": what}))
        put("found.json", {"diff": found.to_dict()})
    except (PrunevizError, MemoryError) as error:
        put(
            "found.json",
            {"error": str(error) or "There is not enough memory to compare these files. Compare them elsewhere."},
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])

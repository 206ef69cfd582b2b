"""README for a package index, which knows no file of the repository: read while the wheel is built (pyproject.toml)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

IMAGE = re.compile(r"!\[[^\]]*\]\((?![a-z]+:)[^)]+\)\n+")
LINK = re.compile(r"\[([^\]]*)\]\((?![a-z]+:|#)([^)]+)\)")


class Readme(MetadataHookInterface):
    """Files that README shows or links to are found below ``address``; without one, images are left out and links are words."""

    def update(self, metadata: dict[str, Any]) -> None:
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        if address := self.config["address"].rstrip("/"):
            text = LINK.sub(rf"[\1]({address}/\2)", text)
        else:
            text = LINK.sub(r"\1", IMAGE.sub("", text))
        metadata["readme"] = {"content-type": "text/markdown", "text": text}

"""Markdown as a person reads it."""

from __future__ import annotations

import re


def read(text: str) -> str:
    """A text without Markdown's escapes and without the joiners that keep it from being made into something."""
    return re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", text).replace("\u2060", "")

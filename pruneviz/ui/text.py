"""Free text on a page: shown as it stands, whatever Streamlit's Markdown would make of it."""

from __future__ import annotations

import re

_ESCAPED = {ord(mark): f"\\{mark}" for mark in r"\`*_{}[]()#+-.!|<>~:$&="}
# Addresses, arrows, icons and smileys are made out of the text once its escapes are gone. A joiner, which has no width and
# breaks no line, keeps them apart: before an address and an arrow, so that both can be copied, and within the others.
_JOINER = "\u2060"
_MADE = re.compile(
    r"""(?=https?://|www\.)            # a link
      | (?=@)                          # a link to a mailbox
      | (?<=:)(?=[\w+-]+[:/])          # :material/delete:, :streamlit:, :smile:
      | (?<!\S)(?=(?:<->|->|<-|--|>=|<=|~=)(?!\S))  # typography""",
    re.VERBOSE | re.IGNORECASE,
)


def plain(text: object) -> str:
    """Any text as Markdown that shows just this text, each of its lines on a line of its own: no link, image, icon or formula.

    Whatever people, runs and files say goes through it on its way into a page: errors, tags, queries, names.
    """
    lines = (line.strip() for line in str(text).splitlines())
    return "\\\n".join(_MADE.sub(_JOINER, line).translate(_ESCAPED) for line in lines if line)

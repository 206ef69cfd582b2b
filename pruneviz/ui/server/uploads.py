"""Files from the browser: whether they are taken at all, which whoever runs the server decides, and where they are put in."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import streamlit as st
from streamlit import config

from pruneviz.basics.errors import InvalidSetting
from pruneviz.ui.server import hosts

if TYPE_CHECKING:
    from streamlit.runtime.uploaded_file_manager import UploadedFile

UPLOADS = "PRUNEVIZ_UPLOADS"  # yes or no; unset: as `uploads_allowed` says
REFUSED = (
    "Whoever runs this dashboard does not take files from the browser: it is shared, or listens beyond its own machine. "
    "Start it with --uploads yes to take them."
)


def uploads_allowed() -> bool:
    """Whether this server takes files from the browser.

    What ``PRUNEVIZ_UPLOADS`` says; unset, yes where the server is reached from its own machine alone and is not shared.
    Raises InvalidSetting where the variable is neither yes nor no.
    """
    asked = os.environ.get(UPLOADS, "").strip().lower()
    if asked not in ("", "yes", "no"):
        raise InvalidSetting(f"{UPLOADS} is yes or no; found {asked!r}. Set one of them, or leave it out.")
    if asked:
        return asked == "yes"
    return hosts.here(config.get_option("server.address")) and not os.environ.get("PRUNEVIZ_SHARED")


# Streamlit's place for files can be reached and has a name, and says that it is mere decoration: axe's presentation-role-conflict
_NAMED = """<script>
{
  const name = () => document.querySelectorAll('[data-testid="stFileUploaderDropzone"][role="presentation"]')
    .forEach((place) => place.setAttribute("role", "group"))
  name()
  window.pruneviz_places ??= new MutationObserver(name)
  window.pruneviz_places.observe(document.body, { childList: true, subtree: true, attributeFilter: ["role"] })
}
</script>"""


def place(label: str, kinds: Sequence[str], *, key: str, most: int, hint: str | None = None) -> UploadedFile | None:
    """A place to put one file with one of these endings, of at most ``most`` megabytes, and the file once it is there.

    The browser keeps to kinds and size if it is an honest one: look again.
    """
    st.html(_NAMED, unsafe_allow_javascript=True)
    return st.file_uploader(label, list(kinds), key=key, max_upload_size=most, help=hint)

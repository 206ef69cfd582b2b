"""Whether the browser may hand in files: only where whoever runs the server allows it."""

from __future__ import annotations

import os

from streamlit import config

from pruneviz.basics.errors import InvalidSetting
from pruneviz.ui.server import hosts

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

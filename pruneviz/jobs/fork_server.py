"""Imported by the fork server alone, see :mod:`pruneviz.jobs.supervisor`."""

from __future__ import annotations

import atexit
import os

atexit.register(os._exit, 0)  # it holds nothing, and with torch loaded an orderly end takes the interpreter seconds

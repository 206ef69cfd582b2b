"""The exception tree, under the name that outside code knows: see :mod:`pruneviz.basics.errors`."""

from pruneviz.basics.errors import *  # noqa: F403

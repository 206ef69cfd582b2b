"""Reading compacted networks, under the name that outside code knows: see :mod:`pruneviz.units.compact`."""

from pruneviz.units.compact import Compacted, compact, load

__all__ = ["Compacted", "compact", "load"]

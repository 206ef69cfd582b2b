"""Seeds that depend on what they are for, and on nothing that happened before."""

from __future__ import annotations

import hashlib


def number_for(seed: int, purpose: str) -> int:
    """63 bits that follow from a run's seed and a purpose: what its generators start from."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{purpose}".encode()).digest()[:8], "big") >> 1

"""Whom the server answers: a page elsewhere that lets its own name point here (DNS rebinding) gets a refusal.

Names that mean this machine pass, and those that ``--allow-host`` gives. Addresses and the machine's own name pass as well
where the server listens beyond this machine: nobody else can make them point here.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterable
from ipaddress import ip_address
from urllib.parse import urlsplit

from pruneviz.basics.errors import InvalidSetting

ALLOWED = "PRUNEVIZ_ALLOW_HOSTS"  # names separated by commas
_HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([a-z0-9](?:[a-z0-9._-]*[a-z0-9])?)\.?)(?::\d{1,5})?")


def checked(names: Iterable[str]) -> list[str]:
    """Names as ``--allow-host`` takes them. Raises InvalidSetting where one is not the name of a machine."""
    found = list(names)
    for given in found:
        if not re.fullmatch(r"[a-z0-9]([a-z0-9._-]*[a-z0-9])?", given, re.IGNORECASE):
            raise InvalidSetting(
                f"--allow-host takes a name such as pruning.example.org, without http:// and port; found {given!r}."
            )
    return [given.lower() for given in found]


def name(host: str) -> str:
    """The name or address in a Host header, in small letters and without its port; empty where it is not one."""
    found = _HOST.fullmatch(host.lower())
    return (found[1] or found[2]) if found else ""


def allowed(host: str, address: str | None) -> bool:
    """Whether a request for this Host is answered by a server that listens on ``address`` (None: on all)."""
    asked = name(host)
    if not asked:
        return False
    if asked == "localhost" or _loopback(asked) or asked in os.environ.get(ALLOWED, "").lower().split(","):
        return True
    if here(address):
        return False
    mine = socket.gethostname().lower()
    return _is_address(asked) or asked in (mine, f"{mine}.local", (address or "").lower())


def same_origin(origin: str | None, host: str) -> bool:
    """Whether a request comes from one of our own pages, or from a program, which has no origin."""
    return origin is None or urlsplit(origin).netloc.lower() == host.lower()


def refusal(host: str, address: str | None) -> str:
    """Why a request is refused, and what to do."""
    asked = name(host)
    called = f"by the name {asked}" if asked else "without a valid name"
    ways = "as localhost" if here(address) else "as localhost or by its address"
    given = asked or "NAME"
    return (
        f"PruneViz was asked for {called}, which it does not know. Open it {ways}, or start it with "
        f"python -m pruneviz serve --allow-host {given}\n"
    )


def here(address: str | None) -> bool:
    """Whether a server on this address is reached from this machine alone, or through a socket's file."""
    return bool(address) and (address == "localhost" or address.startswith("unix://") or _loopback(address.strip("[]")))


def _loopback(text: str) -> bool:
    return _is_address(text) and ip_address(text).is_loopback


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True

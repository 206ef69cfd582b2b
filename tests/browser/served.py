"""The real app, served on a free port."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")  # None: what playwright install brought
ROOT = Path(__file__).resolve().parents[2]
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


@dataclass
class Server:
    """A running dashboard: where it is, what it writes to, and its process."""

    url: str
    store: Path
    process: subprocess.Popen

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


STREAMLIT = (sys.executable, "-m", "streamlit", "run", "app.py", "--server.address", "127.0.0.1")


def serve(
    store: Path,
    command: Sequence[str] = STREAMLIT,
    *,
    folder: Path = ROOT,
    environment: Mapping[str, str] = os.environ,
    allow: Sequence[str] = (),
) -> Server:
    """Start a command that serves the dashboard, in a folder, on a free port of 127.0.0.1, and wait until it answers; where
    hosts are allowed, ``pruneviz serve``."""
    if allow:
        command = [sys.executable, "-m", "pruneviz", "serve", "--host", "127.0.0.1"]
        command += [part for name in allow for part in ("--allow-host", name)]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ours = {"PRUNEVIZ_STORE": str(store), "STREAMLIT_SERVER_PORT": str(port), "STREAMLIT_SERVER_HEADLESS": "true"}
    with (store.parent / f"{store.name}.log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=folder, env={**environment, **ours}, stdout=log, stderr=subprocess.STDOUT
        )
    server = Server(f"http://127.0.0.1:{port}", store, process)
    for _ in range(300):
        try:
            with urllib.request.urlopen(f"{server.url}/_stcore/health", timeout=1):
                return server
        except (urllib.error.URLError, OSError):
            assert process.poll() is None, "the server ended"
            time.sleep(0.1)
    server.stop()
    raise AssertionError("the server did not answer within 30 s")

"""Thirty people watch the same runs: ``python bench/classroom.py``. Writes ``bench/results/classroom.json``.

Each client speaks Streamlit's own protocol over a WebSocket: it opens ``/run?watch=…`` and then, as a browser would, asks for
the live panel once a second and its curves every third. Measured: from asking to the answer's end, the server's CPU, and
errors. Once while the worker waits, and once while it prunes on the same cores.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "browser")]

import psutil  # noqa: E402
from served import Server, serve  # noqa: E402
from wire import asked, exceptions, stream  # noqa: E402

from pruneviz.plan.comparison import nine  # noqa: E402
from pruneviz.store import Store  # noqa: E402

CLIENTS, SECONDS = 30, 30


async def watch(
    server: Server, query: str, start: float, times: list[float], sizes: list[int], errors: list[str]
) -> None:
    """One person: open the page, then ask for its live panel once a second."""
    try:
        async with stream(server.url) as socket:
            opened = await asked(socket, page_name="run", query_string=query)
            polled = [m.auto_rerun for m in opened[2] if m.WhichOneof("type") == "auto_rerun"]
            for second in range(SECONDS):
                await asyncio.sleep(max(0.0, start + second - time.perf_counter()))
                for panel in polled:
                    if second % round(panel.interval):
                        continue
                    took, received, found = await asked(
                        socket, page_name="run", query_string=query, fragment_id=panel.fragment_id
                    )
                    times.append(took)
                    sizes.append(received)
                    errors += exceptions(found)
    except Exception as error:
        errors.append(f"{type(error).__name__}: {error}")


async def together(server: Server, query: str) -> dict[str, Any]:
    times: list[float] = []
    sizes: list[int] = []
    errors: list[str] = []
    process = psutil.Process(server.process.pid)
    start = time.perf_counter() + 12  # everyone has opened the page by then
    clients = [
        asyncio.create_task(watch(server, query, start + i / CLIENTS, times, sizes, errors)) for i in range(CLIENTS)
    ]
    await asyncio.sleep(max(0.0, start - time.perf_counter()))
    process.cpu_percent()
    await asyncio.sleep(SECONDS - 1)
    busy = process.cpu_percent()
    await asyncio.gather(*clients)
    times.sort()
    return {
        "asked": len(times), "errors": len(errors), "first_errors": errors[:3], "median_ms": round(1000 * median(times), 1),
        "p95_ms": round(1000 * times[int(0.95 * len(times))], 1), "server_cpu_percent_of_one_core": busy,
        "bytes_an_answer": median(sizes), "load_average": os.getloadavg()[0],
    }  # fmt: skip


def measure(device: str | None) -> dict[str, Any]:
    """``device`` None: the worker prunes while all watch; one that is not here: the runs wait for ever."""
    with tempfile.TemporaryDirectory() as folder:
        server = serve(Path(folder) / "store")
        try:
            store = Store(Path(folder) / "store")
            ids = store.queue(nine().configs, device=device)
            result = asyncio.run(together(server, f"watch={','.join(ids)}"))
            store.close()
        finally:
            server.stop()
    return result


def main() -> None:
    result = {
        "clients": CLIENTS,
        "worker_waits": measure("cuda:9"),
        "worker_prunes": measure(None),
        "cores": os.cpu_count(),
        "versions": {name: version(name) for name in ("streamlit", "plotly", "websockets")}
        | {"python": platform.python_version()},
    }
    (ROOT / "bench" / "results" / "classroom.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()

"""The server around the pages: who may come in, security headers, the worker's life, and the garbage collector."""

from __future__ import annotations

import ast
import gc
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from streamlit import config
from streamlit.runtime.pages_manager import PagesManager

from pruneviz.basics.errors import PrunevizError
from pruneviz.jobs import backend
from pruneviz.store import Store
from pruneviz.ui.server import hosts, uploads

ICON = str(Path(__file__).with_name("icon.svg"))
STYLE = """<style>
.stMainBlockContainer { padding: 3.5rem clamp(1rem, 3vw, 3rem) 4rem; }
/* text on a selected pill: no primary colour reads both on its own tint and under white */
[data-testid="stButtonGroup"] [data-selected="true"] p, [data-testid="stSliderThumbValue"] p {
  color: light-dark(#0b121d, #e9edf4);
}
/* the button of an open menu: the theme darkens its primary colour, on dark as well */
[data-testid="stPopoverButton"][aria-expanded="true"], [data-testid="stPopoverButton"][aria-expanded="true"] :is(p, span) {
  color: light-dark(#0b121d, #e9edf4);
}
.plotly-notifier { display: none; } /* white on grey over the page, to say what the browser says of a download */
.katex-display { padding: 8px 6px; } /* or a subscript makes it scroll by two pixels */
</style>"""
log = logging.getLogger("pruneviz")
_POLICY = {
    "default-src": "'self'",
    "script-src": "'self' 'unsafe-inline' blob:",  # a component's module comes as a blob
    "style-src": "'self' 'unsafe-inline'",
    "img-src": "'self' data: blob:",
    "font-src": "'self' data:",
    "connect-src": "'self'{sockets}",  # older browsers do not count sockets among 'self'
    "worker-src": "'self' blob:",
    "object-src": "'none'",
    "base-uri": "'self'",
    "form-action": "'self'",
    "frame-ancestors": "'self'",
}
_HEADERS = {
    "content-security-policy": "; ".join(f"{name} {value}" for name, value in _POLICY.items()),
    "x-content-type-options": "nosniff",
    "x-frame-options": "SAMEORIGIN",
    "referrer-policy": "same-origin",
}


def headers(host: str) -> dict[str, str]:
    """The security headers of an answer to a request for this host."""
    sockets = "" if host.startswith("[") else f" ws://{host} wss://{host}"  # a policy has no word for IPv6
    return {name: value.format(sockets=sockets) for name, value in _HEADERS.items()}


class Door:
    """Refuses requests for other hosts and sockets from other pages, adds security headers to every answer, and keeps the
    server's metrics to itself. Streamlit's own ``server.allowedHosts`` is for sockets alone."""

    def __init__(self, app: Callable[..., Awaitable[None]]):
        self.app = app

    async def __call__(self, scope: dict[str, Any], receive: Callable, send: Callable) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        asked, address = Headers(scope=scope), config.get_option("server.address")
        host = asked.get("host", "")
        known = hosts.allowed(host, address) and len(asked.getlist("host")) == 1

        async def with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"].endswith("http.response.start"):
                own = headers(host if known else "localhost").items()
                message["headers"] = [
                    *message.get("headers", []),
                    *((name.encode(), value.encode()) for name, value in own),
                ]
            await send(message)

        if not known:
            answer = PlainTextResponse(hosts.refusal(host, address), 403)
        elif scope["type"] == "websocket" and not hosts.same_origin(asked.get("origin"), host):
            answer = PlainTextResponse("Another page may not drive this dashboard: open it at its own address.\n", 403)
        elif scope["type"] == "http" and scope["path"].rstrip("/").endswith("_stcore/metrics"):
            answer = PlainTextResponse("", 404)
        elif scope["type"] == "http" and "/_stcore/upload_file" in scope["path"] and not uploads.uploads_allowed():
            answer = PlainTextResponse(f"{uploads.REFUSED}\n", 403)
        else:
            answer = self.app
        await answer(scope, receive, with_headers)


middleware = [Middleware(Door)]
# st.navigation says the same, but only once app.py has run: a pasted link may be the server's first visit
PagesManager.uses_pages_directory = False


def load_imports(pages: Path) -> None:
    """Carry out what the pages in this folder import, and nothing else of them.

    Thirty script threads that import the same modules at once meet half-made ones, and draw an ImportError.
    """
    for path in sorted(pages.glob("*.py")):
        lines: list[ast.stmt] = [
            node for node in ast.parse(path.read_bytes()).body if isinstance(node, ast.Import | ast.ImportFrom)
        ]
        exec(compile(ast.Module(lines, []), path, "exec"), {"__name__": path.stem})


@asynccontextmanager
async def lifespan(app: Any) -> AsyncIterator[None]:
    """Load what pages import, start a worker for each device, and freeze the collector.

    Streamlit collects garbage after every script run, holding the interpreter: with the imports frozen that takes
    0.3 ms instead of tens. With a file watcher on (development) modules come and go, so nothing is frozen.
    """
    load_imports(app.script_path.parent / "pages")
    async with AsyncExitStack() as stack:
        try:
            await stack.enter_async_context(backend(Store()).lifespan())
        except PrunevizError as error:
            log.error("no worker: %s", error)
        if config.get_option("server.fileWatcherType") == "none":
            gc.collect()
            gc.freeze()
        yield

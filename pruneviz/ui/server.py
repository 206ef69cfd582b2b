"""The server around the pages: the worker's life, the garbage collector, and security headers."""

from __future__ import annotations

import gc
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from starlette.middleware import Middleware
from streamlit import config
from streamlit.runtime.pages_manager import PagesManager

from pruneviz.errors import PrunevizError
from pruneviz.jobs.local import lifespan_supervisor
from pruneviz.store import default_path

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
    "connect-src": "'self' ws: wss:",
    "worker-src": "'self' blob:",
    "object-src": "'none'",
    "base-uri": "'self'",
    "form-action": "'self'",
    "frame-ancestors": "'self'",
}
HEADERS = {
    "content-security-policy": "; ".join(f"{name} {value}" for name, value in _POLICY.items()),
    "x-content-type-options": "nosniff",
    "x-frame-options": "SAMEORIGIN",
    "referrer-policy": "same-origin",
}


class SecurityHeaders:
    """Adds :data:`HEADERS` to every answer, and keeps the server's metrics to itself."""

    def __init__(self, app: Callable[..., Awaitable[None]]):
        self.app = app

    async def __call__(self, scope: dict[str, Any], receive: Callable, send: Callable) -> None:
        if scope["type"] == "http" and scope["path"].rstrip("/").endswith("_stcore/metrics"):
            await send({"type": "http.response.start", "status": 404, "headers": []})
            await send({"type": "http.response.body", "body": b""})
            return

        async def with_headers(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                own = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message["headers"] = [*message.get("headers", []), *own]
            await send(message)

        await self.app(scope, receive, with_headers)


middleware = [Middleware(SecurityHeaders)]
# st.navigation says the same, but only once app.py has run: a pasted link may be the server's first visit
PagesManager.uses_pages_directory = False


@asynccontextmanager
async def lifespan(app: Any) -> AsyncIterator[None]:
    """Start a worker for each device, and freeze the collector once everything that pages import is loaded.

    Streamlit collects garbage after every script run, holding the interpreter: with the imports frozen that takes
    0.3 ms instead of tens. With a file watcher on (development) modules come and go, so nothing is frozen.
    """
    async with AsyncExitStack() as stack:
        try:
            await stack.enter_async_context(lifespan_supervisor(default_path()))
        except PrunevizError as error:
            log.error("no worker: %s", error)
        if config.get_option("server.fileWatcherType") == "none":
            gc.collect()
            gc.freeze()
        yield

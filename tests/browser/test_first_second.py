"""A class opens the dashboard in the same second: the first thing that a fresh server does is thirty pages at once."""

from __future__ import annotations

import asyncio
from itertools import cycle, islice

import pytest
from served import ROOT, Server, serve
from wire import asked, exceptions, stream

from pruneviz.store import SAMPLES
from pruneviz.store.samples import Samples

PAGES = sorted(path.stem for path in ROOT.glob("pages/*.py"))
VISITORS = 30
ONE = next(run.id for run in Samples(SAMPLES).values() if run.config.method == "random")  # little to draw


async def visit(server: Server, page: str) -> list[str]:
    async with stream(server.url) as socket:
        _, _, found = await asked(socket, page_name="" if page == "home" else page, query_string=f"runs={ONE}")
    return [f"{page}: {text}" for text in exceptions(found)]


async def together(server: Server) -> list[str]:
    """What went wrong for thirty visitors who come at once, on all pages in turn."""
    results = await asyncio.gather(*(visit(server, page) for page in islice(cycle(PAGES), VISITORS)))
    return [text for result in results for text in result]


@pytest.mark.parametrize("start", range(4))
def test_thirty_visitors_of_a_server_that_just_started_meet_no_exception(tmp_path, start: int):
    server = serve(tmp_path / "store")
    try:
        assert asyncio.run(together(server)) == []
    finally:
        server.stop()

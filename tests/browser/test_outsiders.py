"""The door of a served dashboard: other hosts and other pages stay outside, over HTTP and over sockets."""

from __future__ import annotations

import asyncio
import http.client

import pytest
from served import serve
from websockets.exceptions import InvalidStatus
from wire import asked, exceptions, stream

PATHS = (
    "/",
    "/compare",
    "/_stcore/health",
    "/_stcore/host-config",
    "/static/none.js",
    "/media/none",
    "/_stcore/metrics",
)


def get(server, path: str, host: str | None) -> tuple[int, str, dict[str, str]]:
    """Status, text and headers of an answer to a request for this host."""
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=10)
    connection.putrequest("GET", path, skip_host=True)
    if host is not None:
        connection.putheader("Host", host)
    connection.endheaders()
    answer = connection.getresponse()
    found = answer.status, answer.read().decode(), {name.lower(): value for name, value in answer.getheaders()}
    connection.close()
    return found


async def opened(server, **options) -> list[str] | tuple[int, str]:
    """The exceptions of the first page that a socket draws; or status and text where it is refused."""
    try:
        async with stream(server.url, **options) as socket:
            return exceptions((await asked(socket, page_name="papers"))[2])
    except InvalidStatus as refused:
        return refused.response.status_code, refused.response.body.decode()


@pytest.mark.parametrize("path", PATHS)
def test_a_request_for_another_host_gets_a_refusal_with_the_mend(server, path):
    status, text, headers = get(server, path, "evil.example:8501")
    assert status == 403
    assert "--allow-host evil.example" in text
    assert headers["content-type"].startswith("text/plain")
    assert headers["x-content-type-options"] == "nosniff"


def test_a_request_without_a_valid_host_is_refused(server):
    for host in ("", "evil.example@localhost", "a b"):
        assert get(server, "/", host)[0] in (400, 403), host


def test_this_machine_s_own_names_are_answered(server):
    port = server.url.rpartition(":")[2]
    for host in (f"127.0.0.1:{port}", f"localhost:{port}", f"[::1]:{port}"):
        assert get(server, "/", host)[0] == 200, host


def test_a_page_may_open_sockets_to_its_own_origin_alone(server):
    _, _, headers = get(server, "/", "localhost:8501")
    policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
    assert policy["connect-src"] == "'self' ws://localhost:8501 wss://localhost:8501"


def test_a_socket_for_another_host_is_refused_whatever_its_origin(server):
    host, _, port = server.url.removeprefix("http://").rpartition(":")
    for origin in (None, "http://evil.example", server.url):
        status, text = asyncio.run(opened(server, at="ws://evil.example", host=host, port=int(port), origin=origin))
        assert (status, "--allow-host evil.example" in text) == (403, True), origin


def test_a_socket_from_another_page_is_refused_also_from_this_machine(server):
    for origin in ("http://evil.example", "http://localhost:3000", "null"):
        status, text = asyncio.run(opened(server, origin=origin))
        assert (status, "open it at its own address" in text) == (403, True), origin


def test_a_socket_from_our_own_page_is_opened(server):
    assert asyncio.run(opened(server, origin=server.url)) == []


def test_names_that_serve_is_told_of_are_answered_over_both(tmp_path):
    names = ("pruning.example.org", "b.example")
    told = serve(tmp_path / "store", allow=names)
    try:
        host, _, port = told.url.removeprefix("http://").rpartition(":")
        for name in names:
            assert get(told, "/", name)[0] == 200
            at = {"at": f"ws://{name}", "origin": f"http://{name}", "host": host, "port": int(port)}
            assert asyncio.run(opened(told, **at)) == []
        assert get(told, "/", "evil.example")[0] == 403
    finally:
        told.stop()

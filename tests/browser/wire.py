"""Streamlit's own protocol over a WebSocket: a visitor without a browser."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.asyncio.client import ClientConnection, connect


def stream(url: str, *, at: str | None = None, **options: Any) -> connect:
    """A connection to the dashboard at this address, as its page opens it; ``at``: the address that it goes by instead."""
    address = f"{at or url.replace('http', 'ws', 1)}/_stcore/stream"
    return connect(address, subprotocols=["streamlit"], max_size=2**24, **options)  # type: ignore[list-item]


async def asked(socket: ClientConnection, **state: Any) -> tuple[float, int, list[ForwardMsg]]:
    """Seconds until the script that was asked for has ended, the bytes that came, and the messages."""
    message = BackMsg()
    for name, value in state.items():
        setattr(message.rerun_script, name, value)
    began, received, found = time.perf_counter(), 0, []
    await socket.send(message.SerializeToString())
    while True:
        data = await asyncio.wait_for(socket.recv(), 60)
        assert isinstance(data, bytes)
        answer = ForwardMsg.FromString(data)
        received += len(data)
        found.append(answer)
        if answer.WhichOneof("type") == "script_finished":
            return time.perf_counter() - began, received, found


def exceptions(found: list[ForwardMsg]) -> list[str]:
    """The exceptions that a page drew instead of itself."""
    drawn = [message.delta.new_element for message in found if message.HasField("delta")]
    return [
        f"{element.exception.type}: {element.exception.message}" for element in drawn if element.HasField("exception")
    ]

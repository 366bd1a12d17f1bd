"""How an ASGI answer is framed: the client must be able to tell where it ends."""

from typing import Any

import pytest

from gateway.http.asgi import AsgiExchange
from gateway.http.messages import Request


async def streaming(scope: dict[str, Any], receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"one", "more_body": True})
    await send({"type": "http.response.body", "body": b"two"})


@pytest.mark.parametrize(
    ("is_old", "want"),
    [
        (False, b"transfer-encoding: chunked\r\n\r\n3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"),
        (True, b"connection: close\r\n\r\nonetwo"),
    ],
)
async def test_a_stream_of_unknown_length_is_chunked_or_ends_with_the_connection(is_old: bool, want: bytes) -> None:
    sent = bytearray()

    async def write(data: bytes) -> None:
        sent.extend(data)

    request = Request(b"GET", b"/", [], {}, b"", 0, is_old, is_old)
    await AsgiExchange(request, write, close=lambda: request.close).run(streaming, client=None, server=None)
    assert bytes(sent) == b"HTTP/1.1 200 OK\r\n" + want

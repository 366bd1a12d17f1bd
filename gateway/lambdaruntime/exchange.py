"""One HTTP request on a connection of its own, and its answer: to Lambda's Runtime API, and to this process's own listener.

No client for the world: both ends are on this machine. A kept connection would have to survive that Lambda freezes the process.
"""

import asyncio
from typing import cast

import httptools
import msgspec


class Address(msgspec.Struct, frozen=True):
    """Where somebody listens."""

    host: str
    port: int


class Answer(msgspec.Struct, frozen=True):
    """A whole answer. Names of headers are in lower case; what a name repeats is joined by commas (RFC 9110, 5.3)."""

    status: int
    headers: dict[str, str]
    body: bytes


class AnswerTooLong(Exception):
    """The body passed the limit, and was not read to its end."""


def encode(method: str, target: str, headers: dict[str, str], body: bytes) -> bytes:
    """A request that closes its connection. The caller has seen to it that no value holds a line's end."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head = f"{method} {target} HTTP/1.1\r\n{lines}content-length: {len(body)}\r\nconnection: close\r\n\r\n"
    return head.encode() + body


async def exchange(address: Address, request: bytes, *, body_bytes_max: int, is_head: bool = False) -> Answer:
    """The answer to what `encode` made; `is_head` when it is HEAD. Raises `OSError` and `AnswerTooLong`.

    Waits as long as it takes: the caller knows how long that may be.
    """
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_connection(
        lambda: _Exchange(request, body_bytes_max, is_head), address.host, address.port
    )
    try:
        return await protocol.answer
    finally:
        transport.abort()


class _Exchange(asyncio.Protocol):
    """A protocol and no stream: an answer that comes before the request is out (413, say) counts though the writing failed."""

    def __init__(self, request: bytes, body_bytes_max: int, is_head: bool) -> None:
        self.answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._request = request
        self._room_bytes = body_bytes_max
        self._is_head = is_head
        self._parser = httptools.HttpResponseParser(self)
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast("asyncio.Transport", transport).write(self._request)  # uvloop's is one without saying so

    def data_received(self, data: bytes) -> None:
        if self.answer.done():
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(ConnectionError(f"this is no HTTP: {error}"))

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(ConnectionError(f"closed before the answer was whole{f': {exc}' if exc else ''}"))

    # What the parser calls.

    def on_header(self, name: bytes, value: bytes) -> None:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        self._headers[key] = f"{self._headers[key]}, {text}" if key in self._headers else text

    def on_headers_complete(self) -> None:
        if self._is_head:
            self._finish()

    def on_body(self, piece: bytes) -> None:
        self._room_bytes -= len(piece)
        if self._room_bytes < 0:
            self._fail(AnswerTooLong())
        else:
            self._body.append(piece)

    def on_message_complete(self) -> None:
        self._finish()

    def _finish(self) -> None:
        if not self.answer.done():
            self.answer.set_result(Answer(self._parser.get_status_code(), self._headers, b"".join(self._body)))

    def _fail(self, error: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)

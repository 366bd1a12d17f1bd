"""One request answered by an ASGI application over our own connection: everything that is not a prediction.

The whole body has arrived before the application is called. A response is sent with its Content-Length when the application says
it or sends the body in one piece, else in chunks, or up to the connection's end for HTTP/1.0.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import unquote

from gateway.http.messages import STATUS_LINES, Request

Scope = dict[str, Any]  # Any: ASGI's own shape
Message = dict[str, Any]
Application = Callable[[Scope, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]


class AsgiExchange:
    """`write` sends bytes and waits while the client reads too slowly; `close` says whether the connection ends with it."""

    def __init__(
        self, request: Request, write: Callable[[bytes], Awaitable[None]], *, close: Callable[[], bool]
    ) -> None:
        self.is_started = False
        self.is_complete = False
        self.is_cut = False  # the client left in the middle of it
        self._request = request
        self._write = write
        self._close = close
        self._is_read = False
        self._is_chunked = False
        self._has_body = request.method != b"HEAD"
        self._start: Message = {}
        self._over = asyncio.Event()

    async def run(self, app: Application, *, client: tuple[str, int] | None, server: tuple[str, int] | None) -> None:
        """Returns when the application has answered; what it raises is the caller's."""
        await app(_scope(self._request, client, server), self._receive, self._send)

    async def _receive(self) -> Message:
        if self._is_read:
            await self._over.wait()  # a client that leaves cancels the whole task
            return {"type": "http.disconnect"}
        self._is_read = True
        return {"type": "http.request", "body": self._request.body, "more_body": False}

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._start = message
            return
        assert message["type"] == "http.response.body"
        body: bytes = message.get("body", b"")
        more: bool = message.get("more_body", False)
        head = b"" if self.is_started else self._head(body, more=more)
        self.is_started = True
        self.is_complete = not more
        if not self._has_body:
            body = b""
        elif self._is_chunked:
            body = (b"%x\r\n%b\r\n" % (len(body), body) if body else b"") + (b"" if more else b"0\r\n\r\n")
        if head or body:
            await self._sent(head + body)
        if not more:
            self._over.set()

    async def _sent(self, data: bytes) -> None:
        try:
            await self._write(data)
        except ConnectionResetError:
            self.is_cut = True
            raise

    def _head(self, body: bytes, *, more: bool) -> bytes:
        status: int = self._start["status"]
        pairs = [(name.lower(), value) for name, value in self._start.get("headers", ())]
        names = {name for name, _ in pairs}
        may_have_body = status >= 200 and status not in {204, 304}
        self._has_body &= may_have_body
        if may_have_body and b"content-length" not in names:
            if not more:
                pairs.append((b"content-length", b"%d" % len(body)))
            elif not self._request.is_old:  # else the connection's end is the body's
                self._is_chunked = True
                pairs.append((b"transfer-encoding", b"chunked"))
        if self._close():
            pairs.append((b"connection", b"close"))
        lines = b"".join([b"%b: %b\r\n" % pair for pair in pairs])
        if lines.count(b"\n") != len(pairs) or lines.count(b"\r") != len(pairs):
            raise ValueError("a response header contains a line break")
        return STATUS_LINES[status] + lines + b"\r\n"


def _scope(request: Request, client: tuple[str, int] | None, server: tuple[str, int] | None) -> Scope:
    raw_path, _, query = request.target.partition(b"?")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": request.method.decode(),
        "scheme": "http",
        "path": unquote(raw_path.decode("latin-1")),
        "raw_path": raw_path,
        "query_string": query,
        "root_path": "",
        "headers": request.pairs,
        "client": client,
        "server": server,
        "state": {},
    }

"""A TCP proxy before a real S3 server that misbehaves on request: loses answers, cuts them short, answers by itself.

    async with running(server.url) as proxy:
        proxy.faults.append(Fault("PUT /bucket/key", keep_bytes=0))

Not a mock: whatever no fault names goes to the server and back unchanged. Speaks just enough HTTP/1.1 for S3 clients.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from urllib.parse import urlsplit

import msgspec


class Fault(msgspec.Struct):
    """What happens to the next `times` requests whose request line contains `request`."""

    request: str
    times: int = 1
    answer: bytes | None = None  # given instead of the server's
    is_asked: bool = False  # the server does its work all the same
    keep_bytes: int | None = None  # of the server's answer, then the connection closes; 0 loses it, None keeps all
    meanwhile: Callable[[], Awaitable[object]] | None = None  # between the server's answer and the client's hearing it


class FaultProxy:
    def __init__(self, upstream_port: int) -> None:
        self.url = ""
        self.faults: list[Fault] = []
        self.seen: list[str] = []  # request lines, resends included
        self._upstream_port = upstream_port
        self._connections: set[asyncio.Task[None]] = set()

    def sends(self, request: str) -> int:
        return sum(request in line for line in self.seen)

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections.add(asyncio.create_task(self._converse(reader, writer)))

    async def aclose(self) -> None:
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            is_kept = True
            while is_kept:
                head = await reader.readuntil(b"\r\n\r\n")
                line = head.split(b"\r\n", 1)[0].decode()
                self.seen.append(line)
                if b"100-continue" in head.lower():
                    writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                body = await reader.readexactly(_content_length(head))
                is_kept = await self._answer(line, head, body, writer)

    async def _answer(self, line: str, head: bytes, body: bytes, writer: asyncio.StreamWriter) -> bool:
        fault = self._fault_for(line) or Fault(line)
        answer = fault.answer or b""
        if fault.is_asked or fault.answer is None:
            real = await self._ask_upstream(head, body)
            answer = fault.answer or real
        if fault.meanwhile:
            await fault.meanwhile()
        writer.write(answer[: fault.keep_bytes])
        await writer.drain()
        return fault.keep_bytes is None

    def _fault_for(self, line: str) -> Fault | None:
        for fault in self.faults:
            if fault.times > 0 and fault.request in line:
                fault.times -= 1
                return fault
        return None

    async def _ask_upstream(self, head: bytes, body: bytes) -> bytes:
        """One connection per request, so that the end of the answer is the end of the stream."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._upstream_port)
        with contextlib.closing(writer):
            writer.write(_without(head, b"expect", b"connection")[:-2] + b"Connection: close\r\n\r\n" + body)
            return _without(await reader.read(-1), b"connection")


@contextlib.asynccontextmanager
async def running(upstream_url: str) -> AsyncIterator[FaultProxy]:
    port = urlsplit(upstream_url).port
    assert port is not None
    proxy = FaultProxy(port)
    server = await asyncio.start_server(proxy.accept, "127.0.0.1", 0, limit=1 << 20)
    proxy.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        server.close()
        await proxy.aclose()


def refusal(status: int, code: str) -> bytes:
    """An S3 error as it goes over the wire."""
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>asked for by a test</Message></Error>".encode()
    return b"HTTP/1.1 %d Refused\r\nContent-Type: application/xml\r\nContent-Length: %d\r\n\r\n%s" % (
        status,
        len(body),
        body,
    )


def _content_length(head: bytes) -> int:
    for header in head.lower().split(b"\r\n"):
        if header.startswith(b"content-length:"):
            return int(header.split(b":")[1])
    return 0


def _without(message: bytes, *names: bytes) -> bytes:
    head, separator, body = message.partition(b"\r\n\r\n")
    kept = [header for header in head.split(b"\r\n") if header.split(b":")[0].lower() not in names]
    return b"\r\n".join(kept) + separator + body

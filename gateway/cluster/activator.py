"""Holds requests while a local cluster has no gateway, wakes one, and passes them on: what Knative's activator is, in small.

Only ever asked by our own Envoy, which has judged the head and read the whole body: it speaks as much HTTP as that takes, one
request per connection. While there are no gateways it is the one endpoint that Envoy knows, and is ready in their place.
"""

import asyncio
import contextlib
import re
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable

from gateway.cluster.envoyfile import Address

HOLD_S = 25.0
"""A caller waits that long for a gateway: less than the 31 s of Envoy's route, so that our own sentence comes first."""

HELD_MAX = 256
"""Requests at once. Their bodies may be 16 MiB each, which Envoy holds too."""

HEAD_BYTES_MAX = 64 * 1024
READ_S = 10.0
PIECE_BYTES = 64 * 1024

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_TIMEOUT = re.compile(rb"(\r\nsteelyard-timeout-ms: *)(\d{1,9})(?=\r\n)", re.IGNORECASE)
_CONNECTION = re.compile(rb"\r\n(connection|keep-alive):[^\r]*", re.IGNORECASE)


class Activator:
    """`waiting` requests are held at this moment, `held` were in all, and `passed` says how long those waited that were passed on.

    `gateway` waits for a gateway and returns where it is; whoever makes an activator sets it before requests come.
    """

    def __init__(self, held_max: int = HELD_MAX) -> None:
        self.address = Address("127.0.0.1", 0)
        self.waiting = 0
        self.held = 0
        self.passed: deque[float] = deque(maxlen=HELD_MAX)
        self._held_max = held_max
        self.gateway: Callable[[], Awaitable[Address]] | None = None

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError):
            async with asyncio.timeout(READ_S):
                head = await reader.readuntil(b"\r\n\r\n")
                length = _LENGTH.search(head)
                body = await reader.readexactly(int(length[1])) if length else b""
            if head.startswith(b"GET /v2/health/ready "):
                await _say(writer, b"200 OK", b'{"ready":true,"live":true}')
            elif self.waiting >= self._held_max:
                await _say(writer, b"503 Full", b'{"error":"too many requests wait for a gateway to start; try again"}')
            else:
                await self._hold(head, body, writer)
        writer.close()

    async def _hold(self, head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        began_s = time.monotonic()
        wish = _TIMEOUT.search(head)
        patience_s = min(HOLD_S, int(wish[2]) / 1000) if wish else HOLD_S
        assert self.gateway is not None
        self.waiting += 1
        self.held += 1
        try:
            async with asyncio.timeout(patience_s):
                address = await self.gateway()
        except TimeoutError:
            await _say(writer, b"503 Late", b'{"error":"no gateway was ready within the time; try again"}')
            return
        finally:
            self.waiting -= 1
        held_s = time.monotonic() - began_s
        self.passed.append(held_s)
        await _pass_on(address, _shortened(head, held_s), body, writer)


@contextlib.asynccontextmanager
async def running(activator: Activator) -> AsyncIterator[Activator]:
    """It listens, on a free port of loopback."""
    server = await asyncio.start_server(activator._accept, "127.0.0.1", 0, limit=HEAD_BYTES_MAX)  # noqa: SLF001 - its own module
    activator.address = Address("127.0.0.1", server.sockets[0].getsockname()[1])
    try:
        yield activator
    finally:
        server.close()


def _shortened(head: bytes, held_s: float) -> bytes:
    """The caller's own deadline runs while we hold the request; and the connection ends with the answer."""
    head = _TIMEOUT.sub(lambda found: found[1] + b"%d" % max(1, int(found[2]) - round(held_s * 1000)), head)
    return _CONNECTION.sub(b"", head)[:-2] + b"connection: close\r\n\r\n"


async def _pass_on(address: Address, head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
    upstream, out = await asyncio.open_connection(address.host, address.port)
    with contextlib.closing(out):
        out.write(head + body)
        while piece := await upstream.read(PIECE_BYTES):
            writer.write(piece)
            await writer.drain()


async def _say(writer: asyncio.StreamWriter, status: bytes, body: bytes) -> None:
    again = b"" if status.startswith(b"200") else b"retry-after: 1\r\n"
    writer.write(
        b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n%bconnection: close\r\n\r\n%b"
        % (status, len(body), again, body)
    )
    await writer.drain()

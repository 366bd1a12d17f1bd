"""One HTTP request as it came and one response as it goes, without a framework's machinery: what `Connection` passes around."""

from collections.abc import Sequence
from http import HTTPStatus

import msgspec

STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}


class Request(msgspec.Struct, frozen=True, gc=False):
    """A whole request. Header names are in lower case; `pairs` keeps their order and repetitions, `headers` the last of each.

    `arrived_ns` is when its first byte was parsed, on `perf_counter_ns`'s clock. `close` says that no other may follow it, `is_old`
    that it is HTTP/1.0, which knows no chunks.
    """

    method: bytes
    target: bytes
    pairs: list[tuple[bytes, bytes]]
    headers: dict[bytes, bytes]
    body: bytes
    arrived_ns: int
    close: bool
    is_old: bool = False


class Response(msgspec.Struct, frozen=True, gc=False):
    """A whole response. `head` is header lines that are bytes already, each ending with CRLF."""

    status: int
    content_type: bytes
    body: bytes
    head: bytes = b""
    headers: Sequence[tuple[bytes, bytes]] = ()

    def encode(self, *, close: bool, head_only: bool) -> list[bytes]:
        """Head and body as they go on the wire; small ones in one piece. `head_only` answers HEAD."""
        lines = b"".join([b"%b: %b\r\n" % pair for pair in self.headers]) if self.headers else b""
        head = b"%bcontent-type: %b\r\ncontent-length: %d\r\n%b%b%b\r\n" % (
            STATUS_LINES[self.status],
            self.content_type,
            len(self.body),
            self.head,
            lines,
            b"connection: close\r\n" if close else b"",
        )
        if head_only:
            return [head]
        return [head + self.body] if len(self.body) < JOIN_BYTES else [head, self.body]


JOIN_BYTES = 64 * 1024
"""Below this, copying the body behind its head is cheaper than a second write."""

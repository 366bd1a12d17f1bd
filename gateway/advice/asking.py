"""Requests to a gateway on this host over plain sockets, and when their answers arrived by the kernel's clock.

A caller on a busy machine is woken late, and would measure itself: Linux stamps what a socket receives before anybody reads it
(docs.kernel.org/networking/timestamping.html). So several answers may also be read one after the other. `trial` asks in bursts,
`tests.bench.openload` at given times.
"""

import socket
import struct
import time

import msgspec

from gateway.errors import StoreUnavailable, UnsupportedModel

ANSWER_S = 90
SEND_BYTES = 1 << 20
"""Asked of the kernel for what is sent and not yet read, so that sending an image waits for nobody."""

SO_TIMESTAMPNS = 35
"""Of asm-generic/socket.h; Python does not name it."""


class Answer(msgspec.Struct, frozen=True, gc=False):
    """Nanoseconds on the kernel's real-time clock, which `now_ns` reads."""

    sent_ns: int
    arrived_ns: int
    head: bytes


def now_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_REALTIME)


def request(path: str, body: bytes) -> bytes:
    """A whole POST of JSON."""
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


class Connection:
    """One request after the other; close it. Raises `StoreUnavailable` when the gateway went away."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=ANSWER_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BYTES)
        self.socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self._received = b""
        self._sent_ns = 0

    def close(self) -> None:
        self.socket.close()

    def send(self, whole: bytes) -> int:
        """When it left."""
        self._sent_ns = now_ns()
        try:
            self.socket.sendall(whole)
        except OSError as error:
            raise _gone(error) from error
        return self._sent_ns

    def answer(self) -> Answer:
        """Waits until all of it is there."""
        while (found := self.receive()) is None:
            pass
        return found

    def receive(self) -> Answer | None:
        """What has come, or comes next; None while more is to come. Raises `UnsupportedModel` for anything but 200."""
        try:
            data, notes, _, _ = self.socket.recvmsg(1 << 20, socket.CMSG_SPACE(16))
        except OSError as error:
            raise _gone(error) from error
        if not data:
            raise _gone("it closed the connection")
        self._received += data
        end = self._received.find(b"\r\n\r\n")
        if end < 0 or len(self._received) < end + 4 + _length(self._received[:end]):
            return None
        whole, self._received = self._received, b""
        if not whole.startswith(b"HTTP/1.1 200"):
            said = whole[end + 4 :][:300].decode(errors="replace")
            raise UnsupportedModel(f"the gateway refuses the inputs to measure with: {said}")
        stamp = next(
            (note for level, kind, note in notes if (level, kind) == (socket.SOL_SOCKET, SO_TIMESTAMPNS)), None
        )
        return Answer(self._sent_ns, _stamped_ns(stamp) if stamp else now_ns(), whole[:end])


def _length(head: bytes) -> int:
    lower = head.lower()
    at = lower.index(b"content-length:") + 15
    return int(lower[at:].partition(b"\r\n")[0])


def _stamped_ns(stamp: bytes) -> int:
    seconds, nanoseconds = struct.unpack("qq", stamp[:16])
    return int(seconds) * 10**9 + int(nanoseconds)


def _gone(reason: object) -> StoreUnavailable:
    return StoreUnavailable(f"the gateway that was being measured went away: {reason}")

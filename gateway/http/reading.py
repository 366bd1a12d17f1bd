"""Reads requests from one connection with llhttp: within the limits of `HttpOptions`, or refused to the `Owner`, who answers.

No transport and no clock but the arrival's in here: `gateway.http.connection` feeds it, and times what is not whole.
"""

import re
from collections import deque
from time import perf_counter_ns
from typing import Protocol

import httptools

from gateway.errors import Overloaded, Unavailable
from gateway.http.messages import Request
from gateway.http.options import HttpOptions
from gateway.runtime.admission import Admission

PIECES_MAX = 4096  # of a body before they are joined: a piece of one byte takes forty
_SLASH = ord("/")
_ORIGIN = re.compile(rb"https?://[^/?]*", re.IGNORECASE)


class Owner(Protocol):
    """Whose requests these are."""

    @property
    def is_behind(self) -> bool:
        """Whether requests before this one are not answered yet."""
        ...

    def refuse(self, status: int, sentence: str) -> None:
        """Answer so, in turn, and make the reader deaf."""
        ...

    def refuse_error(self, error: Unavailable) -> None:
        """The same for an error that says when to come back."""
        ...

    def go_ahead(self) -> None:
        """Tell a client that asks first to send its body."""
        ...


class Reader:
    """`parsed` holds whole requests in order; `is_reading` says that another has begun. Nothing is read once it `is_deaf`."""

    # The message that is being read.
    _target: bytes
    _pairs: list[tuple[bytes, bytes]]
    _headers: dict[bytes, bytes]
    _body: list[bytes]
    arrived_ns: int
    _head_bytes: int  # at most; those of other requests in its first piece are counted too
    _shared_bytes: int  # how many of these may be other requests'
    _held_bytes: int  # of the body, as counted by admission
    _bare_bytes: int  # since the last piece of the body: chunk extensions and trailers
    is_head: bool
    _is_last: bool
    _is_old = False  # HTTP/1.0: the connection's only request
    is_reading: bool

    def __init__(self, owner: Owner, options: HttpOptions, admission: Admission) -> None:
        self.parsed: deque[Request] = deque()
        self.is_deaf = False
        self._owner = owner
        self._options = options
        self._base = options.base_path.encode()
        self._admission = admission
        self._parser = httptools.HttpRequestParser(self)
        self._fed_bytes = 0
        self._new_message()

    def feed(self, data: bytes | bytearray) -> None:
        """Parse what arrived: whole requests are in `parsed` then, and what is none has been refused."""
        self._fed_bytes = len(data)
        if self.is_head:
            self._head_bytes += len(data)
        elif self.is_reading:
            self._bare_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # the request itself is answered as HTTP/1.1, which RFC 9110 section 7.8 allows, and the connection closed
        except httptools.HttpParserError as error:
            is_over = self.is_deaf or (self.parsed and self.parsed[-1].close)  # what follows a last one is nobody's
            if not is_over:
                self._owner.refuse(400, f"this is not HTTP/1.1: {error}")

    def check_rest(self) -> None:
        """Refuse a message that is not whole yet for what surrounds its body: no callback tells of a head without an end."""
        limit = self._options.head_bytes_max
        if self.is_head and self._head_bytes - self._shared_bytes > limit:
            self._refuse_head()
        elif self._bare_bytes > limit:
            self._owner.refuse(431, f"trailers or chunk extensions beyond {limit} bytes (server.head_bytes_max)")

    def drop_body(self) -> None:
        """What there is of a body is needed no more."""
        self._admission.release(self._held_bytes)
        self._held_bytes = 0
        self._body = []

    # What the parser calls.

    def on_message_begin(self) -> None:
        self._new_message()
        self._shared_bytes = self._fed_bytes if self.parsed else 0
        self.is_reading = True
        self.arrived_ns = perf_counter_ns()

    def on_url(self, target: bytes) -> None:
        self._target += target

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.is_head:  # a trailer is no header: a proxy that filters headers would not have seen it
            self._pairs.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        if self.is_deaf:
            return
        self.is_head = False
        self._headers = headers = dict(self._pairs)
        self._is_last = not self._parser.should_keep_alive()
        # Without either it is HTTP/1.1: other versions close unless they say otherwise.
        if (self._is_last or b"connection" in headers) and not self._is_spoken():
            return
        if len(self._pairs) > self._options.headers_max:
            self._owner.refuse(431, f"more than {self._options.headers_max} headers (server.headers_max)")
            return
        if self._head_bytes > self._options.head_bytes_max and self._size_of_head() > self._options.head_bytes_max:
            self._refuse_head()
            return
        length = headers.get(b"content-length")
        if length is not None and int(length) > self._options.body_bytes_max:
            self._owner.refuse(413, self._too_large())
        elif b"expect" in headers and headers[b"expect"].lower() == b"100-continue" and not self._owner.is_behind:
            self._owner.go_ahead()

    def on_body(self, piece: bytes) -> None:
        if self.is_deaf:
            return
        try:
            self._admission.hold(len(piece))
        except Overloaded as error:
            self._owner.refuse_error(error)
            return
        self._held_bytes += len(piece)
        self._bare_bytes = 0
        if self._held_bytes > self._options.body_bytes_max:
            self._owner.refuse(413, self._too_large())
        else:
            self._body.append(piece)
            if len(self._body) >= PIECES_MAX:
                self._body = [b"".join(self._body)]

    def on_message_complete(self) -> None:
        if self.is_deaf:
            return
        self.is_reading = False
        # A body is counted here until it is whole; one that has to wait is then counted by the data plane.
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self.drop_body()
        if self._base or self._target[0] != _SLASH:
            self._target = _below(self._base, _origin_form(self._target))
        close = self._is_last or self._parser.should_upgrade()
        request = Request(
            self._parser.get_method(), self._target, self._pairs, self._headers, body, self.arrived_ns, close, self._is_old
        )  # fmt: skip
        self.parsed.append(request)

    # What they use.

    def _new_message(self) -> None:
        self._target = b""
        self._pairs = []
        self._headers = {}
        self._body = []
        self._held_bytes = 0
        self._bare_bytes = 0
        self._head_bytes = self._fed_bytes
        self._shared_bytes = 0
        self.is_head = True
        self.is_reading = False
        self.arrived_ns = 0

    def _too_large(self) -> str:
        return f"the body is larger than {self._options.body_bytes_max} bytes (server.body_bytes_max)"

    def _is_spoken(self) -> bool:
        """Whether we speak this version of HTTP; it is refused when not."""
        version = self._parser.get_http_version()
        if version == "1.0":
            # Clients of its age expect that a kept connection is announced, which we never do.
            self._is_old = self._is_last = True
        elif version != "1.1":
            self._owner.refuse(505, f"HTTP/{version} is not spoken here; send HTTP/1.1")
            return False
        return True

    def _size_of_head(self) -> int:
        return len(self._target) + sum(len(name) + len(value) for name, value in self._pairs)

    def _refuse_head(self) -> None:
        limit = self._options.head_bytes_max
        self._owner.refuse(431, f"the head is larger than {limit} bytes (server.head_bytes_max)")


def _origin_form(target: bytes) -> bytes:
    """The path and the query of a target that names a host as well, which a server has to accept (RFC 9112, 3.2.2)."""
    origin = _ORIGIN.match(target)
    if origin is None:
        return target
    path = target[origin.end() :]
    return path if path[:1] == b"/" else b"/" + path


def _below(base: bytes, target: bytes) -> bytes:
    """The target without the path it begins with (protocol rule 6); another one as it is."""
    rest = target.removeprefix(base)
    if len(rest) == len(target) or (rest and rest[:1] not in b"/?"):
        return target
    return rest if rest[:1] == b"/" else b"/" + rest

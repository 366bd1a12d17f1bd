"""One HTTP/1.1 connection: answers predictions without a task when it can, hands everything else to ASGI, closes what is over.

Requests on one connection are answered in order. While one is being answered, what the client sends ahead is kept, up to a limit.
`gateway.http.reading` reads them, `gateway.http.answering` makes the responses to predictions. Time and idleness are bounded by
`HttpOptions`; `Listener` looks at `due_s` in turn.
"""

import asyncio
import logging
import socket
import struct
from collections.abc import Coroutine
from typing import Any, Protocol, cast

from gateway.errors import Unavailable
from gateway.http import problems
from gateway.http.answering import Answering, Later
from gateway.http.asgi import Application, AsgiExchange
from gateway.http.messages import Request, Response
from gateway.http.options import HttpOptions
from gateway.http.predictions import Predictions
from gateway.http.reading import Reader
from gateway.http.service import Visits
from gateway.telemetry.reasons import reason_of

logger = logging.getLogger(__name__)

AHEAD_BYTES_MAX = 64 * 1024  # what a client may send ahead of an answer before its socket is left unread
RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # struct linger: on, zero seconds
_NEVER_S = float("inf")
_REASONS = {408: "deadline", 413: "too_large", 431: "too_large", 503: "overloaded"}


class Host(Protocol):
    """What a connection knows of the listener that made it."""

    app: Application
    predictions: Predictions
    options: HttpOptions
    visits: Visits | None
    loop: asyncio.AbstractEventLoop
    now_s: float
    is_draining: bool

    def admit(self, connection: "Connection") -> bool:
        """Count it in; False when there are too many."""
        ...

    def forget(self, connection: "Connection") -> None:
        """It is closed."""
        ...


class Connection(asyncio.Protocol):
    """Made by `Listener` for each client."""

    def __init__(self, listener: Host) -> None:
        self._listener = listener
        self._options = listener.options
        self._visits = listener.visits
        self._visit: tuple[int, str] | None = None  # of the request being answered: since when, and its id
        self._answering = Answering(listener.predictions, listener.visits)
        self._loop = listener.loop
        self._reader = Reader(self, listener.options, listener.predictions.dataplane.admission)
        self._ahead = bytearray()
        self._task: asyncio.Task[None] | None = None  # the answer that has to wait
        self._writable: asyncio.Event | None = None  # there while the client reads too slowly
        self._timed: tuple[int, bool] = (0, False)
        self._is_answering = False  # a part of an ASGI answer is out
        self._last: Response | None = None  # a refusal that waits for the answers before it
        self._is_over = False  # nothing more is answered
        self.due_s = _NEVER_S
        self._overdue = ""

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one without saying so
        if not self._listener.admit(self):
            self.refuse(503, f"{self._options.connections_max} connections are open (server.connections_max)")
            return
        self._due(self._options.head_timeout_s, "")

    def data_received(self, data: bytes) -> None:
        if self._reader.is_deaf:
            return
        if self._is_blocked:
            self._ahead += data
            if len(self._ahead) > AHEAD_BYTES_MAX:
                self._transport.pause_reading()
            return
        self._feed(data)

    def eof_received(self) -> None:
        """A client that stops sending has left: the transport closes, and `connection_lost` tells who works for it."""

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_over = self._reader.is_deaf = True
        self._listener.forget(self)
        self._reader.drop_body()
        if self._task is not None:
            self._task.cancel()
        if self._writable is not None:
            self._writable.set()

    def pause_writing(self) -> None:
        if self._writable is None:
            self._writable = asyncio.Event()
        self._due(self._options.write_timeout_s, "")

    def resume_writing(self) -> None:
        if self._writable is not None:
            self._writable.set()
            self._writable = None
        if self._is_over:
            return
        self._timed = (0, False)
        self._due(self._options.keep_alive_s if self._task is None else _NEVER_S, "")
        self._go_on()

    # What the listener calls.

    def overdue(self) -> None:
        """The client took too long: for its next request, for the rest of this one, or to read its answer."""
        if self._is_over or self._writable is not None:
            # Without this the kernel would keep megabytes of the answer for a client that does not read.
            self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            self._abort()
        elif self._overdue:
            self.refuse(408, self._overdue)
        else:
            self._close()

    def drain(self) -> None:
        """Close now when idle, else after the answer under way."""
        if self._task is None and not self._reader.is_reading:
            self._close()

    def abandon(self) -> None:
        """The grace period is over: who still waits is told so."""
        if self._is_answering:
            self._abort()
            return
        if (self._task is not None or self._reader.is_reading) and not self._is_over:
            self._last_words(self._refusal(503, "the gateway is shutting down"))
        else:
            self._close()
        if self._task is not None:
            self._task.cancel()

    # What the reader calls.

    @property
    def is_behind(self) -> bool:
        """Whether there are answers that are not out yet."""
        return bool(self._reader.parsed) or self._is_blocked

    def refuse(self, status: int, sentence: str) -> None:
        """Answer what is not a whole request, when those before it are answered, and close."""
        self._finish(self._refusal(status, sentence))

    def refuse_error(self, error: Unavailable) -> None:
        status, body, headers = problems.describe(error)
        self._listener.predictions.measures.refused(reason_of(error))
        self._finish(Response(status, b"application/json", body, b"", headers))

    def go_ahead(self) -> None:
        self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    # Requests in their order.

    def _feed(self, data: bytes | bytearray) -> None:
        reader = self._reader
        reader.feed(data)
        if reader.parsed:
            self._serve_parsed()
        if reader.is_reading and not self._is_blocked:
            self._await_rest()

    def _await_rest(self) -> None:
        """Each part of a request has its time from its beginning: another byte is no more time."""
        reader, options = self._reader, self._options
        if not reader.is_deaf:
            reader.check_rest()
        part = (reader.arrived_ns, reader.is_head)
        if reader.is_deaf or part == self._timed:
            return
        self._timed = part
        if reader.is_head:
            self._due(options.head_timeout_s, f"the head did not arrive within {options.head_timeout_s:g} s")
        else:
            self._due(options.body_timeout_s, f"the body did not arrive within {options.body_timeout_s:g} s")

    @property
    def _is_blocked(self) -> bool:
        """An answer waits, or the client does not take those it has."""
        return self._task is not None or self._writable is not None

    def _serve_parsed(self) -> None:
        parsed = self._reader.parsed
        while parsed and not self._is_blocked and not self._is_over:
            request = parsed.popleft()
            if self._visits is not None:
                self._visit = (self._visits.begin(), "")
            route = self._listener.predictions.match(request.target)
            if route is None:
                self._spawn(self._answer_by_asgi(request))
            elif request.method == b"POST":
                answer = self._answering.begin(route, request)
                if self._visit is not None:
                    self._visit = (self._visit[0], self._answering.request_id)
                if isinstance(answer, Response):
                    self._respond(answer, request)
                else:
                    self._spawn(self._respond_later(answer, request))
            else:
                body = problems.body("use POST")
                self._respond(Response(405, b"application/json", body, b"allow: POST\r\n"), request)
            if self._task is None:
                self._end_visit()
        if self._last is not None and not self.is_behind and not self._is_over:
            self._last_words(self._last)

    def _end_visit(self) -> None:
        if self._visits is not None and self._visit is not None:
            self._visits.end(*self._visit)
            self._visit = None

    # Answering.

    async def _respond_later(self, later: Later, request: Request) -> None:
        self._respond(await later(), request)

    async def _answer_by_asgi(self, request: Request) -> None:
        exchange = AsgiExchange(request, self._write, close=lambda: self._closes(request))
        peer, own = self._transport.get_extra_info("peername"), self._transport.get_extra_info("sockname")
        try:
            await exchange.run(self._listener.app, client=peer[:2] if peer else None, server=own[:2] if own else None)
        except Exception:
            if exchange.is_cut:  # what the application makes of it is no failure of ours
                return
            path = request.target.partition(b"?")[0][:200]
            logger.exception("%s %r failed", request.method.decode(), path)
            if not exchange.is_started:
                self._respond(Response(500, b"application/json", problems.body("internal error")), request)
                return
        if exchange.is_complete:
            self._answered(request)
        else:
            self._abort()  # half an answer must not look like a whole one

    def _respond(self, response: Response, request: Request) -> None:
        if self._is_over:
            return
        pieces = response.encode(close=self._closes(request), head_only=request.method == b"HEAD")
        if len(pieces) == 1:
            self._transport.write(pieces[0])
        else:
            self._transport.writelines(pieces)
        self._answered(request)

    def _answered(self, request: Request) -> None:
        if self._closes(request):
            self._close()
        elif self._reader.is_reading:
            self._timed = (0, False)  # the next request is under way: its time runs from now
        elif self._writable is None:
            self._due(self._options.keep_alive_s, "")

    def _closes(self, request: Request) -> bool:
        return request.close or self._listener.is_draining

    def _due(self, seconds: float, sentence: str) -> None:
        self.due_s = self._listener.now_s + seconds
        self._overdue = sentence

    async def _write(self, data: bytes) -> None:
        """For answers in pieces: waits while the client reads too slowly."""
        if self._is_over:
            raise ConnectionResetError("the client left")
        self._is_answering = True
        self._transport.write(data)
        if self._writable is not None:
            await self._writable.wait()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self._is_answering = False
        self.due_s = _NEVER_S  # answers have deadlines of their own
        task = self._task = self._loop.create_task(work)
        task.add_done_callback(self._next)

    def _next(self, task: "asyncio.Task[None]") -> None:
        """An answer that had to wait is out: go on with what came meanwhile."""
        self._task = None
        self._answering.end()
        self._end_visit()
        if not task.cancelled() and (error := task.exception()):
            logger.error("connection: a bug", exc_info=error)
            self._abort()
        self._go_on()

    def _go_on(self) -> None:
        self._serve_parsed()
        if self.is_behind or self._reader.is_deaf:
            return
        if self._ahead:
            ahead, self._ahead = self._ahead, bytearray()
            self._transport.resume_reading()
            self._feed(ahead)
        elif self._reader.is_reading:
            self._await_rest()

    def _refusal(self, status: int, sentence: str) -> Response:
        self._listener.predictions.measures.refused(_REASONS.get(status, "invalid"))
        return Response(status, b"application/json", problems.body(sentence))

    def _finish(self, response: Response) -> None:
        self._reader.is_deaf = True
        self._reader.drop_body()
        if self.is_behind:
            self._last = response
        else:
            self._last_words(response)

    def _last_words(self, response: Response) -> None:
        self._reader.drop_body()
        self._transport.write(b"".join(response.encode(close=True, head_only=False)))
        self._close()

    def _close(self) -> None:
        """What is written still goes out, if the client takes it in time."""
        self._is_over = self._reader.is_deaf = True
        self._due(self._options.write_timeout_s, "")
        self._transport.close()

    def _abort(self) -> None:
        self._is_over = self._reader.is_deaf = True
        self._transport.abort()

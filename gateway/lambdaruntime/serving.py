"""The loop beside the server on Lambda: takes one invocation at a time, has our own listener answer it, hands the answer back.

Limits, deadlines, keys, receipts and the ledger's writing are the listener's, as for any client. `gateway.server` opens it.
"""

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Callable
from types import TracebackType

from gateway.errors import GatewayError
from gateway.lambdaruntime import events
from gateway.lambdaruntime.api import Invocation, RuntimeApi
from gateway.lambdaruntime.exchange import Address, AnswerTooLong, exchange
from gateway.lambdaruntime.visit import Visit

logger = logging.getLogger(__name__)

ANSWER_MS = 200
"""Of an invocation's time, kept for what comes after the prediction: 6 MB take 25 ms to encode, and are then handed back."""
LAST_ANSWER_S = 0.2  # for handing back what is answered already when the process stops: Lambda kills after 0.5 s


class Invocations:
    """An async context manager around serving. Raises `GatewayError` at its end when it was Lambda that went away."""

    def __init__(
        self,
        api: RuntimeApi,
        listening: socket.socket,
        accepting: asyncio.Event,
        *,
        timeout_ms: int,
        visit: Visit | None,
        stop: Callable[[], None],
    ) -> None:
        """Begins when `accepting` is set. `visit` is what the meter counts, if it counts; `stop` ends the process."""
        self._api = api
        self._gateway = _own(listening)
        self._accepting = accepting
        self._timeout_ms = timeout_ms
        self._visit = visit
        self._stop = stop
        self._is_stopping = False
        self._is_idle = True

    async def __aenter__(self) -> "Invocations":
        self._task = asyncio.create_task(self._run(), name="invocations")
        self._task.add_done_callback(self._ended)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_stopping = True
        if self._is_idle:
            self._task.cancel()
        await asyncio.wait([self._task], timeout=LAST_ANSWER_S)
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    def _ended(self, _: "asyncio.Task[None]") -> None:
        if not self._is_stopping:
            self._stop()

    async def _run(self) -> None:
        await self._accepting.wait()
        extension = asyncio.create_task(self._await_sigterm(await self._registered()), name="extension")
        try:
            while not self._is_stopping:
                self._is_idle = True
                invocation = await self._api.next()
                self._is_idle = False
                if self._visit:
                    self._visit.open()
                try:
                    await self._handle(invocation)
                finally:
                    if self._visit:
                        self._visit.close()
        finally:
            extension.cancel()

    async def _registered(self) -> str:
        try:
            identifier = await self._api.register()
        except (GatewayError, TimeoutError) as error:
            identifier = ""
            logger.warning("lambda: %s", error)
        if not identifier:
            logger.warning("lambda: no extension is registered, so the end of this process comes without SIGTERM")
        return identifier

    async def _await_sigterm(self, identifier: str) -> None:
        """The signal comes to the process itself: this only keeps the extension alive."""
        if identifier:
            with contextlib.suppress(GatewayError):  # where Lambda is gone, the loop notices
                await self._api.next_extension_event(identifier)

    async def _handle(self, invocation: Invocation) -> None:
        try:
            status = await self._api.respond(invocation.id, await self._answered(invocation))
        except events.NotAnHttpEvent as error:
            status = await self._api.fail(invocation.id, "Steelyard.NotAnHttpEvent", str(error))
        except GatewayError:
            raise
        except Exception:
            logger.exception("lambda: invocation %s failed", invocation.id)
            status = await self._api.fail(invocation.id, "Steelyard.InternalError", "internal error; see the log")
        if status >= 300:
            logger.warning("lambda: the answer to invocation %s was not taken (%d)", invocation.id, status)

    async def _answered(self, invocation: Invocation) -> bytes:
        """What Lambda is given. JSON of 6 MB keeps the event loop for 25 ms, in which nobody else could have called."""
        left_ms = max(1, invocation.deadline_ms - time.time_ns() // 1_000_000 - ANSWER_MS)
        sent = events.request(invocation.event, left_ms=left_ms, timeout_ms=self._timeout_ms, trace=invocation.trace)
        try:
            async with asyncio.timeout((left_ms + ANSWER_MS / 2) / 1000):
                answer = await exchange(
                    self._gateway, sent.encoded, body_bytes_max=events.RESPONSE_BYTES_MAX, is_head=sent.is_head
                )
        except TimeoutError:
            return events.refusal(503, "the function's time was over before there was an answer: raise its timeout")
        except AnswerTooLong:
            return events.too_large(f"has more than {events.RESPONSE_BYTES_MAX} bytes")
        except OSError as error:
            logger.warning("lambda: the gateway did not answer invocation %s: %s", invocation.id, error)
            return events.refusal(503, "the gateway is shutting down")
        return events.reply(answer)


def _own(listening: socket.socket) -> Address:
    """Where this machine reaches what is bound; a wildcard is no address to connect to."""
    host, port = listening.getsockname()[:2]
    return Address({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port)  # noqa: S104 - compared, not bound

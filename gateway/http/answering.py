"""From a prediction request to its response: at once where nothing has to be waited for. No wire and no order in here.

`gateway.http.connection` has one `Answering` each, and gives it one request at a time.
"""

import logging
from collections.abc import Awaitable, Callable
from functools import partial

from gateway.calls import Call, Prediction
from gateway.dataplane import Pending
from gateway.errors import GatewayError, Overloaded
from gateway.http import problems
from gateway.http.messages import Request, Response
from gateway.http.predictions import Predictions, Route
from gateway.http.service import Visits

logger = logging.getLogger(__name__)

Later = Callable[[], Awaitable[Response]]
"""Begins the part of an answer that waits. It may be left alone; `Answering.end` is to be called either way."""


class Answering:
    """One connection's predictions. `request_id` is that of the last one begun."""

    def __init__(self, predictions: Predictions, visits: Visits | None) -> None:
        self._predictions = predictions
        self._visits = visits
        self._admission = predictions.dataplane.admission
        self._pending: Pending | None = None  # what is waited for
        self.request_id = ""

    def begin(self, route: Route, request: Request) -> Response | Later:
        """The answer, also to what is refused or fails; what has to wait goes on in a task, and `end` follows when that is over."""
        predictions = self._predictions
        request_id = self.request_id = predictions.request_id()
        if predictions.is_slow(request):
            return partial(self._inflated_first, request_id, route, request)
        try:
            begun = self._started(predictions.call(request_id, route, request), request)
            if isinstance(begun, Pending):
                return partial(self._finished, request_id, route, begun, request)
            response = predictions.response(route, begun)
        except GatewayError as error:
            response = predictions.refusal(request_id, route, error, request)
        except Exception as error:
            response = self._failed(request_id, route, error, request)
        if predictions.packs(response, request) or (self._visits is not None and self._visits.holds()):
            return partial(self._packed, response, request)
        return response

    def end(self) -> None:
        """Nobody waits any more: what was spent is charged if it was not, and the caller has one call less under way."""
        if self._pending is not None:
            self._predictions.dataplane.drop(self._pending)
            self._pending.call.caller.leave()
            self._pending = None

    def _started(self, call: Call, request: Request) -> Prediction | Pending:
        """Start within the caller's limits. What has to wait counts among the caller's calls until its task ends."""
        if call.sent.body is not request.body:
            self._admission.check_room(len(call.sent.body))  # inflated: only what it was has been counted yet
        call.caller.enter()
        begun: Prediction | Pending | None = None
        try:
            begun = self._predictions.dataplane.start(call)
        finally:
            if not isinstance(begun, Pending):
                call.caller.leave()
        if isinstance(begun, Pending):
            self._pending = begun
        return begun

    async def _inflated_first(self, request_id: str, route: Route, request: Request) -> Response:
        predictions = self._predictions
        try:
            plain = await self._inflated(route, request)
            begun = self._started(predictions.call(request_id, route, plain), request)
            if isinstance(begun, Pending):
                return await self._finished(request_id, route, begun, request)
            response = predictions.response(route, begun)
        except GatewayError as error:
            response = predictions.refusal(request_id, route, error, request)
        except Exception as error:
            response = self._failed(request_id, route, error, request)
        return await self._packed(response, request)

    async def _inflated(self, route: Route, request: Request) -> Request:
        """A body that waits to be inflated is counted as it came."""
        self._admission.hold(len(request.body))
        try:
            return await self._predictions.inflated(route, request)
        finally:
            self._admission.release(len(request.body))

    async def _finished(self, request_id: str, route: Route, pending: Pending, request: Request) -> Response:
        predictions = self._predictions
        try:
            response = predictions.response(route, await predictions.dataplane.finish(pending))
        except GatewayError as error:
            response = predictions.refusal(request_id, route, error, request)
        except Exception as error:
            response = self._failed(request_id, route, error, request)
        return await self._packed(response, request)

    async def _packed(self, response: Response, request: Request) -> Response:
        """Compressed where that is wanted, and after what the ledger must have before anybody is answered."""
        if self._predictions.packs(response, request):
            response = await self._predictions.packed(response, request)
        if self._visits is not None and self._visits.holds():
            await self._visits.keep()
        return response

    def _failed(self, request_id: str, route: Route, error: Exception, request: Request) -> Response:
        """A bug of ours, with its traceback in the log. No memory is none: while a model is built, everybody is limited."""
        if isinstance(error, MemoryError):
            short = Overloaded("memory is short at the moment; try again")
            return self._predictions.refusal(request_id, route, short, request)
        logger.error("request %s failed", request_id, exc_info=error, extra={"request_id": request_id})
        self._predictions.report(request_id, 500, route, error, request)
        head = b"steelyard-request-id: %b\r\n" % request_id.encode()
        return Response(500, b"application/json", problems.body(f"internal error; request {request_id}"), head)

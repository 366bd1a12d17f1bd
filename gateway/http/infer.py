"""The two prediction routes as one plain ASGI callable in front of Litestar: body in, data plane, headers and body out.

    POST /v2/models/{model}[/versions/{version}]/infer      Open Inference Protocol tensors
    POST /v1/predict/{model}[/versions/{version}]           rows of named values

Routing these two through Litestar cost a quarter of the requests per second of a small model; see infra/decisions.
"""

import asyncio
import logging
from collections.abc import Iterator
from itertools import count
from time import perf_counter_ns
from typing import Any

import msgspec

from gateway.dataplane import Call, DataPlane, Door, Prediction, Sent
from gateway.errors import DeadlineExceeded, GatewayError, InvalidInput, PayloadTooLarge
from gateway.http import problems
from gateway.http.openinference import JsonTensors
from gateway.http.rows import Rows
from gateway.runtime.admission import Admission

logger = logging.getLogger(__name__)

Scope = dict[str, Any]  # Any: ASGI's own shape
Receive = Any  # an ASGI callable
Send = Any  # an ASGI callable

_JSON = (b"content-type", b"application/json")


class Route(msgspec.Struct, frozen=True):
    """Where a prediction call goes."""

    model: str
    version: str | None
    door: Door


class InferRoutes:
    """`match` says whether a path is ours; `answer` serves it."""

    def __init__(
        self, dataplane: DataPlane, *, body_bytes_max: int, body_timeout_s: float, request_ids: Iterator[str]
    ) -> None:
        self._dataplane = dataplane
        self._body_bytes_max = body_bytes_max
        self._body_timeout_s = body_timeout_s
        self._request_ids = request_ids
        self._tensors: Door = JsonTensors()
        self._rows: Door = Rows()

    def match(self, path: str) -> Route | None:
        """The route of this (decoded) path, or None."""
        match path.split("/"):
            case ["", "v2", "models", model, "infer"]:
                return Route(model, None, self._tensors)
            case ["", "v2", "models", model, "versions", version, "infer"]:
                return Route(model, version, self._tensors)
            case ["", "v1", "predict", model]:
                return Route(model, None, self._rows)
            case ["", "v1", "predict", model, "versions", version]:
                return Route(model, version, self._rows)
        return None

    async def answer(self, route: Route, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, one response; an error inside becomes its status and sentence."""
        request_id = next(self._request_ids)
        own = (b"steelyard-request-id", request_id.encode())
        held = _Held(self._dataplane.admission)
        try:
            if scope["method"] != "POST":
                await _respond(send, 405, problems.body("use POST"), [own, (b"allow", b"POST")])
                return
            body = await self._body(scope, receive, held)
            if body is None:
                return  # the client left before it had finished asking
            call = Call(
                request_id,
                route.model,
                route.version,
                Sent(body, dict(scope["headers"])),
                route.door,
                perf_counter_ns(),
            )
            prediction = await self._dataplane.infer(call)
            await _respond(send, 200, route.door.seal(prediction), _receipt_headers(prediction))
        except GatewayError as error:
            status, text, headers = problems.describe(error)
            await _respond(send, status, text, [own, *headers])
        except Exception:
            logger.exception("request %s failed", request_id)
            await _respond(send, 500, problems.body(f"internal error; request {request_id}"), [own])
        finally:
            held.release()

    async def _body(self, scope: Scope, receive: Receive, held: "_Held") -> bytes | None:
        """The whole body within its cap and its time. The cap is checked on the promise first, then on what arrives."""
        headers = dict(scope["headers"])
        if headers.get(b"content-encoding", b"identity") != b"identity":
            raise InvalidInput("Content-Encoding is not supported; send the body as it is")
        length = headers.get(b"content-length", b"0")
        if length.isdigit():
            self._check(int(length))
        pieces = []
        try:
            async with asyncio.timeout(self._body_timeout_s):
                while True:
                    message = await receive()
                    piece: bytes = message.get("body", b"")
                    held.add(len(piece))
                    self._check(held.body_bytes)
                    pieces.append(piece)
                    if not message.get("more_body"):
                        break
        except TimeoutError:
            raise DeadlineExceeded(f"the body did not arrive within {self._body_timeout_s:g} s") from None
        if message["type"] == "http.disconnect":
            return None
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _check(self, body_bytes: int) -> None:
        if body_bytes > self._body_bytes_max:
            raise PayloadTooLarge(f"the body is larger than {self._body_bytes_max} bytes (server.body_bytes_max)")


class _Held:
    """The body bytes of one request, counted against what all bodies in flight may hold."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self.body_bytes = 0

    def add(self, count: int) -> None:
        self._admission.hold(count)
        self.body_bytes += count

    def release(self) -> None:
        self._admission.release(self.body_bytes)


def request_ids(prefix: str) -> Iterator[str]:
    """Ids unique over containers and restarts, when the prefix is."""
    return (f"{prefix}-{number:x}" for number in count(1))


def _receipt_headers(prediction: Prediction) -> problems.Headers:
    receipt, usage = prediction.receipt, prediction.usage
    timing = (
        f"decode;dur={usage.decode_ns / 1e6:.3f}, queue;dur={usage.queue_ns / 1e6:.3f}, "
        f"run;dur={usage.run_ns / 1e6:.3f}, encode;dur={usage.encode_ns / 1e6:.3f}"
    )
    return [
        (b"steelyard-request-id", receipt.request_id.encode()),
        (b"steelyard-model", f"{receipt.model}@{receipt.version}".encode()),
        (b"steelyard-cost-picousd", b"%d" % receipt.cost_picousd),
        (b"server-timing", timing.encode()),
    ]


async def _respond(send: Send, status: int, body: bytes, headers: problems.Headers) -> None:
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": status, "headers": [_JSON, length, *headers]})
    await send({"type": "http.response.body", "body": body})

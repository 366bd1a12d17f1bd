"""Prediction calls between the wire and the data plane: which path is one, what the headers ask for, how the answer's head looks.

    POST /v2/models/{model}[/versions/{version}]/infer      Open Inference Protocol tensors
    POST /v1/predict/{model}[/versions/{version}]           rows of named values
    POST /v1/models/{model}[/versions/{version}]:predict    KServe's V1 protocol
    POST /invocations                                       SageMaker; a header names the model

Answered by `gateway.http.connection` without ASGI, because their overhead is billed to users; see infra/decisions.
"""

import asyncio
from collections.abc import Iterator
from itertools import count
from urllib.parse import unquote

import msgspec

from gateway.access.caller import Caller
from gateway.access.gate import Gate
from gateway.calls import Call, Door, Prediction, Sent
from gateway.dataplane import DataPlane
from gateway.errors import GatewayError, InvalidInput, Overloaded
from gateway.http import compression as compressing
from gateway.http.kservev1 import V1
from gateway.http.messages import Request, Response
from gateway.http.openinference import OpenInference
from gateway.http.options import CompressionOptions, SageMakerOptions
from gateway.http.problems import describe
from gateway.http.rows import Rows
from gateway.http.sagemaker import Invocations, model_of
from gateway.telemetry.measures import Measures
from gateway.telemetry.reasons import reason_of
from gateway.telemetry.requestlog import RequestLog

# How many targets of what length are remembered with their routes: the names in them are a stranger's free text.
ROUTES_MAX = 4096
TARGET_BYTES_MAX = 256
# How many long bodies are inflated at once, for each may grow to `compression.inflated_bytes_max` before it is decoded; and how
# many may wait for it: seconds of work.
INFLATING_MAX = 2
INFLATING_QUEUE_MAX = 64


class Route(msgspec.Struct, frozen=True):
    """Where a prediction call goes. An empty model is named by a header."""

    model: str
    version: str | None
    door: Door


class Predictions:
    """`match` says whether a target is ours, `call` what is asked, `response` and `refusal` what is answered."""

    def __init__(
        self,
        dataplane: DataPlane,
        access: Gate,
        request_ids: Iterator[str],
        measures: Measures,
        request_log: RequestLog,
        *,
        compression: CompressionOptions = CompressionOptions(),  # noqa: B008 - frozen
        sagemaker: SageMakerOptions = SageMakerOptions(),  # noqa: B008 - frozen
    ) -> None:
        self.dataplane = dataplane
        self.measures = measures
        self._request_log = request_log
        self._access = access
        self._request_ids = request_ids
        self._tensors: Door = OpenInference()
        self._rows: Door = Rows()
        self._v1: Door = V1()
        self._invocations: Door = Invocations()
        self._compression = compression
        self._sagemaker = sagemaker
        self._known: dict[bytes, Route | None] = {}
        self._inflating = asyncio.Semaphore(INFLATING_MAX)
        self._to_inflate = 0

    def match(self, target: bytes) -> Route | None:
        """The route of a request target, or None. Parsed once per distinct target."""
        try:
            return self._known[target]
        except KeyError:
            path = target.partition(b"?")[0].decode("latin-1")
            route = self._route([unquote(segment) for segment in path.split("/")])
            if len(target) <= TARGET_BYTES_MAX:
                if len(self._known) >= ROUTES_MAX:
                    self._known.clear()
                self._known[target] = route
            return route

    def _route(self, segments: list[str]) -> Route | None:
        route: Route | None = None
        match segments:
            case ["", "v2", "models", model, "infer"]:
                route = Route(model, None, self._tensors)
            case ["", "v2", "models", model, "versions", version, "infer"]:
                route = Route(model, version, self._tensors)
            case ["", "v1", "predict", model]:
                route = Route(model, None, self._rows)
            case ["", "v1", "predict", model, "versions", version]:
                route = Route(model, version, self._rows)
            case ["", "v1", "models", *named, action] if action.endswith(":predict"):
                route = self._v1_route([*named, action.removesuffix(":predict")])
            case ["", "invocations"]:
                route = Route("", None, self._invocations)
        return route

    def _v1_route(self, named: list[str]) -> Route | None:
        match named:
            case [model]:
                return Route(model, None, self._v1)
            case [model, "versions", version]:
                return Route(model, version, self._v1)
        return None

    def request_id(self) -> str:
        return next(self._request_ids)

    def call(self, request_id: str, route: Route, request: Request) -> Call:
        """Raises `Unauthenticated` or `Forbidden`, and `InvalidInput` for a header that is not what it should be."""
        headers = request.headers
        model = self._model(route, headers)
        caller = self._caller(headers, model)
        body = request.body if b"content-encoding" not in headers else self._inflated(request)
        # Positional, in the order of `Call`.
        return Call(
            request_id,
            model,
            route.version,
            Sent(body, headers),
            route.door,
            request.arrived_ns,
            caller,
            headers[b"steelyard-sticky"].decode("latin-1") if b"steelyard-sticky" in headers else caller.key_id,
            _whole(headers, b"steelyard-timeout-ms"),
            _whole(headers, b"steelyard-priority"),
        )

    def _model(self, route: Route, headers: dict[bytes, bytes]) -> str:
        return route.model or model_of(headers, self._sagemaker.default_model)

    def _caller(self, headers: dict[bytes, bytes], model: str) -> Caller:
        caller = self._access.caller(headers.get(b"authorization"), headers.get(b"steelyard-key"))
        caller.check(model)
        return caller

    def is_slow(self, request: Request) -> bool:
        """Whether a body is inflated in a thread, `inflated` before `call`: a long one, or one packed twice, which may grow by a
        thousand times a thousand.
        """
        encoding = request.headers.get(b"content-encoding")
        return encoding is not None and (len(request.body) > self._compression.loop_bytes_max or b"," in encoding)

    async def inflated(self, route: Route, request: Request) -> Request:
        """The request without its content coding. Raises as `call` does, and `PayloadTooLarge`. A stranger's stays as it is."""
        self._caller(request.headers, self._model(route, request.headers))
        if self._to_inflate >= INFLATING_MAX + INFLATING_QUEUE_MAX:
            raise Overloaded(f"{self._to_inflate} compressed bodies are before this one; send it as it is, or later")
        self._to_inflate += 1
        try:
            async with self._inflating:
                body = await asyncio.to_thread(self._inflated, request)
        finally:
            self._to_inflate -= 1
        headers = {name: value for name, value in request.headers.items() if name != b"content-encoding"}
        return msgspec.structs.replace(request, body=body, headers=headers)

    def _inflated(self, request: Request) -> bytes:
        return compressing.inflate(
            request.body, request.headers[b"content-encoding"], self._compression.inflated_bytes_max
        )

    def packs(self, response: Response, request: Request) -> bool:
        """Whether this answer is to be compressed: by `packed`."""
        accept = request.headers.get(b"accept-encoding")
        return (
            accept is not None
            and 0 < self._compression.answers_from_bytes <= len(response.body)
            and compressing.preferred(accept) is not None
        )

    async def packed(self, response: Response, request: Request) -> Response:
        """The answer in the content coding that the caller prefers, unless it would grow."""
        arguments = response.body, request.headers[b"accept-encoding"], self._compression.level
        body, coding = await asyncio.to_thread(compressing.deflate, *arguments)
        if coding is None:
            return response
        head = response.head + b"content-encoding: %b\r\nvary: accept-encoding\r\n" % coding
        return msgspec.structs.replace(response, body=body, head=head)

    def response(self, route: Route, prediction: Prediction) -> Response:
        """The answer with its receipt in the headers."""
        answer, receipt, usage = prediction.answer, prediction.receipt, prediction.usage
        full = receipt.cost_full_picousd_estimated
        own = (
            b"steelyard-request-id: %b\r\nsteelyard-model: %b@%d\r\nsteelyard-cost-picousd: %b\r\n%b"
            b"server-timing: decode;dur=%.3f, queue;dur=%.3f, run;dur=%.3f, encode;dur=%.3f\r\n"
        ) % (
            receipt.request_id.encode(),
            receipt.model.encode(),
            receipt.version,
            _UNPRICED if receipt.cost_picousd is None else b"%d" % receipt.cost_picousd,
            b"" if full is None else b"steelyard-cost-full-picousd-estimated: %d\r\n" % full,
            usage.decode_ns / 1e6,
            usage.queue_ns / 1e6,
            usage.run_ns / 1e6,
            usage.encode_ns / 1e6,
        )
        return Response(200, answer.content_type, route.door.seal(prediction), own, answer.headers)

    def refusal(self, request_id: str, route: Route, error: GatewayError, request: Request) -> Response:
        """The status and the sentence of an error."""
        status, body, headers = describe(error)
        self.report(request_id, status, route, error, request)
        return Response(
            status, b"application/json", body, b"steelyard-request-id: %b\r\n" % request_id.encode(), headers
        )

    def report(self, request_id: str, status: int, route: Route, error: BaseException, request: Request) -> None:
        """Count and, when wanted, log an error that is answered."""
        self.measures.refused(reason_of(error))
        self._request_log.refused(
            status,
            error,
            request_id=request_id,
            model=route.model,
            headers=request.headers,
            arrived_ns=request.arrived_ns,
        )


_UNPRICED = b"unpriced"
"""In place of a number: a cost that nobody knows is not zero."""


def request_ids(prefix: str) -> Iterator[str]:
    """Ids unique over containers and restarts, when the prefix is."""
    return (f"{prefix}-{number:x}" for number in count(1))


def _whole(headers: dict[bytes, bytes], name: bytes) -> int:
    """A header that is a whole number; 0 when it is not there."""
    text = headers.get(name)
    if text is None:
        return 0
    if not text.isdigit() or len(text) > 9:
        raise InvalidInput(f"header {name.decode()} must be a whole number")
    return int(text)

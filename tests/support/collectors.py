"""An OpenTelemetry collector over HTTP: keeps every span that it is sent. It speaks the real protocol and nothing else."""

import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.support import httpservers


class Collector:
    """`spans` by arrival; `resource` is what the last sender said about itself."""

    def __init__(self, port: int) -> None:
        self.endpoint = f"http://127.0.0.1:{port}"
        self.spans: list[Span] = []
        self.resource: dict[str, Any] = {}  # Any: OpenTelemetry's values
        self.arrived = threading.Event()

    def take(self, request: ExportTraceServiceRequest) -> None:
        for part in request.resource_spans:
            self.resource = attributes(part.resource.attributes)
            for scope in part.scope_spans:
                self.spans += scope.spans
        self.arrived.set()


@contextlib.contextmanager
def collecting() -> Iterator[Collector]:
    """A collector that is up while the block runs."""

    class Handler(httpservers.Quiet, BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            body = self.rfile.read(int(self.headers["content-length"]))
            collector.take(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

    with httpservers.serving(Handler) as port:
        collector = Collector(port)
        yield collector


def attributes(pairs: Any) -> dict[str, Any]:  # Any: protobuf's repeated field, and its values
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}

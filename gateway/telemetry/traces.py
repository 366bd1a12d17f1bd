"""OpenTelemetry traces, when `OTEL_*` asks for them: one server span per prediction, with its steps as children.

Spans are made after the fact, from the call's usage, in a thread of their own: the event loop appends one small tuple to a bounded
queue. A collector that is slow or down costs spans, never a request. Sampling, endpoint, headers and batching are OpenTelemetry's
own environment variables; its SDK (extra `tracing`) is imported only when a trace is wanted.
"""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

import msgspec

from gateway.accounting.usage import Usage
from gateway.calls import Call
from gateway.contract.ledger import Outcome
from gateway.errors import SettingsError
from gateway.repository.residents import Resident
from gateway.runtime.model import LoadedModel
from gateway.telemetry.definitions import TRACES_DROPPED, Metric

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

logger = logging.getLogger(__name__)

QUEUE_MAX = 4096
"""Calls waiting to become spans, about 0.5 KB each; OpenTelemetry's own queue behind it has OTEL_BSP_MAX_QUEUE_SIZE (2048)."""
CONTEXT_BYTES_MAX = 1024
"""Of a caller's trace context; https://www.w3.org/TR/trace-context/ asks to pass on at least 512 characters of state."""
COLLECT_S = 0.05
"""The thread wakes at most so often: a wake-up of its own for every request would cost the event loop more than the tuple."""
TRACED_PER_TURN = 25
"""500 traces a second. One takes 0.2 ms of CPU (five spans, built and encoded), more than a small model's prediction: so they get a
tenth of a core at most. A gateway that answers more should sample (OTEL_TRACES_SAMPLER); what waits too long is dropped.
"""
CLOSE_S = 2.0
"""How long an exit waits for the collector; the ledger needs the rest of the 30 s after which Fargate kills."""


class Finished(msgspec.Struct, frozen=True, gc=False):
    """One call that is over. `headers` are the trace context's; no body is held."""

    request_id: str
    headers: tuple[bytes, bytes]
    model: str
    version: int
    variant: str
    door: str
    tenant: str
    outcome: Outcome
    arrived_ns: int
    usage: Usage
    cost_picousd: int


class Traces:
    """An observer of the data plane and an async context manager around serving. `dropped` calls found the queue full."""

    def __init__(self, provider: "TracerProvider", version: str) -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415 - see above

        self.dropped = 0
        self._provider = provider
        self._tracer = provider.get_tracer("steelyard", version)
        self._propagator = TraceContextTextMapPropagator()
        # The W3C flag says no, and the sampler follows it: not worth a tuple.
        self._follows_parent = provider.sampler.get_description().startswith("ParentBased")
        self._epoch_ns = time.time_ns() - time.perf_counter_ns()
        self._queue: deque[Finished] = deque()
        self._wake = threading.Event()
        self._is_closing = False
        self._thread = threading.Thread(target=self._work, name="traces", daemon=True)

    def observe(
        self, call: Call, resident: Resident[LoadedModel], usage: Usage, outcome: Outcome, cost_picousd: int
    ) -> None:
        """Remember one call; never waits."""
        sent = call.sent.headers
        parent = sent.get(b"traceparent", b"")
        if self._follows_parent and parent.endswith(b"-00"):
            return
        if len(self._queue) >= QUEUE_MAX:
            self.dropped += 1
            return
        state = sent.get(b"tracestate", b"")
        if len(parent) + len(state) > CONTEXT_BYTES_MAX:
            parent = state = b""
        # Positional, in the order of `Finished`.
        finished = Finished(
            call.request_id, (parent, state), resident.name, resident.version, resident.variant.id, call.door.name,
            call.caller.tenant, outcome, call.arrived_ns, usage, cost_picousd,
        )  # fmt: skip
        self._queue.append(finished)
        if not self._wake.is_set():
            self._wake.set()

    def read(self) -> Iterator[tuple[Metric, tuple[str, ...], int]]:
        """A source of `/metrics`."""
        yield TRACES_DROPPED, (), self.dropped

    async def __aenter__(self) -> "Traces":
        self._thread.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Send what there is, within `CLOSE_S`."""
        self._is_closing = True
        self._wake.set()
        closing = threading.Thread(target=self._close, name="close traces", daemon=True)
        closing.start()
        await asyncio.to_thread(closing.join, CLOSE_S)
        if closing.is_alive():
            logger.warning("traces: the collector did not take the last spans within %g s", CLOSE_S)

    def _close(self) -> None:
        self._thread.join()
        self._provider.shutdown()

    def _work(self) -> None:
        """The thread: spans from finished calls, one call at a time, so that the event loop never waits long for it."""
        while not self._is_closing:
            self._wake.wait()
            time.sleep(COLLECT_S)
            self._wake.clear()
            self._drain(TRACED_PER_TURN)
        self._drain(QUEUE_MAX)

    def _drain(self, traced_max: int) -> None:
        """Record so many calls; a call that is not sampled costs little and does not count."""
        while self._queue and traced_max:
            finished = self._queue.popleft()
            try:
                traced_max -= self._record(finished)
            except Exception:  # a bug here must cost spans only
                logger.exception("traces: request %s has no span", finished.request_id)
            time.sleep(0)
        if self._queue:
            self._wake.set()

    def _record(self, finished: Finished) -> bool:
        """Whether it is traced."""
        from opentelemetry import trace  # noqa: PLC0415 - see above

        start_ns = self._epoch_ns + finished.arrived_ns
        end_ns = start_ns + finished.usage.total_ns
        server = self._tracer.start_span(
            f"predict {finished.model}",
            self._parent(finished.headers),
            trace.SpanKind.SERVER,
            _attributes(finished),
            start_time=start_ns,
        )
        if server.is_recording():
            self._add_steps(server, finished, start_ns, end_ns)
            if finished.outcome in {"failed", "timed_out", "shed"}:
                server.set_status(trace.StatusCode.ERROR)
        server.end(end_ns)
        return server.get_span_context().trace_flags.sampled

    def _parent(self, headers: tuple[bytes, bytes]) -> "Context":
        """The caller's span, when its headers name one; else none."""
        from opentelemetry.context import Context  # noqa: PLC0415 - see above

        parent, state = (header.decode("latin-1") for header in headers)
        return self._propagator.extract({"traceparent": parent, "tracestate": state}, Context())

    def _add_steps(self, server: "Span", finished: Finished, start_ns: int, end_ns: int) -> None:
        from opentelemetry import trace  # noqa: PLC0415 - see above

        context = trace.set_span_in_context(server)
        for name, step_start_ns, step_end_ns in steps(finished, start_ns, end_ns):
            self._tracer.start_span(name, context, start_time=step_start_ns).end(step_end_ns)


def steps(finished: Finished, start_ns: int, end_ns: int) -> Iterator[tuple[str, int, int]]:
    """Name, start and end of each step of an answered call: laid end to end, backwards from the answer.

    What remains in front is reading the request from the wire. Of a call without an answer only the whole is known.
    """
    if finished.outcome != "ok":
        return
    usage = finished.usage
    for name, length_ns in (
        ("encode", usage.encode_ns), ("run", usage.run_ns), ("queue", usage.queue_ns), ("decode", usage.decode_ns),
    ):  # fmt: skip
        begin_ns = max(start_ns, end_ns - length_ns)
        if length_ns:
            yield name, begin_ns, end_ns
        end_ns = begin_ns


def _attributes(finished: Finished) -> dict[str, str | int]:
    """OpenTelemetry's semantic conventions for HTTP where they have a word, ours for the rest; never a payload or a key."""
    usage = finished.usage
    found: dict[str, str | int] = {
        "http.request.method": "POST",
        "http.request.body.size": usage.request_bytes,
        "http.response.body.size": usage.response_bytes,
        "steelyard.request_id": finished.request_id,
        "steelyard.model": finished.model,
        "steelyard.version": finished.version,
        "steelyard.variant": finished.variant,
        "steelyard.door": finished.door,
        "steelyard.rows": usage.rows,
        "steelyard.batch_rows": usage.batch_rows,
        "steelyard.cpu_ns": usage.cpu_ns,
        "steelyard.cost_picousd": finished.cost_picousd,
    }
    if finished.tenant:
        found["steelyard.tenant"] = finished.tenant
    if finished.outcome == "ok":
        found["http.response.status_code"] = 200
    else:
        found["error.type"] = finished.outcome
    return found


def from_environment(environ: Mapping[str, str], *, version: str, instance: str) -> Traces | None:
    """Traces as `OTEL_*` says, or None when it does not ask for any: then nothing of OpenTelemetry is imported.

    `OTEL_TRACES_EXPORTER` is `otlp` (over HTTP) or `none`; an endpoint alone means `otlp`. Raises `SettingsError`.
    """
    wanted = environ.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    endpoints = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    if not wanted and any(environ.get(name) for name in endpoints):
        wanted = "otlp"
    if wanted in {"", "none"} or environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    if wanted != "otlp":
        raise SettingsError(f"OTEL_TRACES_EXPORTER is '{wanted[:32]}'; this gateway has otlp and none")
    protocol = environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
    if protocol not in {None, "http/protobuf"}:
        raise SettingsError(f"the OTLP protocol is '{protocol}'; this gateway speaks http/protobuf")
    try:
        return Traces(_provider(environ, version, instance), version)
    except ModuleNotFoundError as error:
        raise SettingsError(f"OTEL_* asks for traces: pip install 'steelyard[tracing]' ({error})") from error


def _provider(environ: Mapping[str, str], version: str, instance: str) -> "TracerProvider":
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - costs 70 ms
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    logging.getLogger("opentelemetry").setLevel(
        logging.ERROR
    )  # a collector that is down: one line a batch, not one a try
    about: dict[str, Any] = {"service.version": version, "service.instance.id": instance}  # Any: OpenTelemetry's values
    if not environ.get("OTEL_SERVICE_NAME") and "service.name=" not in environ.get("OTEL_RESOURCE_ATTRIBUTES", ""):
        about["service.name"] = "steelyard"
    # It would wait for the collector at exit, for as long as an export may take.
    provider = TracerProvider(resource=Resource.create(about), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider

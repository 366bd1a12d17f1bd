"""Traces: asked for by OTEL_* only, sampled by the parent, made from the usage, bounded, and never in a request's way."""

import asyncio
import threading
from collections.abc import Iterator, Sequence
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from gateway.accounting.usage import Usage
from gateway.calls import Call, Sent
from gateway.contract.ledger import Outcome
from gateway.errors import SettingsError
from gateway.telemetry import traces
from gateway.telemetry.traces import Traces
from tests.support.manualclock import until

USAGE = Usage(
    cpu_ns=50, decode_ns=10, encode_ns=20, queue_ns=30, run_ns=100, total_ns=200, rows=2, batch_rows=8, request_bytes=300,
    response_bytes=40,
)  # fmt: skip
TRACE_ID, PARENT_ID = 0x4BF92F3577B34DA6A3CE929D0E0E4736, 0x00F067AA0BA902B7


def traceparent(flags: str = "01") -> bytes:
    return f"00-{TRACE_ID:032x}-{PARENT_ID:016x}-{flags}".encode()


def observe(
    found: Traces, *, header: bytes = b"", state: bytes = b"", usage: Usage = USAGE, outcome: Outcome = "ok"
) -> None:
    door: Any = SimpleNamespace(name="rows")
    resident: Any = SimpleNamespace(name="mlp", version=3, variant=SimpleNamespace(id="int8"))
    caller: Any = SimpleNamespace(tenant="shop")
    headers = {b"traceparent": header, b"tracestate": state} if header else {}
    call = Call("r-1", "champion", None, Sent(b"secret body", headers), door, 1_000_000, caller, "secret key")
    found.observe(call, resident, usage, outcome, 4711)


def over(exporter: SpanExporter) -> Traces:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return Traces(provider, "1.2.3")


async def spans_of(*headers: bytes, usage: Usage = USAGE, outcome: Outcome = "ok") -> dict[str, ReadableSpan]:
    exporter = InMemorySpanExporter()
    async with over(exporter) as found:
        for header in headers:
            observe(found, header=header, usage=usage, outcome=outcome)
    return {span.name: span for span in exporter.get_finished_spans()}


async def test_a_call_is_a_server_span_under_its_parent_with_its_steps_end_to_end() -> None:
    spans = await spans_of(traceparent())
    server = spans["predict mlp"]
    assert server.context.trace_id == TRACE_ID
    assert server.parent is not None
    assert server.parent.span_id == PARENT_ID
    assert server.kind == SpanKind.SERVER
    assert server.status.status_code == StatusCode.UNSET
    assert server.start_time is not None
    assert server.end_time == server.start_time + 200
    ends = [
        server.start_time + 40,
        server.start_time + 50,
        server.start_time + 80,
        server.start_time + 180,
        server.end_time,
    ]
    for name, (began, ended) in zip(("decode", "queue", "run", "encode"), pairwise(ends), strict=True):
        step = spans[name]
        assert (step.start_time, step.end_time) == (began, ended)
        assert step.parent is not None
        assert step.parent.span_id == server.context.span_id
        assert step.context.trace_id == TRACE_ID
    assert dict(server.attributes or {}) == {
        "http.request.method": "POST",
        "http.request.body.size": 300,
        "http.response.body.size": 40,
        "http.response.status_code": 200,
        "steelyard.request_id": "r-1",
        "steelyard.model": "mlp",
        "steelyard.version": 3,
        "steelyard.variant": "int8",
        "steelyard.door": "rows",
        "steelyard.tenant": "shop",
        "steelyard.rows": 2,
        "steelyard.batch_rows": 8,
        "steelyard.cpu_ns": 50,
        "steelyard.cost_picousd": 4711,
    }


async def test_the_parent_decides_whether_there_is_a_trace() -> None:
    assert await spans_of(traceparent("00")) == {}
    orphan = (await spans_of(b""))["predict mlp"]
    assert orphan.parent is None
    garbled = (await spans_of(b"00-zz\xff"))["predict mlp"]
    assert garbled.parent is None


async def test_a_context_too_long_to_keep_is_no_parent() -> None:
    exporter = InMemorySpanExporter()
    async with over(exporter) as found:
        observe(found, header=traceparent(), state=b"k=" + b"x" * 200)
        observe(found, header=traceparent(), state=b"k=" + b"x" * traces.CONTEXT_BYTES_MAX)
    parents = [span.parent for span in exporter.get_finished_spans() if span.kind == SpanKind.SERVER]
    assert [parent is None for parent in parents] == [False, True]


async def test_the_sampler_of_the_environment_holds_without_a_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0")
    assert await spans_of(b"") == {}
    assert await spans_of(traceparent()) != {}


@pytest.mark.parametrize(("outcome", "status"), [("failed", StatusCode.ERROR), ("invalid", StatusCode.UNSET)])
async def test_a_call_without_an_answer_is_one_span_and_an_error_when_it_is_ours(
    outcome: Any, status: StatusCode
) -> None:
    spans = await spans_of(b"", outcome=outcome)
    [server] = spans.values()
    assert server.status.status_code == status
    assert (server.attributes or {})["error.type"] == outcome
    assert "http.response.status_code" not in (server.attributes or {})


async def test_steps_never_begin_before_the_call() -> None:
    spans = await spans_of(b"", usage=Usage(total_ns=50, run_ns=100, decode_ns=10, encode_ns=20))
    server = spans["predict mlp"]
    assert {spans[name].start_time for name in ("run", "decode")} == {server.start_time}


def test_a_turn_takes_only_so_many_calls_and_those_without_a_trace_do_not_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    exporter = InMemorySpanExporter()
    found = over(exporter)
    for _ in range(5):
        observe(found, header=traceparent("00"))
        observe(found, header=traceparent("01"))
    found._drain(2)
    assert len([span for span in exporter.get_finished_spans() if span.kind == SpanKind.SERVER]) == 2
    assert len(found._queue) == 3  # the sampler follows the parent, so what is not sampled was not kept
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    silent = over(exporter)
    for _ in range(5):
        observe(silent)
    silent._drain(2)
    assert not silent._queue


class Stuck(SpanExporter):
    """A collector that does not answer until it is let go."""

    def __init__(self) -> None:
        self.is_asked = threading.Event()
        self.go_on = threading.Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.is_asked.set()
        self.go_on.wait(20)
        return SpanExportResult.SUCCESS


@pytest.fixture
def stuck() -> Iterator[Stuck]:
    exporter = Stuck()
    yield exporter
    exporter.go_on.set()


async def test_a_stuck_exporter_costs_spans_and_neither_a_request_nor_the_exit(
    stuck: Stuck, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(traces, "QUEUE_MAX", 10)
    monkeypatch.setattr(traces, "CLOSE_S", 0.05)
    async with over(stuck) as found:
        observe(found)
        await asyncio.to_thread(stuck.is_asked.wait, 10)
        for _ in range(25):
            observe(found)
        assert found.dropped == 15
        assert [value for _, _, value in found.read()] == [15]


async def test_a_call_that_cannot_be_a_span_does_not_end_the_thread(caplog: pytest.LogCaptureFixture) -> None:
    exporter = InMemorySpanExporter()
    async with over(exporter) as found:
        observe(found, usage=Usage(total_ns=None))  # type: ignore[arg-type]
        observe(found)
        await until(lambda: len(exporter.get_finished_spans()) >= 5)
    assert [record.message for record in caplog.records] == ["traces: request r-1 has no span"]


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"OTEL_SERVICE_NAME": "x"},
        {"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "TRUE"},
    ],
)
def test_no_traces_unless_they_are_asked_for(environ: dict[str, str]) -> None:
    assert traces.from_environment(environ, version="1", instance="c0") is None


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER is 'zipkin'; this gateway has otlp and none"),
        (
            {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            "'grpc'; this gateway speaks http/protobuf",
        ),
    ],
)
def test_what_this_gateway_cannot_export_to_is_refused_before_it_listens(environ: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        traces.from_environment(environ, version="1", instance="c0")

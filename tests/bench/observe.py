"""What telemetry costs: `python -m tests.bench.observe` prints CPU microseconds per call and milliseconds per scrape."""

import asyncio
import io
import statistics
import time
from types import SimpleNamespace
from typing import Any

from opentelemetry.sdk.trace import TracerProvider

from gateway.accounting.usage import Usage
from gateway.calls import Call, Sent
from gateway.telemetry import logs, sources, traces
from gateway.telemetry.exposition import MetricsPage
from gateway.telemetry.measures import Measures
from gateway.telemetry.requestlog import RequestLog
from gateway.telemetry.startup import Startup

CALLS = 100_000
ROUNDS = 7
LINE = b"\n"


def main() -> None:
    measures = Measures()
    calls = [_call(f"model-{i}") for i in range(200)]
    for name, count in (("1 model", 1), ("200 models", 200)):
        some = [calls[i % count] for i in range(CALLS)]
        rounds = []
        for _ in range(ROUNDS):
            began = time.thread_time_ns()
            for call, resident, usage in some:
                measures.observe(call, resident, usage, "ok", 3839)
            rounds.append((time.thread_time_ns() - began) / CALLS / 1e3)
        print(f"observe, {name}: best {min(rounds):.2f} us, median {statistics.median(rounds):.2f} us")
    _others(calls[0])
    page = MetricsPage([sources.measures(measures)])
    for accept in ("", "application/openmetrics-text"):
        times = []
        for _ in range(20):
            began = time.thread_time_ns()
            text, kind = asyncio.run(page.exposition(accept))
            times.append((time.thread_time_ns() - began) / 1e6)
        took = f"best {min(times):.1f} ms, median {statistics.median(times):.1f} ms"
        print(f"scrape, 200 models: {took}, {len(text)} bytes, {text.count(LINE)} lines ({kind.split(';')[0]})")


def _others(call: tuple[Call, Any, Usage]) -> None:
    """What other observers add to a call: traces when OTEL_* asks for them, a log line for each request, the cold start record."""
    (started := Startup()).observe(*call, "ok", 1)
    tracing = traces.Traces(TracerProvider(shutdown_on_exit=False), "1")
    logs.configure(logs.LogOptions(requests="all"), io.StringIO())
    observers = {"cold start record": started, "traces": tracing, "log.requests=all": RequestLog("all")}
    for name, observer in observers.items():
        began = time.thread_time_ns()
        for _ in range(traces.QUEUE_MAX):
            observer.observe(*call, "ok", 3839)
        print(f"observe, {name}: {(time.thread_time_ns() - began) / traces.QUEUE_MAX / 1e3:.2f} us")


def _call(model: str) -> tuple[Call, Any, Usage]:
    door: Any = SimpleNamespace(name="rows")
    caller: Any = SimpleNamespace(tenant="")
    variant = SimpleNamespace(id="fp32")
    call = Call("id-1", model, None, Sent(b"x" * 300), door, time.perf_counter_ns(), caller)
    return (
        call,
        SimpleNamespace(name=model, version=1, variant=variant),
        Usage(341386, 71000, 14000, 3000, 248790, 400000, 1, 4, 311, 29),
    )


if __name__ == "__main__":
    main()

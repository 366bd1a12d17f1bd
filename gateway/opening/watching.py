"""What of a gateway is watched: measures, the request log, traces, saturation, and the page that shows them to Prometheus.

`gateway.bootstrap` calls these in its order.
"""

import os
from contextlib import AsyncExitStack
from importlib.metadata import version

import msgspec

from gateway.accounting import container
from gateway.accounting.ledger import LedgerWriter
from gateway.calls import Observer
from gateway.features.recorder import Recorder
from gateway.opening.models import Models
from gateway.runtime.admission import Admission
from gateway.settings import Settings
from gateway.telemetry import sources, traces
from gateway.telemetry.exposition import MetricsPage
from gateway.telemetry.measures import Measures
from gateway.telemetry.requestlog import RequestLog
from gateway.telemetry.saturation import Saturation
from gateway.telemetry.startup import Startup

VERSION = version("steelyard")


class Watch(msgspec.Struct, frozen=True):
    """Who is told of every answer. `tracing`: None where nobody asked for traces."""

    measures: Measures
    startup: Startup
    request_log: RequestLog
    tracing: traces.Traces | None

    @property
    def observers(self) -> tuple[Observer, ...]:
        always: tuple[Observer, ...] = (self.measures, self.startup)
        logged = (self.request_log,) if self.request_log.is_complete else ()
        traced = (self.tracing,) if self.tracing else ()
        return (*always, *logged, *traced)


async def opened(stack: AsyncExitStack, settings: Settings, startup: Startup, instance: str) -> Watch:
    measures, request_log = Measures(settings.telemetry), RequestLog(settings.log.requests)
    tracing = traces.from_environment(os.environ, version=VERSION, instance=instance)
    if tracing:
        await stack.enter_async_context(tracing)
    return Watch(measures, startup, request_log, tracing)


def saturation(
    settings: Settings, here: container.Container, measures: Measures, admission: Admission, served: Models
) -> Saturation:
    """Every limit by which load is refused is watched."""
    residents = served.repository.residents
    found = Saturation(
        vcpu_milli=here.vcpu_milli,
        objective_ms=settings.telemetry.objective_ms,
        window_s=settings.telemetry.window_s,
        waits=lambda: (measures.waited_ns, measures.answered),
        predicted_wait_ns=served.workers.pending_ns,
    )
    found.watch("queues", lambda: max((one.model.queue_fullness for one, _ in residents()), default=0.0))
    found.watch("requests", lambda: admission.requests / settings.admission.requests_max)
    found.watch("bytes", lambda: admission.body_bytes / settings.admission.bytes_max)
    return found


def page(
    watch: Watch,
    served: Models,
    ledger: LedgerWriter,
    admission: Admission,
    fullness: Saturation,
    recorder: Recorder | None,
) -> MetricsPage:
    repository = served.repository
    return MetricsPage(
        [
            sources.measures(watch.measures),
            sources.residency(repository),
            sources.memory(lambda: repository.counts, lambda: repository.memory_bytes),
            sources.aliases(repository.servings),
            sources.ledger(ledger),
            sources.in_flight(admission),
            fullness.read,
            watch.startup.read,
            *([sources.features(recorder)] if recorder else []),
            *([watch.tracing.read] if watch.tracing else []),
        ]
    )

"""Opens one gateway process: what it needs in order, closed in reverse. The only place that knows all the rooms.

`gateway.opening` makes the parts; what is opened before what, and why, is said here. `gateway.server` calls this.
"""

import asyncio
import logging
import os
import secrets
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager

from gateway import allocator, lambdaruntime
from gateway.access.gate import Gate
from gateway.accounting.clock import SystemClock
from gateway.accounting.ledger import LedgerWriter
from gateway.contract import layout
from gateway.dataplane import DataPlane
from gateway.errors import BucketNotFound, StoreRefused, StoreUnavailable
from gateway.features.recorder import Recorder
from gateway.http.service import Service
from gateway.objectstore.attempts import Attempts
from gateway.objectstore.opening import open_store
from gateway.objectstore.protocol import ObjectStore
from gateway.opening import models, money, watching
from gateway.opening.money import Scales
from gateway.runtime import memory
from gateway.runtime.admission import Admission
from gateway.settings import Settings, is_loopback
from gateway.telemetry import figures, sources
from gateway.telemetry.exposition import MetricsPage
from gateway.telemetry.startup import LoadTimes, Startup

logger = logging.getLogger(__name__)


@asynccontextmanager
async def opened(settings: Settings, startup: Startup) -> AsyncIterator[tuple[Service, Callable[[], None]]]:
    """The service, and what to call when the process begins to drain.

    Preloaded models are loaded before this yields; the ledger's opening record is queued, so that a slow store delays nothing.
    Raises a `GatewayError`.
    """
    allocator.keep_no_large_blocks()
    asked = models.wanted(settings)
    clock = SystemClock()
    here = money.detected(settings, boot_ns=clock.started_ns)
    async with AsyncExitStack() as stack:
        attempts = Attempts()
        store = open_store(settings.store, attempts=attempts)
        stack.push_async_callback(store.aclose)
        await _probe(store)
        startup.mark_store()
        scales = await money.metered(store, settings, here, clock)
        access = await stack.enter_async_context(_gate(settings, store, scales))
        money.say_prices(scales)  # not before it is clear that there will be a bill
        ledger = await stack.enter_async_context(money.ledger(store, settings, scales))
        recorder = await _recorder(stack, settings, store, scales)
        loads = LoadTimes()
        residency = models.Residency(scales, recorder, startup.loaded, loads.loaded)
        served = models.opened(stack, store, settings, asked, residency, container_bytes=here.memory_bytes)
        watch = await watching.opened(stack, settings, startup, here.id)
        service = _service(stack, settings, scales, access, ledger, recorder, served, watch)
        service.page.add(loads.read)
        service.page.add(sources.store(attempts.counts))
        stack.callback(startup.log)
        await _preloaded(stack, settings, service)
        _tell_figures(stack, service.page, settings.log.figures_s)
        scales.meter.mark_ready()
        startup.on_change = scales.meter.note_start
        startup.mark_loads()
        logger.info("container %s, store %s, %d workers", here.id, settings.store, served.workers.count)

        def drain() -> None:
            service.ready = False
            scales.meter.mark_draining()

        yield service, drain


async def _probe(store: ObjectStore) -> None:
    """A store that does not exist or refuses us will not heal by waiting; one that is merely away may."""
    try:
        await store.folders(layout.MODELS)
    except (BucketNotFound, StoreRefused):
        raise
    except StoreUnavailable as error:
        logger.warning("starting without the store: %s", error)


def _gate(settings: Settings, store: ObjectStore, scales: Scales) -> Gate:
    """Before the ledger is opened: a gateway that must not start leaves no bill. A function is called through Lambda by others."""
    is_alone = is_loopback(settings.server.host) and lambdaruntime.RUNTIME_API not in os.environ
    return Gate(
        store,
        settings.access,
        container=scales.here.id,
        boot_ns=scales.here.boot_ns,
        now_ns=scales.clock.now_ns,
        is_loopback=is_alone,
        insecure_no_auth=settings.insecure_no_auth,
    )


async def _recorder(stack: AsyncExitStack, settings: Settings, store: ObjectStore, scales: Scales) -> Recorder | None:
    """Opened after the ledger, so that its last work is still on the bill; before the models, which tell it that they go."""
    if not settings.features.enabled:
        return None
    here = scales.here
    recorder = Recorder(store, scales.clock, settings.features, container=here.id, boot_ns=here.boot_ns)
    return await stack.enter_async_context(recorder)


def _service(
    stack: AsyncExitStack,
    settings: Settings,
    scales: Scales,
    access: Gate,
    ledger: LedgerWriter,
    recorder: Recorder | None,
    served: models.Models,
    watch: watching.Watch,
) -> Service:
    """What the HTTP room needs, of what is open."""
    admission = Admission(settings.admission)
    saturation = watching.saturation(settings, scales.here, watch.measures, admission, served)
    service = Service(
        DataPlane(
            served.repository,
            admission,
            money.Charger(scales),
            watch.observers,
            timeout_s=settings.timeout_s,
            sampler=recorder,
        ),
        served.repository,
        access,
        watching.VERSION,
        secrets.token_hex(8),
        watch.measures,
        watch.request_log,
        watching.page(watch, served, ledger, admission, saturation, recorder),
        saturation,
        money.cost_page(stack, settings, scales.meter),
        money.visits(scales.meter, ledger),
    )
    service.page.add(sources.process(scales.clock, watching.VERSION, lambda: service.ready))
    return service


async def _preloaded(stack: AsyncExitStack, settings: Settings, service: Service) -> None:
    """Models that are to be there from the first request on are loaded; from now on every one follows its alias."""
    repository = service.repository
    await asyncio.gather(*(repository.ready(name) for name in settings.preload))
    _begin(stack, "follow aliases", repository.follow())
    _begin(stack, "give memory back", memory.keep_trimmed(settings.runtime.trim_s))


def _tell_figures(stack: AsyncExitStack, page: MetricsPage, every_s: float) -> None:
    if every_s:
        _begin(stack, "tell figures", figures.write(page.samples, every_s))


def _begin(stack: AsyncExitStack, name: str, work: Coroutine[None, None, None]) -> None:
    """Have this go on until the stack is unwound."""
    stack.push_async_callback(_cancel, asyncio.create_task(work, name=name))


async def _cancel(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

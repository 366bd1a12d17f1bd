"""Wires one gateway process: opens what it needs in order, closes it in reverse. The only place that knows all the rooms."""

import asyncio
import hashlib
import itertools
import logging
import os
import secrets
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from gateway import allocator, cgroup
from gateway.access.gate import Gate
from gateway.accounting import books, container
from gateway.accounting.clock import SystemClock
from gateway.accounting.ledger import LedgerWriter
from gateway.accounting.meter import Meter
from gateway.accounting.spillfolder import SpillRoot
from gateway.contract import layout, prices
from gateway.contract.ledger import Outcome, Phases
from gateway.dataplane import Call, DataPlane, Observer, Usage
from gateway.errors import BucketNotFound, SettingsError, StoreRefused, StoreUnavailable
from gateway.features.recorder import Recorder
from gateway.http.service import Service, Visits
from gateway.objectstore.opening import open_store
from gateway.objectstore.protocol import ObjectStore
from gateway.reports.live import LivePage
from gateway.repository.residents import Repository, Resident
from gateway.runtime import memory
from gateway.runtime.admission import Admission
from gateway.runtime.model import LoadedModel, Loader, RuntimeOptions
from gateway.runtime.session import cpu_flags
from gateway.runtime.workers import Workers
from gateway.settings import Settings, is_loopback
from gateway.telemetry import figures, sources, traces
from gateway.telemetry.exposition import MetricsPage
from gateway.telemetry.measures import Measures
from gateway.telemetry.requestlog import RequestLog
from gateway.telemetry.saturation import Saturation
from gateway.telemetry.startup import LoadTimes, Startup

if TYPE_CHECKING:
    from gateway.registry.signatures import PinnedKeys

logger = logging.getLogger(__name__)
VERSION = version("steelyard")


@asynccontextmanager
async def opened(settings: Settings, startup: Startup) -> AsyncIterator[tuple[Service, Callable[[], None]]]:
    """The service, and what to call when the process begins to drain.

    Preloaded models are loaded before this yields; the ledger's opening record is queued, so that a slow store delays nothing.
    Raises a `GatewayError`.
    """
    allocator.keep_no_large_blocks()
    pinned = _pinned(settings.repository.public_keys)
    clock = SystemClock()
    here = _container(settings, boot_ns=clock.started_ns)
    count = _workers(settings.runtime)
    async with AsyncExitStack() as stack:
        store = open_store(settings.store)
        stack.push_async_callback(store.aclose)
        await _probe(store)
        startup.mark_store()
        book, meter = await _metered(store, settings, here, clock)
        access = await stack.enter_async_context(_gate(settings, store, here, clock))
        _say_prices(here, book, meter)  # not before it is clear that there will be a bill
        shelves = SpillRoot(_spill_dir(settings), store.url)
        ledger = await stack.enter_async_context(
            LedgerWriter(store, here, meter, book, clock, settings.ledger, shelves=shelves)
        )
        recorder = await _recorder(stack, settings, store, here, clock)
        runtime = settings.runtime
        workers = stack.enter_context(
            Workers(
                count,
                levels=runtime.priority_levels,
                ageing_ns=runtime.ageing_ms * 1_000_000,
                stop_s=runtime.stop_s,
            )
        )
        builder = ThreadPoolExecutor(1, thread_name_prefix="build")  # a load takes no worker
        loader = stack.enter_context(Loader(workers, builder, runtime, cpu_flags=cpu_flags()))
        load_times = LoadTimes()
        repository = Repository(
            store,
            loader,
            _Residency(meter, here.id, recorder, startup.loaded, load_times.loaded),
            settings.repository,
            cache_dir=_cache_dir(settings.repository.cache_dir),
            container_bytes=here.memory_bytes,
            kept=settings.preload,
            pinned=pinned,
        )
        stack.push_async_callback(repository.aclose)
        admission = Admission(settings.admission)
        measures, request_log = Measures(settings.telemetry), RequestLog(settings.log.requests)
        observers: list[Observer] = [measures, startup]
        if request_log.is_complete:
            observers.append(request_log)
        if tracing := traces.from_environment(os.environ, version=VERSION, instance=here.id):
            observers.append(await stack.enter_async_context(tracing))
        dataplane = DataPlane(
            repository,
            admission,
            _Charger(meter, book),
            tuple(observers),
            timeout_s=settings.timeout_s,
            sampler=recorder,
        )
        saturation = _saturation(settings, here, measures, admission, workers, repository)
        page = MetricsPage(
            [
                sources.measures(measures),
                sources.residency(repository),
                sources.memory(lambda: repository.counts, lambda: repository.memory_bytes),
                sources.aliases(repository.servings),
                load_times.read,
                sources.ledger(ledger),
                sources.in_flight(admission),
                saturation.read,
                startup.read,
                *([sources.features(recorder)] if recorder else []),
                sources.process(clock, VERSION, lambda: service.ready),
            ]
        )
        if tracing:
            page.add(tracing.read)
        service = Service(
            dataplane,
            repository,
            access,
            VERSION,
            secrets.token_hex(8),
            measures,
            request_log,
            page,
            saturation,
            _cost_page(stack, settings.store, meter),
            _visits(meter, ledger),
        )
        stack.callback(startup.log)
        await asyncio.gather(*(repository.ready(name) for name in settings.preload))
        _begin(stack, "follow aliases", repository.follow())
        _begin(stack, "give memory back", memory.keep_trimmed(settings.runtime.trim_s))
        _tell_figures(stack, page, settings.log.figures_s)
        meter.mark_ready()
        startup.on_change = meter.note_start
        startup.mark_loads()
        logger.info("container %s, store %s, %d workers", here.id, settings.store, workers.count)

        def drain() -> None:
            service.ready = False
            meter.mark_draining()

        yield service, drain


def _visits(meter: Meter, ledger: LedgerWriter) -> Visits | None:
    """Nobody need be told of requests where the container is billed as long as it lives and no answer waits for the ledger."""
    if not (meter.is_counting_requests or ledger.may_hold_answers):
        return None
    return Visits(meter.begin_request, meter.end_request, lambda: ledger.holds_answers, ledger.flush)


def _pinned(sources: Sequence[str]) -> "PinnedKeys | None":
    if not sources:
        return None
    # 12 ms and 8 MB that a gateway without pinned keys need not pay.
    from gateway.registry.signatures import PinnedKeys  # noqa: PLC0415

    return PinnedKeys(sources)


async def _probe(store: ObjectStore) -> None:
    """A store that does not exist or refuses us will not heal by waiting; one that is merely away may."""
    try:
        await store.folders(layout.MODELS)
    except (BucketNotFound, StoreRefused):
        raise
    except StoreUnavailable as error:
        logger.warning("starting without the store: %s", error)


def _gate(settings: Settings, store: ObjectStore, here: container.Container, clock: SystemClock) -> Gate:
    """Before the ledger is opened: a gateway that must not start leaves no bill."""
    return Gate(
        store,
        settings.access,
        container=here.id,
        boot_ns=here.boot_ns,
        now_ns=clock.now_ns,
        is_loopback=is_loopback(settings.server.host),
        insecure_no_auth=settings.insecure_no_auth,
    )


async def _recorder(
    stack: AsyncExitStack, settings: Settings, store: ObjectStore, here: container.Container, clock: SystemClock
) -> Recorder | None:
    """Opened after the ledger, so that its last work is still on the bill; before the models, which tell it that they go."""
    if not settings.features.enabled:
        return None
    recorder = Recorder(store, clock, settings.features, container=here.id, boot_ns=here.boot_ns)
    return await stack.enter_async_context(recorder)


def _saturation(
    settings: Settings,
    here: container.Container,
    measures: Measures,
    admission: Admission,
    workers: Workers,
    repository: Repository[LoadedModel],
) -> Saturation:
    """Every limit by which load is refused is watched."""
    found = Saturation(
        vcpu_milli=here.vcpu_milli,
        objective_ms=settings.telemetry.objective_ms,
        window_s=settings.telemetry.window_s,
        waits=lambda: (measures.waited_ns, measures.answered),
        predicted_wait_ns=workers.pending_ns,
    )
    found.watch("queues", lambda: max((one.model.queue_fullness for one, _ in repository.residents()), default=0.0))
    found.watch("requests", lambda: admission.requests / settings.admission.requests_max)
    found.watch("bytes", lambda: admission.body_bytes / settings.admission.bytes_max)
    return found


class _Charger:
    """The data plane's view of the meter."""

    def __init__(self, meter: Meter, book: prices.PriceBook) -> None:
        self._charge: Callable[..., int] = meter.charge
        self.quoted = meter.quoted
        self.price_book = book.sha256

    def charge(self, call: Call, resident: Resident[LoadedModel], usage: Usage, outcome: Outcome) -> int:
        # Positional, in the order of `Meter.charge`.
        cost_picousd = self._charge(
            call.request_id, resident.name, resident.version, outcome, usage.rows, usage.cpu_ns, resident.variant.id,
            call.caller.tenant, call.door.name, usage.request_bytes, usage.response_bytes, usage.queue_ns, usage.run_ns,
            usage.batch_rows,
        )  # fmt: skip
        call.caller.charge(cost_picousd)
        return cost_picousd


class _Residency:
    """The repository's view of the meter and of the recorder of rows."""

    def __init__(
        self, meter: Meter, container_id: str, recorder: Recorder | None, *told: Callable[[Phases], None]
    ) -> None:
        self._meter = meter
        self._recorder = recorder
        self._shadow_ids = (f"{container_id}-{meter.boot_ns:x}-shadow-{number:x}" for number in itertools.count(1))
        self._told = told

    def loaded(self, resident: Resident[LoadedModel], cpu_ns: int, spent: Phases) -> None:
        for tell in self._told:
            tell(spent)
        self._meter.note_load(resident.name, resident.version, cpu_ns, spent)
        self._meter.note_resident(resident.name, resident.version, resident.model.resident_bytes)
        if self._recorder:
            self._recorder.loaded(resident.name, resident.version, resident.manifest)

    def unloaded(self, resident: Resident[LoadedModel]) -> None:
        self._meter.note_unloaded(resident.name, resident.version)
        if self._recorder:
            self._recorder.unloaded(resident.name, resident.version)

    def shadowed(self, resident: Resident[LoadedModel], rows: int, cpu_ns: int, run_ns: int) -> None:
        """A receipt that nobody gets: so that the bill shows what a shadow costs."""
        self._meter.charge(
            request_id=next(self._shadow_ids),
            model=resident.name,
            version=resident.version,
            variant=resident.variant.id,
            door="shadow",
            outcome="ok",
            rows=rows,
            cpu_ns=cpu_ns,
            run_ns=run_ns,
            batch_rows=rows,
            is_request=False,
        )


def _container(settings: Settings, *, boot_ns: int) -> container.Container:
    accounting = settings.accounting
    return container.detect(
        container_id=accounting.container_id,
        boot_ns=boot_ns,
        platform=accounting.platform,
        vcpu_milli=round(accounting.vcpus * 1000),
        memory_bytes=round(accounting.memory_gb * prices.BYTES_PER_GB),
        implied=prices.MACHINE if accounting.usd_per_hour else "",
    )


async def _metered(
    store: ObjectStore, settings: Settings, here: container.Container, clock: SystemClock
) -> tuple[prices.PriceBook, Meter]:
    """The container's meter and the price book it weighs by."""
    accounting = settings.accounting
    book = await books.chosen(
        store,
        path=accounting.price_book,
        usd_per_hour=accounting.usd_per_hour,
        platform=here.platform,
        day=here.boot_day,
    )
    detail_share = settings.ledger.detail_share
    meter = Meter(here, book, clock, window_ns=round(accounting.window_s * 1e9), detail_share=detail_share)
    return book, meter


def _say_prices(here: container.Container, book: prices.PriceBook, meter: Meter) -> None:
    """What the bill rests on, once; and aloud what it cannot contain."""
    logger.info(
        "accounting: %.3f vCPU and %.3f GB (%s) on %s (%s), priced by %s",
        here.vcpu_milli / 1000,
        here.memory_bytes / prices.BYTES_PER_GB,
        here.size_from,
        here.platform,
        here.platform_from,
        book.name,
    )
    for price in book.assumed(here.platform, here.boot_day):
        logger.warning(
            "accounting: %s is billed at $%s per %s, which is ASSUMED: %s. Put what you pay into a book (steelyard prices update)",
            price.sku,
            price.usd,
            price.unit,
            price.assumed,
        )
    if meter.unpriced:
        logger.error(
            "accounting: no price for %s in %s on %s: their costs are UNPRICED, not zero. Add them to a price book and make it "
            "current (steelyard prices update FILE), or set accounting.price_book; then start again",
            " and ".join(meter.unpriced),
            book.name,
            here.boot_day,
        )


def _workers(options: RuntimeOptions) -> int:
    """As many as keep every CPU busy, unless told otherwise. More threads than CPUs in one run would only take turns."""
    cpus = cgroup.cpus()
    if options.threads_per_run > cpus:
        raise SettingsError(f"runtime.threads_per_run is {options.threads_per_run}, and this container has {cpus} CPUs")
    return options.workers or cpus // options.threads_per_run


def _cache_dir(configured: str) -> Path:
    """Downloads of one user are shared between processes; every use verifies the digest again."""
    return Path(configured) if configured else Path(tempfile.gettempdir()) / f"steelyard-cache-{os.getuid()}"


def _spill_dir(settings: Settings) -> Path:
    """Where the ledger waits for a store that is away. The cache leaves files alone that are not its own."""
    configured = settings.ledger.spill_dir
    return Path(configured) if configured else _cache_dir(settings.repository.cache_dir) / "ledger"


def _cost_page(stack: AsyncExitStack, store: str, meter: Meter) -> LivePage:
    """Copies of the ledger are kept by user and store."""
    copies = (
        Path(tempfile.gettempdir())
        / f"steelyard-ledger-{os.getuid()}"
        / hashlib.sha256(store.encode()).hexdigest()[:16]
    )
    cost_page = LivePage(store, copies, asyncio.get_running_loop().time, note_cpu=meter.note_report)
    stack.push_async_callback(cost_page.aclose)
    return cost_page


def _tell_figures(stack: AsyncExitStack, page: MetricsPage, every_s: float) -> None:
    if every_s:
        _begin(stack, "tell figures", figures.write(page.samples, every_s))


def _begin(stack: AsyncExitStack, name: str, work: Coroutine[None, None, None]) -> None:
    """Have this go on until the stack is unwound."""
    stack.push_async_callback(_cancel, asyncio.create_task(work, name=name))


async def _cancel(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

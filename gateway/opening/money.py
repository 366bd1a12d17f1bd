"""What a gateway weighs with: the container's size, the price book, the meter, the ledger, and the page that shows the costs.

`gateway.bootstrap` calls these in its order.
"""

import asyncio
import logging
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec

from gateway.accounting import books, container
from gateway.accounting.clock import SystemClock
from gateway.accounting.ledger import LedgerWriter
from gateway.accounting.meter import Meter
from gateway.accounting.spillfolder import SpillRoot
from gateway.accounting.usage import Usage
from gateway.calls import Call
from gateway.contract import energy, prices
from gateway.contract.ledger import Outcome
from gateway.http.service import Visits
from gateway.objectstore.protocol import ObjectStore
from gateway.opening import folders
from gateway.reports.live import LivePage
from gateway.repository.residents import Resident
from gateway.runtime.model import LoadedModel
from gateway.settings import Settings

logger = logging.getLogger(__name__)


class Scales(msgspec.Struct, frozen=True):
    """The container, the meter of its life, and the price book that the meter weighs by."""

    clock: SystemClock
    here: container.Container
    book: prices.PriceBook
    meter: Meter


def detected(settings: Settings, *, boot_ns: int) -> container.Container:
    accounting = settings.accounting
    return container.detect(
        container_id=accounting.container_id,
        boot_ns=boot_ns,
        platform=accounting.platform,
        vcpu_milli=round(accounting.vcpus * 1000),
        memory_bytes=round(accounting.memory_gb * prices.BYTES_PER_GB),
        implied=prices.MACHINE if accounting.usd_per_hour else "",
    )


async def metered(store: ObjectStore, settings: Settings, here: container.Container, clock: SystemClock) -> Scales:
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
    return Scales(clock, here, book, meter)


def say_prices(scales: Scales) -> None:
    """What the bill rests on, once; and aloud what it cannot contain."""
    here, book = scales.here, scales.book
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
        _say_assumed(price)
    if scales.meter.unpriced:
        _say_unpriced(scales)


def _say_assumed(price: prices.Price) -> None:
    logger.warning(
        "accounting: %s is billed at $%s per %s, which is ASSUMED: %s. Put what you pay into a book (steelyard prices update)",
        price.sku,
        price.usd,
        price.unit,
        price.assumed,
    )


def _say_unpriced(scales: Scales) -> None:
    logger.error(
        "accounting: no price for %s in %s on %s: their costs are UNPRICED, not zero. Add them to a price book and make it "
        "current (steelyard prices update FILE), or set accounting.price_book; then start again",
        " and ".join(scales.meter.unpriced),
        scales.book.name,
        scales.here.boot_day,
    )


def ledger(store: ObjectStore, settings: Settings, scales: Scales) -> LedgerWriter:
    """Entering it begins the bill: its opening record is queued."""
    cached = folders.cache(settings.repository.cache_dir)
    shelves = SpillRoot(folders.spill(settings.ledger.spill_dir, cached), store.url)
    return LedgerWriter(store, scales.here, scales.meter, scales.book, scales.clock, settings.ledger, shelves=shelves)


class Charger:
    """The data plane's view of the meter."""

    def __init__(self, scales: Scales) -> None:
        self._charge = scales.meter.charge
        self.quoted = scales.meter.quoted
        self.price_book = scales.book.sha256

    def charge(self, call: Call, resident: Resident[LoadedModel], usage: Usage, outcome: Outcome) -> int:
        # Positional, in the order of `Daybook.charge`.
        cost_picousd = self._charge(
            call.request_id, resident.name, resident.version, outcome, usage, resident.variant.id, call.caller.tenant,
            call.door.name,
        )  # fmt: skip
        call.caller.charge(cost_picousd)
        return cost_picousd


def visits(meter: Meter, writer: LedgerWriter) -> Visits | None:
    """Nobody need be told of requests where the container is billed as long as it lives and no answer waits for the ledger."""
    if not (meter.is_counting_requests or writer.may_hold_answers):
        return None
    return Visits(meter.begin_request, meter.end_request, lambda: writer.holds_answers, writer.flush)


def cost_page(stack: AsyncExitStack, settings: Settings, meter: Meter) -> LivePage:
    """Raises `SettingsError` for coefficients of energy that cannot be read: at the start, not at the first question."""
    book = settings.accounting.energy_book
    if book:
        energy.load(Path(book))
    page = LivePage(
        settings.store,
        folders.ledger_copies(settings.store),
        asyncio.get_running_loop().time,
        energy_book=book,
        note_cpu=meter.note_report,
    )
    stack.push_async_callback(page.aclose)
    return page

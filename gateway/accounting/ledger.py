"""Writes the meter's intervals into the store as a chain of segments, and never holds up or fails a request.

Closing an interval is a swap on the event loop; settling and compressing happen in a thread; the store is the outbox's business.
An interval is closed when it is old enough, holds enough requests, its hour ends, or the process does. What a killed process loses
is who used its last seconds, never what they cost: the bill up to the last segment stands, and the container's price is known.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from importlib import metadata
from types import TracebackType

import msgspec

from gateway.accounting import background, segment
from gateway.accounting.clock import Clock
from gateway.accounting.container import Container
from gateway.accounting.leftovers import Leftovers
from gateway.accounting.meter import Meter
from gateway.accounting.options import LedgerOptions
from gateway.accounting.outbox import Outbox
from gateway.accounting.parcel import Parcel
from gateway.accounting.spill import Shelves, Spill
from gateway.accounting.statement import Interval, settle
from gateway.contract import codec, layout
from gateway.contract.ledger import Basis, Close, Open, Request
from gateway.contract.prices import PriceBook
from gateway.objectstore.blocking import in_thread
from gateway.objectstore.protocol import ObjectStore

logger = logging.getLogger(__name__)

MINUTE_NS = 60 * 10**9
SOFTWARE = f"steelyard {metadata.version('steelyard')}"


class LedgerWriter:
    """An async context manager around serving. Its counters may be read at any time."""

    def __init__(
        self,
        store: ObjectStore,
        container: Container,
        meter: Meter,
        book: PriceBook,
        clock: Clock,
        options: LedgerOptions = LedgerOptions(),  # noqa: B008 - frozen
        *,
        shelves: Shelves | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """`shelves`: local disk for outages of the store, and what earlier lives left there; without, memory only."""
        self._container = container
        self._meter = meter
        self._book = book
        self._clock = clock
        self._options = options
        self._sleep = sleep
        self._spill: Spill | None = None
        self._leftovers: Leftovers | None = None
        if shelves is not None:
            self._spill = Spill(shelves.own(container.id, container.boot_ns), bytes_max=options.spill_bytes_max)
            self._leftovers = Leftovers(store, shelves, put_timeout_s=options.put_timeout_s, sleep=sleep, jitter=jitter)
        self._outbox = Outbox(
            store,
            bytes_max=options.pending_bytes_max,
            put_timeout_s=options.put_timeout_s,
            sleep=sleep,
            jitter=jitter,
            spill=self._spill,
        )
        self._before_answers = options.before_answers
        if options.before_answers == "auto":
            self._before_answers = "due" if book.platform(container.platform).freezes else "never"
        self._closed = asyncio.Event()
        self._encoding = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []
        self._seq = 0
        self._last_sha256 = ""
        self._cost_picousd = 0
        self._collapsed = 0
        self._unbalanced_picousd = 0

    @property
    def segments_written(self) -> int:
        return self._outbox.written["segment"]

    @property
    def pending_bytes(self) -> int:
        """Encoded and not in the store yet."""
        return self._outbox.pending_bytes

    @property
    def spilled_bytes(self) -> int:
        """On local disk until the store has it."""
        return self._spill.used_bytes if self._spill else 0

    @property
    def spill_failures(self) -> int:
        """Writes to local disk that did not succeed: what they were to keep is in memory only."""
        return self._spill.failures if self._spill else 0

    @property
    def recovered(self) -> int:
        """Segments that an earlier life left on local disk and that are now in the store."""
        return self._leftovers.written["segment"] if self._leftovers else 0

    @property
    def set_aside(self) -> int:
        """Files found on local disk that are no whole objects of a ledger, or not to be written."""
        return (self._leftovers.set_aside if self._leftovers else 0) + (self._spill.set_aside if self._spill else 0)

    @property
    def failures(self) -> int:
        """Attempts to write that must be repeated."""
        return self._outbox.failures

    @property
    def conflicts(self) -> int:
        """1 when another process writes as this container; then nothing more is written."""
        return self._outbox.conflicts

    @property
    def capped(self) -> int:
        """Receipts cut to what the box can have cost."""
        return self._meter.capped

    @property
    def skewed(self) -> int:
        """Intervals in which weighed work came to add up to more CPU than the process has used."""
        return self._meter.skewed

    @property
    def collapsed(self) -> int:
        """Requests that are in the ledger's sums only, for want of room and not by choice."""
        return self._meter.collapsed + self._collapsed

    @property
    def unpriced(self) -> int:
        """How many of the container's skus have no price."""
        return len(self._meter.unpriced)

    @property
    def unwritten_picousd(self) -> int:
        """The bill of closed intervals that are not in the store."""
        waiting = sum(self._bill(interval) for interval in self._meter.closed)
        return self._outbox.unwritten_picousd + self._unbalanced_picousd + waiting

    @property
    def unsafe_picousd(self) -> int:
        """Of this, what is not on local disk either: a kill loses who used it."""
        return self.unwritten_picousd - self._outbox.unwritten_picousd + self._outbox.unsafe_picousd

    @property
    def may_hold_answers(self) -> bool:
        return self._before_answers != "never"

    @property
    def holds_answers(self) -> bool:
        """Whether the answer that is ready now must wait for `flush`. Not while the store is away: that would help nobody."""
        if self._before_answers == "never" or self._outbox.is_failing or self._outbox.is_full:
            return False
        is_old = self._clock.now_ns() - self._meter.from_ns >= round(self._options.flush_interval_s * 1e9)
        return is_old or self._before_answers == "each" or self._outbox.pending_bytes > 0 or bool(self._meter.closed)

    async def flush(self) -> None:
        """Have what has been charged until now written, as far as `answer_wait_s` allows; the rest goes with the next one."""
        self._close_full()
        await background.within(self._options.answer_wait_s, self._written(), self._sleep)

    async def _written(self) -> None:
        await self._encode_closed()
        await self._outbox.emptied()

    async def __aenter__(self) -> "LedgerWriter":
        """Does not wait for the store: the opening record is the first thing in the outbox."""
        self._open()
        self._meter.on_full(self._options.flush_rows, self._close_full)
        works = [self._keep_time(), self._keep_encoding(), self._outbox.run()]
        if self._leftovers:
            works.append(self._leftovers.run())
        self._tasks = [background.started(work) for work in works]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the last interval and write everything, within `drain_s`; what could not be written is left on local disk, and
        what could not be left there is logged with its cost.
        """
        ended_ns = self._meter.close_last()
        try:
            await background.cancel(self._tasks)
            await background.within(self._options.drain_s, self._finish(ended_ns), self._sleep)
            await self._outbox.keep(at_exit=True)
        finally:
            self._say_unwritten()
            if self._spill:
                await in_thread(self._spill.close)

    def _say_unwritten(self) -> None:
        unsafe_picousd = self.unsafe_picousd
        if unsafe_picousd:
            logger.error(
                "ledger: %d pico-dollars of container %s are not in the ledger and will be reported as unattributed",
                unsafe_picousd,
                self._container.id,
            )
        if self._spill and self.unwritten_picousd > unsafe_picousd:
            logger.warning(
                "ledger: %d pico-dollars of container %s are not in the store; the next gateway here writes them from %s",
                self.unwritten_picousd - unsafe_picousd,
                self._container.id,
                self._spill.name,
            )

    def _open(self) -> None:
        container = self._container
        record = Open(
            container=container.id,
            boot_ns=container.boot_ns,
            opened_ns=self._clock.now_ns(),
            platform=container.platform,
            provisioned=tuple(each.provisioned for each in self._meter.tariffs),
            price_book_sha256=self._book.sha256,
            software=SOFTWARE,
            basis=Basis(container.platform_from, container.size_from, self._meter.unpriced),
            resource=container.resource or msgspec.UNSET,
        )
        self._outbox.add(Parcel("price book", layout.price_book(self._book.sha256), self._book.data))
        key = layout.container_open(container.id, container.boot_ns)
        self._outbox.add(Parcel("open record", key, codec.encode(record)))

    async def _keep_time(self) -> None:
        """Closes the interval when it is due, and passes on those that the meter closed at the end of an hour."""
        while True:
            now_ns, due_ns = self._clock.now_ns(), self._due_ns()
            if now_ns >= due_ns:
                self._meter.close_interval(min(now_ns, self._meter.next_boundary_ns))
            if self._meter.closed:
                self._closed.set()
            if now_ns < due_ns:
                await self._sleep((due_ns - now_ns) / 1e9)

    def _due_ns(self) -> int:
        """With a full outbox only the end of the hour: then an outage of any length costs one small segment an hour."""
        if self._outbox.is_full:
            return self._meter.next_boundary_ns
        timer_ns = self._meter.from_ns + round(self._options.flush_interval_s * 1e9)
        if self._options.detail == "minute":
            timer_ns = (self._meter.from_ns // MINUTE_NS + 1) * MINUTE_NS
        return min(max(timer_ns, self._meter.closable_ns), self._meter.next_boundary_ns)

    def _close_full(self) -> None:
        """Called by the meter within a request."""
        now_ns = self._clock.now_ns()
        if not self._outbox.is_full and self._meter.closable_ns <= now_ns < self._meter.next_boundary_ns:
            self._meter.close_interval(now_ns)
            self._closed.set()

    async def _keep_encoding(self) -> None:
        while True:
            await self._encode_closed()
            self._closed.clear()
            await self._closed.wait()

    async def _encode_closed(self) -> None:
        """Each interval leaves the meter only when its segment is in the outbox: cancelling in between repeats work, no more."""
        async with self._encoding:
            await self._encode_in_order()

    async def _encode_in_order(self) -> None:
        while self._meter.closed:
            interval = self._meter.closed[0]
            try:
                encoded = await asyncio.to_thread(self._segment, interval, keep_requests=not self._outbox.is_full)
            except Exception:  # a bug of ours: what does not balance is not written, and shows as a gap
                logger.exception("ledger: the interval from %d cannot be written", interval.from_ns)
                self._unbalanced_picousd += self._bill(interval)
                self._meter.closed.popleft()
                continue
            self._meter.closed.popleft()
            self._outbox.add(encoded.parcel)
            self._seq += 1
            self._last_sha256 = encoded.sha256
            self._cost_picousd += encoded.parcel.cost_picousd
            self._collapsed += encoded.collapsed
            self._meter.note_ledger(encoded.cpu_ns)
            await self._outbox.keep()
            await _forget(interval.requests)

    def _segment(self, interval: Interval, *, keep_requests: bool) -> "_Encoded":
        """In a thread: the next segment of the chain."""
        began_ns = self._clock.thread_cpu_ns()
        container, boot_ns = self._container.id, self._container.boot_ns
        statement = settle(interval, vcpu=self._meter.vcpu, memory=self._meter.memory, fee=self._meter.fee)
        kept = statement if keep_requests else msgspec.structs.replace(statement, requests=())
        body = segment.encode(
            kept,
            container=container,
            boot_ns=boot_ns,
            seq=self._seq,
            previous_sha256=self._last_sha256,
            price_book_sha256=self._book.sha256,
        )
        key = layout.segment(from_ns=interval.from_ns, container=container, boot_ns=boot_ns, seq=self._seq)
        return _Encoded(
            Parcel("segment", key, body, statement.cost_picousd),
            codec.sha256(body),
            len(statement.requests) - len(kept.requests),
            self._clock.thread_cpu_ns() - began_ns,
        )

    def _bill(self, interval: Interval) -> int:
        return self._meter.billed_picousd(interval)

    async def _finish(self, ended_ns: int) -> None:
        await self._encode_closed()
        record = Close(
            container=self._container.id,
            boot_ns=self._container.boot_ns,
            closed_ns=ended_ns,
            segments=self._seq,
            last_sha256=self._last_sha256,
            cost_picousd=self._cost_picousd,
        )
        key = layout.container_close(self._container.id, self._container.boot_ns)
        self._outbox.add(Parcel("close record", key, codec.encode(record)))
        await self._outbox.empty()


class _Encoded(msgspec.Struct, frozen=True):
    """A segment ready to go. `collapsed` requests were left out of it; `cpu_ns` is what it took."""

    parcel: Parcel
    sha256: str
    collapsed: int
    cpu_ns: int


async def _forget(requests: list[Request]) -> None:
    """Freeing 20,000 requests at once would stop the event loop for 3 ms."""
    while requests:
        del requests[-500:]
        await asyncio.sleep(0)

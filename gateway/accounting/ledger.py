"""Writes the meter's intervals into the store as a chain of segments, and never holds up or fails a request.

Closing an interval is a swap on the event loop; settling and compressing happen in a thread; the store is the outbox's business.
An interval is closed when it is old enough, holds enough requests, its hour ends, or the process does. What a killed process loses
is who used its last seconds, never what they cost: the bill up to the last segment stands, and the container's price is known.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from importlib import metadata
from types import TracebackType
from typing import Annotated, Any  # Any: a coroutine's send and yield types, which nobody uses

import msgspec
from msgspec import Meta

from gateway.accounting import segment
from gateway.accounting.clock import Clock
from gateway.accounting.container import Container
from gateway.accounting.meter import Meter
from gateway.accounting.outbox import Outbox, Parcel
from gateway.accounting.statement import Interval, settle
from gateway.contract import codec, layout
from gateway.contract.ledger import Basis, Close, Open, Request
from gateway.contract.prices import PriceBook
from gateway.contract.words import Positive
from gateway.objectstore.protocol import ObjectStore

logger = logging.getLogger(__name__)

SOFTWARE = f"steelyard {metadata.version('steelyard')}"


class LedgerOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`flush_interval_s`: what a crash may leave unattributed; a PUT every 10 s costs $1.30 a month on S3.

    `flush_rows`: a segment of 20,000 requests is 1.1 MB and 0.1 s of CPU. `pending_bytes_max`: what an outage of the store may hold
    in memory before requests are kept as sums only. `drain_s`: how long an exit waits for the store; Fargate kills after 30 s.
    """

    flush_interval_s: Annotated[float, Meta(gt=0, le=60)] = 10.0
    flush_rows: Positive = 20_000
    pending_bytes_max: Positive = 64 << 20
    put_timeout_s: Annotated[float, Meta(gt=0)] = 30.0
    drain_s: Annotated[float, Meta(ge=0)] = 10.0


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
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._container = container
        self._meter = meter
        self._book = book
        self._clock = clock
        self._options = options
        self._sleep = sleep
        self._outbox = Outbox(
            store,
            bytes_max=options.pending_bytes_max,
            put_timeout_s=options.put_timeout_s,
            sleep=sleep,
            jitter=jitter,
        )
        self._closed = asyncio.Event()
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
    def collapsed(self) -> int:
        """Requests that are in the ledger's sums only."""
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

    async def __aenter__(self) -> "LedgerWriter":
        """Does not wait for the store: the opening record is the first thing in the outbox."""
        self._open()
        self._meter.on_full(self._options.flush_rows, self._close_full)
        for work in (self._keep_time(), self._keep_encoding(), self._outbox.run()):
            task = asyncio.create_task(work)
            task.add_done_callback(_report_crash)
            self._tasks.append(task)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the last interval and write everything, within `drain_s`; what could not be written is logged with its cost."""
        ended_ns = self._meter.close_last()
        try:
            await _cancel(self._tasks)
            await self._within(self._options.drain_s, self._finish(ended_ns))
        finally:
            if self.unwritten_picousd:
                logger.error(
                    "ledger: %d pico-dollars of container %s are not in the ledger and will be reported as unattributed",
                    self.unwritten_picousd,
                    self._container.id,
                )

    def _open(self) -> None:
        container = self._container
        record = Open(
            container=container.id,
            boot_ns=container.boot_ns,
            opened_ns=self._clock.now_ns(),
            platform=container.platform,
            provisioned=(self._meter.vcpu.provisioned, self._meter.memory.provisioned),
            price_book_sha256=self._book.sha256,
            software=SOFTWARE,
            basis=Basis(container.platform_from, container.size_from, self._meter.unpriced),
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
            await _forget(interval.requests)

    def _segment(self, interval: Interval, *, keep_requests: bool) -> "_Encoded":
        """In a thread: the next segment of the chain."""
        began_ns = self._clock.thread_cpu_ns()
        container, boot_ns = self._container.id, self._container.boot_ns
        statement = settle(interval, boot_ns=boot_ns, vcpu=self._meter.vcpu, memory=self._meter.memory)
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
        boot_ns, to_ns = self._container.boot_ns, interval.to_ns
        ages = (interval.from_ns - boot_ns, to_ns - boot_ns, to_ns + interval.beyond_ns - boot_ns)
        return sum(tariff.charge(*ages).cost_picousd for tariff in (self._meter.vcpu, self._meter.memory))

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

    async def _within(self, seconds: float, work: Coroutine[Any, Any, None]) -> None:
        """Do as much of the work as the time allows."""
        task = asyncio.create_task(work)
        task.add_done_callback(_report_crash)
        deadline = asyncio.ensure_future(self._sleep(seconds))
        try:
            await asyncio.wait((task, deadline), return_when=asyncio.FIRST_COMPLETED)
        finally:
            await _cancel((task, deadline))


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


async def _cancel(tasks: Iterable[asyncio.Future[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _report_crash(task: asyncio.Task[None]) -> None:
    """Nobody awaits these tasks while the gateway serves, and their end must not end it."""
    if not task.cancelled() and (error := task.exception()):
        logger.critical("ledger: stopped by a bug; costs go unattributed until a restart", exc_info=error)

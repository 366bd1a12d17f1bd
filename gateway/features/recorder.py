"""Counts a sample of the rows that models answer into the bins of their profiles, for `steelyard drift`. Counts, never values.

In the way of an answer is only the choice of rows (`offer`); a thread counts them by the hundred, and what it costs is nobody's
receipt but overhead. Every few minutes, at the end of an hour, when a model leaves memory and when the process ends, what was
counted goes to the store as one small object per version. Nothing here can fail a request, and an outage only makes windows longer.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Protocol

import numpy as np

from gateway.contract.manifest import File, Manifest
from gateway.contract.words import HOUR_NS
from gateway.errors import ArtifactError, GatewayError
from gateway.features import profiles
from gateway.features.counting import Array, Rows
from gateway.features.options import FeatureOptions
from gateway.features.sampling import Sample
from gateway.features.shipping import Shipping
from gateway.features.window import Window
from gateway.objectstore.protocol import ObjectStore

logger = logging.getLogger(__name__)

BATCH_ROWS = 512
"""Counted at once: the numpy calls of a batch cost the same for one row and for hundreds."""
PROFILE_RETRY_S = 30.0
"""A profile that could not be read is looked for so often; rows until then are not counted."""


class Clock(Protocol):
    """`gateway.accounting.clock.Clock` is one."""

    def now_ns(self) -> int: ...


class Recorder:
    """An async context manager around serving; its counters may be read at any time. All methods run on the event loop."""

    def __init__(
        self,
        store: ObjectStore,
        clock: Clock,
        options: FeatureOptions,
        *,
        container: str,
        boot_ns: int,
        seed: int | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.rows_sampled = 0
        self._rows_dropped = 0
        self._store = store
        self._clock = clock
        self._options = options
        self._container = container
        self._boot_ns = boot_ns
        self._sleep = sleep
        self._sample = Sample(options.sample, seed)
        self._shipping = Shipping(store, put_timeout_s=options.put_timeout_s, sleep=sleep, jitter=jitter)
        self._windows: dict[tuple[str, int], Window] = {}
        self._reading: dict[tuple[str, int], asyncio.Task[None]] = {}
        self._closed: list[Window] = []
        self._queue: list[tuple[Window, Rows]] = []
        self._queued_rows = self._queued_bytes = 0
        self._cut_ns = clock.now_ns()
        self._wake = asyncio.Event()
        self._is_ended = False
        self._seq = 0
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def rows_dropped(self) -> int:
        """Rows of the sample that are in no window, because counting or the store was behind."""
        return self._rows_dropped + self._shipping.rows_lost

    @property
    def profiles(self) -> int:
        """Versions whose rows are counted."""
        return len(self._windows)

    @property
    def windows_written(self) -> int:
        return self._shipping.written

    @property
    def failures(self) -> int:
        """Attempts to write that must be repeated."""
        return self._shipping.failures

    def loaded(self, name: str, version: int, manifest: Manifest) -> None:
        """Count this version's rows as soon as its profile is read, if it has one."""
        file = profiles.profile_file(manifest)
        if file is not None:
            key = (name, version)
            self._reading[key] = asyncio.create_task(self._begin(key, manifest, file))

    def unloaded(self, name: str, version: int) -> None:
        """This version answers nobody any more: what was counted goes to the store."""
        if (task := self._reading.pop((name, version), None)) is not None:
            task.cancel()
        if (window := self._windows.pop((name, version), None)) is not None:
            self._close(window)
            self._wake.set()

    def offer(
        self,
        name: str,
        version: int,
        inputs: Mapping[str, Array],
        outputs: Mapping[str, Array],
        rows: int,
        body_bytes: int,
    ) -> None:
        """A request that was just answered. `body_bytes` is what its inputs may keep in memory."""
        window = self._windows.get((name, version))
        if window is None:
            return
        window.rows_seen += rows
        if rows <= self._sample.until_next:
            self._sample.until_next -= rows
            return
        try:
            self._take(window, inputs, outputs, rows, body_bytes)
        except Exception:  # a bug of ours, or tensors that are not as their signature says: the answer is not to suffer
            logger.exception("features: rows of %s@%d could not be chosen", name, version)
            self._drop(window, rows)

    def _take(
        self, window: Window, inputs: Mapping[str, Array], outputs: Mapping[str, Array], rows: int, body_bytes: int
    ) -> None:
        """Queue the chosen rows. Where that is all of them, references do: nothing writes into tensors once they are decoded.

        Of a request with others too they are copied, for what is kept until it is counted is memory that the next request has to
        do without: keeping 160 requests of 64 rows instead took 25 us of CPU more for each, through colder caches.
        """
        options, expected = self._options, self._sample.expected(rows)
        room = options.queue_rows_max - self._queued_rows
        if expected > 2 * room + 8:
            self._drop(window, max(1, round(expected)))
            return
        picks = self._sample.picks(rows)
        count = len(picks)
        kept_bytes = body_bytes * count // rows
        if count > room or self._queued_bytes + kept_bytes > options.queue_bytes_max:
            self._drop(window, count)
            return
        plan = window.plan
        arrays = (*[inputs[tensor] for tensor in plan.inputs], *[outputs[tensor] for tensor in plan.outputs])
        if count < rows:
            places = np.array(picks)
            arrays = tuple([array.take(places, 0) for array in arrays])
        self._queue.append((window, Rows(arrays, count)))
        self._queued_rows += count
        self._queued_bytes += kept_bytes
        if self._queued_rows >= BATCH_ROWS or self._queued_bytes * 4 >= options.queue_bytes_max:
            self._wake.set()

    def _drop(self, window: Window, rows: int) -> None:
        window.rows_dropped += rows
        self._rows_dropped += rows
        self._wake.set()

    async def __aenter__(self) -> "Recorder":
        for work in (self._keep_time(), self._keep_counting(), self._shipping.run()):
            task = asyncio.create_task(work)
            task.add_done_callback(_report_crash)
            self._tasks.append(task)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Count and write everything, within `drain_s`."""
        timing, counting, shipping = self._tasks
        await _cancel(timing, *self._reading.values())
        for key in list(self._windows):
            self.unloaded(*key)
        self._is_ended = True
        self._wake.set()
        await asyncio.wait((counting,))
        await _cancel(shipping)
        last = asyncio.create_task(self._shipping.empty())
        await asyncio.wait((last,), timeout=self._options.drain_s)
        await _cancel(last)
        if self._shipping.pending_rows:
            logger.warning(
                "features: %d counted rows did not reach the store before the end", self._shipping.pending_rows
            )

    async def _begin(self, key: tuple[str, int], manifest: Manifest, file: File) -> None:
        """Statistics never stand in a model's way: a profile that is no good is reported, and its rows are not counted."""
        name, version = key
        while True:
            try:
                plan = await profiles.read(self._store, manifest, file)
                break
            except ArtifactError as error:
                logger.warning("features: rows of %s@%d are not counted: %s", name, version, error)
                return
            except GatewayError as error:
                logger.warning("features: the profile of %s@%d cannot be read yet: %s", name, version, error)
                await self._sleep(PROFILE_RETRY_S)
        self._windows[key] = Window(name, version, plan, file.sha256, self._clock.now_ns())
        del self._reading[key]

    async def _keep_time(self) -> None:
        """Ends windows when they are due."""
        while True:
            now_ns, due_ns = self._clock.now_ns(), self._due_ns()
            if now_ns < due_ns:
                await self._sleep((due_ns - now_ns) / 1e9)
            else:
                self._cut(now_ns)

    def _due_ns(self) -> int:
        """While the store takes no writes only the end of the hour."""
        hour_ns = (self._cut_ns // HOUR_NS + 1) * HOUR_NS
        if self._shipping.is_behind:
            return hour_ns
        return min(self._cut_ns + round(self._options.flush_interval_s * 1e9), hour_ns)

    def _cut(self, now_ns: int) -> None:
        self._cut_ns = now_ns
        for key, window in self._windows.items():
            if window.rows_seen:
                self._close(window)
                self._windows[key] = window.next(now_ns)
            else:
                window.from_ns = now_ns
        self._wake.set()

    def _close(self, window: Window) -> None:
        """It is complete once the queue of this moment is counted."""
        if window.rows_seen:
            window.to_ns = self._clock.now_ns()
            self._closed.append(window)

    async def _keep_counting(self) -> None:
        """Until the end, when everything that was queued is counted."""
        while not self._is_ended or self._queue or self._closed:
            await self._wake.wait()
            self._wake.clear()
            await self._count()
            if self._is_ended:
                self._wake.set()

    async def _count(self) -> None:
        queue, self._queue = self._queue, []
        closed, self._closed = self._closed, []
        rows_before, bytes_before = self._queued_rows, self._queued_bytes
        by_window: dict[Window, list[Rows]] = {}
        for window, rows in queue:
            by_window.setdefault(window, []).append(rows)
        for window, parts in by_window.items():
            try:
                self.rows_sampled += await asyncio.to_thread(window.count, parts)
            except Exception:  # a bug of ours, or tensors that are not as their signature says: serving goes on
                logger.exception("features: rows of %s@%d could not be counted", window.model, window.version)
                self._drop(window, sum(each.rows for each in parts))
        self._queued_rows -= rows_before
        self._queued_bytes -= bytes_before
        for window in closed:
            parcel = await asyncio.to_thread(
                window.parcel,
                container=self._container,
                boot_ns=self._boot_ns,
                seq=self._seq,
                sample=self._options.sample,
            )
            self._seq += 1
            self._shipping.add(parcel)


async def _cancel(*tasks: "asyncio.Task[None]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _report_crash(task: "asyncio.Task[None]") -> None:
    """Nobody awaits these tasks while the gateway serves, and their end must not end it."""
    if not task.cancelled() and (error := task.exception()):
        logger.critical("features: stopped by a bug; nothing is counted until a restart", exc_info=error)

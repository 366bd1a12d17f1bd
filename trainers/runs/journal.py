"""An attempt's metrics and log lines on their way to the store: gathered from any thread, written as append-only segments.

By time or size, whichever comes first. A store that does not answer costs lines, the oldest first, and says how many; it never
costs training anything. `commands` reads what this writes.
"""

import asyncio
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable

import msgspec

from gateway.contract import layout
from gateway.contract.runs import MetricLine
from gateway.errors import PreconditionFailed
from gateway.objectstore.protocol import ObjectStore
from gateway.wording import moment
from trainers.runs import beside

FLUSH_S = 15.0
"""What `steelyard runs logs --follow` is behind; on S3 a day of it costs six cents."""

FLUSH_BYTES = 256 * 1024
PENDING_BYTES_MAX = 4 * 1024 * 1024
"""For each of the two while the store is away: an hour of chatter."""

LINE_LENGTH_MAX = 8192
LAST_FLUSH_S_MAX = 10.0
"""A process that ends has a grace period for more important things."""

POLL_S = 0.5

log = logging.getLogger(__name__)
_encoder = msgspec.json.Encoder()


class Segments:
    """Lines of one kind, and the segments they become. `add` is safe from any thread, the rest is for the event loop."""

    def __init__(self, store: ObjectStore, key: Callable[[int], str], mark: Callable[[int], bytes]) -> None:
        """`key` names the n-th segment; `mark` is the line that says how many were dropped."""
        self._store, self._key, self._mark = store, key, mark
        self._lines: deque[bytes] = deque()
        self._lock = threading.Lock()
        self._seq = 0
        self._dropped = 0
        self._unsure = b""  # a segment that may or may not be there: it is tried as it is until that is known
        self.pending_bytes = 0

    def add(self, line: bytes) -> None:
        """One line without its end; the oldest make room."""
        with self._lock:
            self._lines.append(line + b"\n")
            self.pending_bytes += len(line) + 1
            while self.pending_bytes > PENDING_BYTES_MAX and len(self._lines) > 1:
                self.pending_bytes -= len(self._lines.popleft())
                self._dropped += 1

    async def flush(self) -> None:
        """Write all there is; what failed the last time first. Raises store errors, and the lines wait."""
        while self._unsure or self.pending_bytes:
            self._unsure = self._unsure or self._taken()
            await self._write(self._unsure)
            self._unsure = b""

    async def _write(self, body: bytes) -> None:
        """A segment that is there already is ours, from an answer that got lost, or not ours: then the next number is free."""
        while True:
            key = self._key(self._seq)
            try:
                await self._store.put_if_absent(key, body)
            except PreconditionFailed:
                if (await self._store.get(key)).body != body:
                    self._seq += 1
                    continue
            self._seq += 1
            return

    def _taken(self) -> bytes:
        with self._lock:
            lines = [self._mark(self._dropped) + b"\n"] * bool(self._dropped) + list(self._lines)
            self._lines.clear()
            self.pending_bytes = self._dropped = 0
        return b"".join(lines)


class Journal:
    """`async with Journal(store, run_id, attempt) as journal`: flushes in the background, and at the end."""

    def __init__(
        self,
        store: ObjectStore,
        run_id: str,
        attempt: int,
        *,
        flush_s: float = FLUSH_S,
        flush_bytes: int = FLUSH_BYTES,
        now_ns: Callable[[], int] = time.time_ns,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._flush_s, self._flush_bytes = flush_s, flush_bytes
        self._now_ns, self._sleep = now_ns, sleep
        self._metrics = Segments(store, lambda seq: layout.metrics_segment(run_id, attempt, seq), self._dropped_metrics)
        self._logs = Segments(store, lambda seq: layout.logs_segment(run_id, attempt, seq), self._dropped_logs)
        self._is_unheard = False
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "Journal":
        self._task = asyncio.create_task(self._go_on())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        await beside.ended(self._task, self.flush, within_s=LAST_FLUSH_S_MAX)

    def metrics(self, step: int, **values: float | None) -> None:
        """Numbers at a step, by name; what is not finite is stored as null."""
        finite = {name: value if value is not None and math.isfinite(value) else None for name, value in values.items()}
        self._metrics.add(_encoder.encode(MetricLine(at_ns=self._now_ns(), step=step, values=finite)))

    def log(self, text: str) -> None:
        """One or more lines, each with the time before it."""
        for line in text.splitlines() or [""]:
            self._logs.add(f"{moment(self._now_ns())} {line[:LINE_LENGTH_MAX]}".encode(errors="replace"))

    async def flush(self) -> None:
        """Never raises: a failure is logged, once until it works again, and the lines wait."""
        for segments in (self._metrics, self._logs):
            try:
                await segments.flush()
            except Exception as error:  # whatever it is: no line is worth a training run
                if not self._is_unheard:
                    log.warning("metrics and logs cannot be written and wait: %s", error)
                self._is_unheard = True
                return
        self._is_unheard = False

    async def _go_on(self) -> None:
        waited_s = 0.0
        while True:
            await self._sleep(POLL_S)
            waited_s += POLL_S
            is_full = max(self._metrics.pending_bytes, self._logs.pending_bytes) >= self._flush_bytes
            if waited_s >= self._flush_s or (is_full and not self._is_unheard):
                waited_s = 0.0
                await self.flush()

    def _dropped_metrics(self, count: int) -> bytes:
        return _encoder.encode(MetricLine(at_ns=self._now_ns(), step=0, values={"lines_dropped": count}))

    def _dropped_logs(self, count: int) -> bytes:
        return f"{moment(self._now_ns())} {count} lines before this one were dropped: the store did not answer".encode()


class LogHandler(logging.Handler):
    """Python's log records into a journal."""

    def __init__(self, journal: Journal) -> None:
        super().__init__()
        self._journal = journal
        self.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        self._journal.log(self.format(record))

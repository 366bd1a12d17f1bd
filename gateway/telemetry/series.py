"""What one model version has done: histograms, sums by batch size, and the protocol's statistics read from them.

Written by `gateway.telemetry.measures` alone, in the event loop's thread; nothing in here reads a clock.
"""

from collections.abc import Mapping
from typing import get_args

import msgspec

from gateway.contract.ledger import Outcome
from gateway.telemetry.histogram import ROW_BOUNDS, Histogram

BATCH_SIZES_MAX = 256
"""Sizes of batches that a version's statistics list one by one: most graphs take at most 128 rows. Other sizes are summed."""

_FRACTION_BITS = 64
"""Runs of unlisted sizes are summed in 2^-64 of a run, rounded down: 2^32 requests are off by at most 2^-32 of a run."""

OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)


class Span(msgspec.Struct, frozen=True):
    """How often, and how many nanoseconds altogether."""

    count: int = 0
    ns: int = 0


class BatchMeasures(msgspec.Struct, frozen=True):
    """Runs of one batch size: a run counts once, however many requests shared it, and takes its requests' decoding together."""

    decode: Span
    run: Span
    encode: Span


class VersionMeasures(msgspec.Struct, frozen=True):
    """The protocol's statistics of one version. The steps and rows are those of answered (`success`) requests.

    `executions` counts runs; `batches` is by rows per run. `last_ns` is when the last request ended, in Unix time; 0 for never.
    """

    success: Span = Span()
    fail: Span = Span()
    queue: Span = Span()
    decode: Span = Span()
    run: Span = Span()
    encode: Span = Span()
    rows: int = 0
    executions: int = 0
    batches: Mapping[int, BatchMeasures] = {}
    last_ns: int = 0


class VersionSeries:
    """What one version has done. Written by `Measures` alone; `ended_ns` is on `perf_counter_ns`'s clock."""

    __slots__ = (
        "batches", "cost_picousd", "cpu_ns", "decode", "encode", "ended_ns", "failed_ns", "name", "outcomes", "queue",
        "request_bytes", "response_bytes", "run", "total", "unlisted", "unlisted_runs", "version",
    )  # fmt: skip

    def __init__(self, name: str, version: int) -> None:
        self.name = name
        self.version = version
        self.outcomes: dict[str, int] = dict.fromkeys(OUTCOMES, 0)
        self.total, self.decode, self.queue, self.run, self.encode = (Histogram() for _ in range(5))
        self.batches: dict[int, BatchTotals] = {}
        self.unlisted = BatchTotals()
        self.unlisted_runs = 0
        self.cost_picousd = self.cpu_ns = self.request_bytes = self.response_bytes = self.failed_ns = self.ended_ns = 0

    def begin_batch(self, rows: int, batch_rows: int) -> "BatchTotals":
        """Where to count `rows` that ran in a batch of a size without an entry: a new one, or what is not listed by size."""
        if len(self.batches) < BATCH_SIZES_MAX and batch_rows > 0:
            totals = self.batches[batch_rows] = BatchTotals()
            return totals
        self.unlisted_runs += (rows << _FRACTION_BITS) // max(1, batch_rows)
        return self.unlisted

    @property
    def executions(self) -> int:
        """Runs: each request is rows / batch_rows of one, and those of a batch add up to 1. A run half counted is not there yet."""
        listed = sum(batch.rows // batch_rows for batch_rows, batch in self.batches.items())
        return listed + self._unlisted_whole

    @property
    def _unlisted_whole(self) -> int:
        """2^-32 of a run makes up for what was rounded down."""
        return (self.unlisted_runs + (1 << 32)) >> _FRACTION_BITS

    def batch_rows(self) -> Histogram:
        """Runs by their rows."""
        histogram = Histogram(ROW_BOUNDS)
        for batch_rows, batch in self.batches.items():
            histogram.add_many(batch_rows, batch.rows // batch_rows)
        if runs := self._unlisted_whole:
            histogram.add_many(self.unlisted.rows // runs, runs)
        return histogram

    def snapshot(self, epoch_ns: int) -> VersionMeasures:
        """As the protocol shows it."""
        answered = self.outcomes["ok"]
        return VersionMeasures(
            success=Span(answered, self.total.total),
            fail=Span(sum(self.outcomes.values()) - answered, self.failed_ns),
            queue=Span(answered, self.queue.total),
            decode=Span(answered, self.decode.total),
            run=Span(answered, self.run.total),
            encode=Span(answered, self.encode.total),
            rows=sum(batch.rows for batch in (*self.batches.values(), self.unlisted)),
            executions=self.executions,
            batches={batch_rows: batch.measures(batch_rows) for batch_rows, batch in sorted(self.batches.items())},
            last_ns=epoch_ns + self.ended_ns if self.ended_ns else 0,
        )

    def merge(self, other: "VersionSeries") -> None:
        """Count what another version has counted."""
        for outcome, count in other.outcomes.items():
            self.outcomes[outcome] += count
        for mine, theirs in (
            (self.total, other.total), (self.decode, other.decode), (self.queue, other.queue), (self.run, other.run),
            (self.encode, other.encode),
        ):  # fmt: skip
            mine.merge(theirs)
        for batch_rows, batch in other.batches.items():
            (self.batches.get(batch_rows) or self.begin_batch(batch.rows, batch_rows)).merge(batch)
        self.unlisted.merge(other.unlisted)
        self.unlisted_runs += other.unlisted_runs
        self.cost_picousd += other.cost_picousd
        self.cpu_ns += other.cpu_ns
        self.request_bytes += other.request_bytes
        self.response_bytes += other.response_bytes
        self.failed_ns += other.failed_ns
        self.ended_ns = max(self.ended_ns, other.ended_ns)


class BatchTotals:
    """Sums over requests whose runs had one size. `run_row_ns` is each run's time weighed with the request's rows."""

    __slots__ = ("decode_ns", "encode_ns", "rows", "run_row_ns")

    def __init__(self) -> None:
        self.rows = self.decode_ns = self.run_row_ns = self.encode_ns = 0

    def measures(self, batch_rows: int) -> BatchMeasures:
        """Divided by the size only here, so that nothing is lost to rounding."""
        runs = self.rows // batch_rows
        return BatchMeasures(
            Span(runs, self.decode_ns), Span(runs, self.run_row_ns // batch_rows), Span(runs, self.encode_ns)
        )

    def merge(self, other: "BatchTotals") -> None:
        self.rows += other.rows
        self.decode_ns += other.decode_ns
        self.run_row_ns += other.run_row_ns
        self.encode_ns += other.encode_ns

"""Adapters: each reads the figures of one part of the gateway for `/metrics`, through the few attributes it names.

The parts do not know that they are watched, and this room does not know how they work.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol

from gateway.telemetry import definitions as d
from gateway.telemetry.exposition import Sample, Source
from gateway.telemetry.measures import Measures


def measures(figures: Measures) -> Source:
    """Requests by version, tenants, refusals."""

    def read() -> Iterator[Sample]:
        for series in figures.series():
            labels = (series.name, str(series.version))
            for outcome, count in series.outcomes.items():
                yield d.REQUESTS, (*labels, outcome), count
            yield d.REQUEST_SECONDS, labels, series.total
            yield d.DECODE_SECONDS, labels, series.decode
            yield d.QUEUE_SECONDS, labels, series.queue
            yield d.RUN_SECONDS, labels, series.run
            yield d.ENCODE_SECONDS, labels, series.encode
            yield d.BATCH_ROWS, labels, series.batch_rows()
            yield d.CPU_SECONDS, labels, series.cpu_ns
            yield d.COST_PICODOLLARS, labels, series.cost_picousd
            yield d.COST_DOLLARS, labels, series.cost_picousd
            yield d.BODY_IN_BYTES, labels, series.request_bytes
            yield d.BODY_OUT_BYTES, labels, series.response_bytes
        for tenant, totals in list(figures.tenants.items()):
            yield d.TENANT_REQUESTS, (tenant,), totals.requests
            yield d.TENANT_COST_PICODOLLARS, (tenant,), totals.cost_picousd
        for reason, count in figures.refusals.items():
            yield d.REFUSALS, (reason,), count

    return read


class LedgerCounters(Protocol):
    """`gateway.accounting.ledger.LedgerWriter` has them."""

    @property
    def segments_written(self) -> int: ...
    @property
    def pending_bytes(self) -> int: ...
    @property
    def spilled_bytes(self) -> int: ...
    @property
    def spill_failures(self) -> int: ...
    @property
    def recovered(self) -> int: ...
    @property
    def set_aside(self) -> int: ...
    @property
    def failures(self) -> int: ...
    @property
    def conflicts(self) -> int: ...
    @property
    def collapsed(self) -> int: ...
    @property
    def capped(self) -> int: ...
    @property
    def skewed(self) -> int: ...
    @property
    def unpriced(self) -> int: ...
    @property
    def unwritten_picousd(self) -> int: ...


def ledger(writer: LedgerCounters) -> Source:
    """Whether the bill reaches the store."""

    def read() -> Iterator[Sample]:
        yield d.LEDGER_SEGMENTS, (), writer.segments_written
        yield d.LEDGER_PENDING_BYTES, (), writer.pending_bytes
        yield d.LEDGER_SPILLED_BYTES, (), writer.spilled_bytes
        yield d.LEDGER_SPILL_FAILURES, (), writer.spill_failures
        yield d.LEDGER_RECOVERED, (), writer.recovered
        yield d.LEDGER_SET_ASIDE, (), writer.set_aside
        yield d.LEDGER_FAILURES, (), writer.failures
        yield d.LEDGER_CONFLICTS, (), writer.conflicts
        yield d.LEDGER_COLLAPSED, (), writer.collapsed
        yield d.LEDGER_CAPPED, (), writer.capped
        yield d.LEDGER_SKEWED, (), writer.skewed
        yield d.LEDGER_UNPRICED, (), writer.unpriced
        yield d.LEDGER_UNWRITTEN, (), writer.unwritten_picousd

    return read


def store(counts: Mapping[tuple[str, str], int]) -> Source:
    """What the object store was asked, by operation and outcome."""

    def read() -> Iterator[Sample]:
        for labels, count in list(counts.items()):
            yield d.STORE_ATTEMPTS, labels, count

    return read


class FeatureCounters(Protocol):
    """`gateway.features.recorder.Recorder` has them."""

    @property
    def profiles(self) -> int: ...
    @property
    def rows_sampled(self) -> int: ...
    @property
    def rows_dropped(self) -> int: ...
    @property
    def windows_written(self) -> int: ...
    @property
    def failures(self) -> int: ...


def features(recorder: FeatureCounters) -> Source:
    """Whether rows are counted for drift, and reach the store."""

    def read() -> Iterator[Sample]:
        yield d.FEATURE_PROFILES, (), recorder.profiles
        yield d.FEATURE_ROWS, ("counted",), recorder.rows_sampled
        yield d.FEATURE_ROWS, ("dropped",), recorder.rows_dropped
        yield d.FEATURE_WINDOWS, (), recorder.windows_written
        yield d.FEATURE_FAILURES, (), recorder.failures

    return read


class Residents(Protocol):
    """`gateway.repository.residents.Repository` has it: what is in memory, each with the last problem of its alias."""

    def residents(self) -> Iterable[tuple[Any, str]]: ...  # Any: a Resident of whatever model


def residency(repository: Residents) -> Source:
    """What is in memory, and which names could not follow their alias."""

    def read() -> Iterator[Sample]:
        count = 0
        problems: set[str] = set()
        for resident, problem in repository.residents():
            count += 1
            labels = (resident.name, str(resident.version), resident.variant.id)
            yield d.RESIDENT_BYTES, labels, resident.model.resident_bytes
            if problem:
                problems.add(resident.name)
        yield d.RESIDENT_VERSIONS, (), count
        for name in sorted(problems):
            yield d.RELEASE_PROBLEM, (name,), 1

    return read


class LoadCounts(Protocol):
    """`gateway.repository.memory.MemoryCounts` has them."""

    @property
    def loads(self) -> int: ...
    @property
    def failed_loads(self) -> int: ...
    @property
    def evictions(self) -> int: ...
    @property
    def unchecked(self) -> int: ...


class Comparison(Protocol):
    """`gateway.repository.shadows.Comparison` has them; `requests` were run by both."""

    @property
    def requests(self) -> int: ...
    @property
    def disagreed(self) -> int: ...
    @property
    def failures(self) -> int: ...
    @property
    def dropped(self) -> int: ...
    @property
    def primary_run_ns(self) -> int: ...
    @property
    def shadow_run_ns(self) -> int: ...
    @property
    def shadow_cpu_ns(self) -> int: ...


class Alias(Protocol):
    """`gateway.repository.serving.ServingState` has them."""

    @property
    def name(self) -> str: ...
    @property
    def alias(self) -> str: ...
    @property
    def version(self) -> int: ...
    @property
    def shadow_version(self) -> int | None: ...
    @property
    def comparison(self) -> Comparison | None: ...


def memory(counts: Callable[[], LoadCounts], bytes_and_limit: Callable[[], tuple[int, int]]) -> Source:
    """Loads and evictions since the process began, and how full the memory for models is."""

    def read() -> Iterator[Sample]:
        now = counts()
        yield d.LOADS, (), now.loads
        yield d.LOAD_FAILURES, (), now.failed_loads
        yield d.EVICTIONS, (), now.evictions
        yield d.UNCHECKED_LOADS, (), now.unchecked
        held_bytes, limit_bytes = bytes_and_limit()
        yield d.MODELS_BYTES, (), held_bytes
        yield d.MODELS_LIMIT_BYTES, (), limit_bytes

    return read


def aliases(followed: Callable[[], Iterable[Alias]]) -> Source:
    """Who answers for which name, and what shadows have shown."""

    def read() -> Iterator[Sample]:
        for alias in followed():
            yield d.ALIAS_VERSION, (alias.name, alias.alias), alias.version
            if alias.shadow_version is not None and (seen := alias.comparison) is not None:
                labels = (alias.name, alias.alias, str(alias.shadow_version))
                results = {
                    "same": seen.requests - seen.disagreed,
                    "different": seen.disagreed,
                    "failed": seen.failures,
                    "dropped": seen.dropped,
                }
                for result, count in results.items():
                    yield d.SHADOW_REQUESTS, (*labels, result), count
                yield d.SHADOW_CPU_SECONDS, labels, seen.shadow_cpu_ns
                yield d.SHADOW_RUN_SECONDS, labels, seen.shadow_run_ns
                yield d.SHADOWED_RUN_SECONDS, labels, seen.primary_run_ns

    return read


class InFlight(Protocol):
    """`gateway.runtime.admission.Admission` has them."""

    @property
    def requests(self) -> int: ...
    @property
    def body_bytes(self) -> int: ...


def in_flight(admission: InFlight) -> Source:
    """What is inside right now."""

    def read() -> Iterator[Sample]:
        yield d.IN_FLIGHT_REQUESTS, (), admission.requests
        yield d.IN_FLIGHT_BYTES, (), admission.body_bytes

    return read


class ProcessFigures(Protocol):
    """`gateway.accounting.clock.Clock` has them."""

    @property
    def started_ns(self) -> int: ...
    def cpu_ns(self) -> int: ...
    def rss_bytes(self) -> int: ...


def process(clock: ProcessFigures, version: str, is_ready: Callable[[], bool]) -> Source:
    """The process as the operating system sees it."""

    def read() -> Iterator[Sample]:
        yield d.READY, (), int(is_ready())
        yield d.PROCESS_CPU_SECONDS, (), clock.cpu_ns()
        yield d.PROCESS_RESIDENT_BYTES, (), clock.rss_bytes()
        yield d.PROCESS_STARTED_SECONDS, (), clock.started_ns
        yield d.BUILD, (version,), 1

    return read


def counters(read_them: Callable[[], Mapping[d.Metric, int]]) -> Source:
    """Figures without labels that some part keeps as plain integers: evictions, poll failures, open connections."""

    def read() -> Iterator[Sample]:
        for metric, value in read_them().items():
            yield metric, (), value

    return read

"""Counts every prediction call by the version that answered: the figures behind `/metrics` and the protocol's statistics.

`Measures` is an `Observer` of the data plane, so `observe` is on the hot path: plain integers, no locks, no label look-ups; the
event loop's thread only. What the figures look like outside is `gateway.telemetry.exposition` and the statistics route.
"""

import time

import msgspec

from gateway.accounting.usage import Usage
from gateway.calls import Call
from gateway.contract.ledger import Outcome
from gateway.contract.words import Count, Positive
from gateway.repository.residents import Resident
from gateway.runtime.model import LoadedModel
from gateway.telemetry.reasons import INTERNAL, REASONS
from gateway.telemetry.series import VersionMeasures, VersionSeries

OTHER = "_other"
"""Stands for what had to make room; no model and no tenant can have this name."""


class TelemetryOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`versions_max`: versions that have figures of their own, about 4 KB each; the longest silent one joins `_other`.

    `tenants_max`: tenants with figures of their own in `/metrics`; 0 shows none. `objective_ms`: the wait for a worker that counts
    as saturated. `window_s`: what the saturation gauge looks back on; autoscalers ask every 15 to 60 s.
    """

    versions_max: Positive = 1000
    tenants_max: Count = 0
    objective_ms: Positive = 100
    window_s: Positive = 10


class Measures:
    """One process's figures. `waited_ns` and `answered` grow with every answered request, of all versions."""

    def __init__(self, options: TelemetryOptions = TelemetryOptions()) -> None:  # noqa: B008 - frozen
        self._options = options
        self._epoch_ns = time.time_ns() - time.perf_counter_ns()
        self._series: dict[tuple[str, int], VersionSeries] = {}
        self.refusals: dict[str, int] = dict.fromkeys(REASONS, 0)
        self.tenants: dict[str, TenantTotals] = {}
        self.waited_ns = 0
        self.answered = 0

    def observe(
        self, call: Call, resident: Resident[LoadedModel], usage: Usage, outcome: Outcome, cost_picousd: int
    ) -> None:
        """Count one call; called once for each, after it was charged."""
        series = self._series.get((resident.name, resident.version))
        if series is None:
            series = self._begin(resident.name, resident.version)
        series.outcomes[outcome] += 1
        series.cost_picousd += cost_picousd
        series.cpu_ns += usage.cpu_ns
        series.request_bytes += usage.request_bytes
        series.ended_ns = call.arrived_ns + usage.total_ns
        if outcome == "ok":
            queue_ns, rows, batch_rows = usage.queue_ns, usage.rows, usage.batch_rows
            series.total.add(usage.total_ns)
            series.decode.add(usage.decode_ns)
            series.queue.add(queue_ns)
            series.run.add(usage.run_ns)
            series.encode.add(usage.encode_ns)
            series.response_bytes += usage.response_bytes
            batch = series.batches.get(batch_rows)
            if batch is None:
                batch = series.begin_batch(rows, batch_rows)
            batch.rows += rows
            batch.decode_ns += usage.decode_ns
            batch.run_row_ns += usage.run_ns * rows
            batch.encode_ns += usage.encode_ns
            self.waited_ns += queue_ns
            self.answered += 1
        else:
            series.failed_ns += usage.total_ns
        if self._options.tenants_max and (tenant := call.caller.tenant):
            self._count_tenant(tenant, cost_picousd)

    def refused(self, reason: str) -> None:
        """Count an answer that is an error, by a reason of `gateway.telemetry.reasons`; any other word counts as `internal`."""
        self.refusals[reason if reason in self.refusals else INTERNAL] += 1

    def snapshot(self, name: str, version: int) -> VersionMeasures:
        """The statistics of a version; all zero when it has answered nothing."""
        series = self._series.get((name, version))
        return VersionMeasures() if series is None else series.snapshot(self._epoch_ns)

    def series(self) -> list[VersionSeries]:
        """Every version that was called; the sum of those that had to go is the version 0 of `OTHER`."""
        return [series for series in self._series.values() if series.ended_ns]

    def _begin(self, name: str, version: int) -> VersionSeries:
        """Figures for one more version; one that has to go for it joins the others, so that no sum shrinks."""
        others = self._series.setdefault((OTHER, 0), VersionSeries(OTHER, 0))
        if len(self._series) > self._options.versions_max:
            silent = min((each for each in self._series.values() if each is not others), key=lambda each: each.ended_ns)
            others.merge(self._series.pop((silent.name, silent.version)))
        series = self._series[name, version] = VersionSeries(name, version)
        return series

    def _count_tenant(self, tenant: str, cost_picousd: int) -> None:
        totals = self.tenants.get(tenant)
        if totals is None:
            if len(self.tenants) >= self._options.tenants_max:
                tenant = OTHER
            totals = self.tenants.setdefault(tenant, TenantTotals())
        totals.requests += 1
        totals.cost_picousd += cost_picousd


class TenantTotals(msgspec.Struct):
    """One tenant's calls and their direct cost."""

    requests: int = 0
    cost_picousd: int = 0

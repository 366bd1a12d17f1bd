"""`/metrics` as Prometheus reads it: prometheus_client's parsers are the judges of both formats."""

import asyncio
import re
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from gateway.accounting.usage import Usage
from gateway.runtime.admission import Admission, AdmissionOptions
from gateway.telemetry import definitions as d
from gateway.telemetry import sources
from gateway.telemetry.exposition import OPENMETRICS, TEXT, MetricsPage, Sample
from gateway.telemetry.histogram import TIME_BOUNDS_NS, Histogram
from gateway.telemetry.measures import Measures, TelemetryOptions
from tests.support.manualclock import ManualClock
from tests.unit.test_measures import observe, usage

Labels = tuple[tuple[str, str], ...]


def everything() -> Iterator[Sample]:
    """One sample of every metric there is, with label values that need escaping."""
    for number, metric in enumerate(d.METRICS, 1):
        labels = tuple(f'{label} "q\\n%d\n' for label in metric.labels)
        if metric.kind == "histogram":
            histogram = Histogram()
            histogram.add_many(3_000_000, number)
            yield metric, labels, histogram
        else:
            yield metric, labels, number


async def samples(page: MetricsPage) -> dict[tuple[str, Labels], float]:
    text, kind = await page.exposition()
    assert kind == TEXT
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


async def test_both_formats_show_every_metric_and_escape_what_labels_contain() -> None:
    page = MetricsPage([everything])
    text, _ = await page.exposition("text/plain")
    classic = {family.name: family for family in text_string_to_metric_families(text.decode())}
    text, kind = await page.exposition("application/openmetrics-text; version=1.0.0, text/plain;q=0.5")
    assert kind == OPENMETRICS
    modern = {family.name: family for family in openmetrics.text_string_to_metric_families(text.decode())}
    for number, metric in enumerate(d.METRICS, 1):
        for family in (classic[metric.name], modern[metric.name]):
            assert family.type == metric.kind
            assert family.documentation == metric.help
            [value] = {
                sample.value for sample in family.samples if sample.name in {metric.sample, f"{metric.name}_count"}
            }
            assert value == pytest.approx(number / {"seconds": 1e9, "dollars": 1e12}.get(metric.unit, 1)
                                          if metric.kind != "histogram" else number)  # fmt: skip
            for sample in family.samples:
                assert {k: v for k, v in sample.labels.items() if k != "le"} == {
                    label: f'{label} "q\\n%d\n' for label in metric.labels
                }
        assert modern[metric.name].unit == metric.unit


def test_the_table_of_metrics_keeps_the_naming_rules() -> None:
    assert len({metric.name for metric in d.METRICS}) == len(d.METRICS)
    for metric in d.METRICS:
        assert re.fullmatch(r"steelyard_[a-z_]+[a-z]", metric.name)
        assert not metric.name.endswith(("_total", "_count", "_sum", "_bucket", "_created", "_info"))
        assert metric.help.endswith(".")
        assert len(set(metric.labels)) == len(metric.labels)
        assert "le" not in metric.labels
        if metric.unit:
            assert metric.name.endswith(f"_{metric.unit}")
        else:
            assert not metric.name.endswith(("_seconds", "_bytes", "_dollars", "_ratio", "_ns", "_ms"))


async def test_a_histogram_is_cumulative_and_in_seconds() -> None:
    histogram = Histogram()
    for value in (0, TIME_BOUNDS_NS[0], TIME_BOUNDS_NS[0] + 1, 10**12):
        histogram.add(value)
    found = await samples(MetricsPage([lambda: [(d.LOOP_LAG_SECONDS, (), histogram)]]))
    name = d.LOOP_LAG_SECONDS.name
    assert found[f"{name}_bucket", (("le", "5e-05"),)] == 2
    assert found[f"{name}_bucket", (("le", "0.0001"),)] == 3
    assert found[f"{name}_bucket", (("le", "10.0"),)] == 3
    assert found[f"{name}_bucket", (("le", "+Inf"),)] == 4
    assert found[f"{name}_count", ()] == 4
    assert found[f"{name}_sum", ()] == pytest.approx(1000.0001, rel=1e-9)


async def test_what_was_observed_is_what_is_shown() -> None:
    measures = Measures(TelemetryOptions(tenants_max=5))
    observe(measures, usage(rows=3, batch_rows=4), tenant="shop", cost_picousd=9_007_199_254_740_993)
    observe(measures, usage(rows=1, batch_rows=4), tenant="shop")
    observe(measures, Usage(), outcome="timed_out")
    measures.refused("deadline")
    page = MetricsPage([sources.measures(measures)])
    found = await samples(page)
    own = (("model", "mlp"), ("version", "1"))
    assert found["steelyard_requests_total", (own[0], ("outcome", "ok"), own[1])] == 2
    assert found["steelyard_requests_total", (own[0], ("outcome", "timed_out"), own[1])] == 1
    assert found["steelyard_requests_total", (own[0], ("outcome", "cancelled"), own[1])] == 0
    assert found["steelyard_run_seconds_count", own] == 2
    assert found["steelyard_run_seconds_sum", own] == pytest.approx(2e-7)
    assert found["steelyard_batch_rows_count", own] == 1
    assert found["steelyard_batch_rows_sum", own] == 4
    assert found["steelyard_tenant_requests_total", (("tenant", "shop"),)] == 2
    assert found["steelyard_refusals_total", (("reason", "deadline"),)] == 1
    assert found["steelyard_refusals_total", (("reason", "overloaded"),)] == 0
    assert found["steelyard_body_in_bytes_total", own] == 600
    # Beyond what a float holds, the text still has every pico-dollar: two receipts of ...993 and 7, and 7 of the failed call.
    text = (await page.exposition())[0].decode()
    assert 'steelyard_cost_picodollars_total{model="mlp",version="1"} 9007199254741007\n' in text


async def test_the_parts_of_the_gateway_are_read_when_the_page_is_asked_for() -> None:
    problem = ""
    variant = SimpleNamespace(id="int8")
    resident = SimpleNamespace(name="mlp", version=3, variant=variant, model=SimpleNamespace(resident_bytes=4096))
    repository: Any = SimpleNamespace(residents=lambda: [(resident, problem)])
    writer: Any = SimpleNamespace(
        segments_written=1,
        pending_bytes=2,
        spilled_bytes=8,
        spill_failures=9,
        recovered=10,
        set_aside=11,
        failures=3,
        conflicts=0,
        collapsed=5,
        capped=6,
        skewed=12,
        unwritten_picousd=7,
        unpriced=2,
    )
    admission, clock = Admission(AdmissionOptions()), ManualClock(5 * 10**9)
    admission.enter(100)
    clock.work(10**9, cpu_ns=25 * 10**8)
    page = MetricsPage(
        [
            sources.residency(repository),
            sources.ledger(writer),
            sources.in_flight(admission),
            sources.process(clock, "1.2.3", lambda: True),
            sources.counters(lambda: {d.EVICTIONS: 11, d.CONNECTIONS: 12}),
        ]
    )
    found = await samples(page)
    version = (("model", "mlp"), ("variant", "int8"), ("version", "3"))
    assert found["steelyard_resident_bytes", version] == 4096
    assert found["steelyard_resident_versions", ()] == 1
    assert ("steelyard_release_problem", (("model", "mlp"),)) not in found
    assert [found[f"steelyard_ledger_{name}", ()] for name in (
        "segments_total", "pending_bytes", "failures_total", "conflicts_total", "collapsed_requests_total",
        "capped_receipts_total", "unwritten_picodollars", "spilled_bytes", "spill_failures_total", "recovered_segments_total",
        "set_aside_files_total", "clock_skews_total",
    )] == [1, 2, 3, 0, 5, 6, 7, 8, 9, 10, 11, 12]  # fmt: skip
    assert (found["steelyard_in_flight_requests", ()], found["steelyard_in_flight_bytes", ()]) == (1, 100)
    assert found["steelyard_process_cpu_seconds_total", ()] == 2.5
    assert found["steelyard_process_started_seconds", ()] == 5
    assert found["steelyard_build", (("version", "1.2.3"),)] == 1
    assert (found["steelyard_evictions_total", ()], found["steelyard_connections", ()]) == (11, 12)
    problem = "digest differs"
    assert (await samples(page))["steelyard_release_problem", (("model", "mlp"),)] == 1


async def test_releases_and_shadows_are_shown_as_the_repository_counts_them() -> None:
    comparison: Any = SimpleNamespace(
        requests=10,
        disagreed=3,
        failures=2,
        dropped=1,
        primary_run_ns=10**9,
        shadow_run_ns=2 * 10**9,
        shadow_cpu_ns=10**8,
    )
    champion: Any = SimpleNamespace(name="mlp", alias="champion", version=4, shadow_version=5, comparison=comparison)
    quiet: Any = SimpleNamespace(name="mlp", alias="blue", version=2, shadow_version=None, comparison=None)
    counts: Any = SimpleNamespace(loads=7, failed_loads=1, evictions=2, unchecked=3)
    page = MetricsPage(
        [sources.aliases(lambda: [champion, quiet]), sources.memory(lambda: counts, lambda: (1000, 5000))]
    )
    found = await samples(page)
    shadow = (("alias", "champion"), ("model", "mlp"))
    results = {
        result: found["steelyard_shadow_requests_total", (*shadow, ("result", result), ("version", "5"))]
        for result in ("same", "different", "failed", "dropped")
    }
    assert results == {"same": 7, "different": 3, "failed": 2, "dropped": 1}
    assert found["steelyard_shadow_cpu_seconds_total", (*shadow, ("version", "5"))] == 0.1
    assert found["steelyard_shadow_run_seconds_total", (*shadow, ("version", "5"))] == 2
    assert found["steelyard_alias_version", shadow] == 4
    assert found["steelyard_alias_version", (("alias", "blue"), ("model", "mlp"))] == 2
    assert (found["steelyard_loads_total", ()], found["steelyard_load_failures_total", ()]) == (7, 1)
    assert (found["steelyard_evictions_total", ()], found["steelyard_unchecked_loads_total", ()]) == (2, 3)
    assert (found["steelyard_models_bytes", ()], found["steelyard_models_limit_bytes", ()]) == (1000, 5000)


async def test_a_page_of_many_models_lets_others_have_the_loop_in_between() -> None:
    measures = Measures()
    for number in range(200):
        observe(measures, usage(), model=f"m{number}")
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    other = asyncio.create_task(count_turns())
    text, _ = await MetricsPage([sources.measures(measures)]).exposition()
    other.cancel()
    assert turns >= 2
    families = {family.name: family for family in text_string_to_metric_families(text.decode())}
    assert sum(sample.value for sample in families["steelyard_requests"].samples) == 200

"""Grouped costs: whatever one groups or filters by, and however shared costs move, the rows add up to the bill as integers."""

import csv
import io
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from gateway.contract.ledger import Charge, Posting
from gateway.errors import InvalidInput, ModelNotFound
from gateway.reports import amortizing, breakdown, breakdownview, costs, export, query, tables
from gateway.reports.breakdown import Breakdown
from gateway.reports.query import DIMENSIONS, VIEWS, Dimension, Query, View
from tests.support import ledgers
from tests.support.ledgers import HOUR_NS, MEMORY, T0_NS, VCPU, Ledger

seeds = st.integers(0, 2**32)
groupings = st.lists(st.sampled_from(DIMENSIONS), min_size=1, unique=True).map(tuple)
views = st.sampled_from(VIEWS)

SERVED = Posting("infer", VCPU, 600, 2_000_000, "digits", 1, "acme", "ok", 2, 4)
OTHER = Posting("infer", VCPU, 200, 1_000_000, "flights", 7, "", "ok", 1, 1)
WARM = Posting("resident", MEMORY, 100, 3, "digits", 1)
WARMER = Posting("resident", MEMORY, 100, 9, "flights", 7)
IDLE = Posting("idle_cpu", VCPU, 1000, 4_000_000)
OVERHEAD = Posting("overhead", VCPU, 500, 1_000_000)


@contextmanager
def opened(ledger: Ledger) -> Iterator[duckdb.DuckDBPyConnection]:
    with tempfile.TemporaryDirectory() as folder, tables.opened(ledgers.write(Path(folder), ledger)) as connection:
        yield connection


def reported(ledger: Ledger, **asked: object) -> Breakdown:
    chosen = Query(**asked)  # type: ignore[arg-type]
    with opened(ledger) as connection:
        return breakdown.report(breakdown.sheet(connection, chosen), chosen.by)


def segment(*postings: Posting) -> list[Charge | Posting]:
    bill = {sku: sum(posting.cost_picousd for posting in postings if posting.sku == sku) for sku in (VCPU, MEMORY)}
    return [*ledgers.charges(bill[VCPU], bill[MEMORY]), *postings]


def bill(ledger: Ledger) -> int:
    return sum(line.cost_picousd for line in ledgers.all_lines(ledger) if isinstance(line, Charge))


def total(report: Breakdown) -> int:
    return sum(row.cost_picousd for row in report.rows) + report.others_picousd


def printed(report: Breakdown) -> str:
    console = Console(width=400, file=io.StringIO(), color_system=None)
    breakdownview.show(report, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


# What adds up


@settings(max_examples=40, deadline=None)
@given(seeds, groupings, views)
def test_rows_of_any_grouping_and_view_are_exactly_the_bill(seed: int, by: tuple[Dimension, ...], view: View):
    ledger = ledgers.random_ledger(seed)
    report = reported(ledger, by=by, view=view)
    assert report.charged_picousd == bill(ledger)
    assert total(report) == bill(ledger)
    assert report.balanced
    assert report.others_picousd == 0
    for row in report.rows:
        assert row.cost_picousd == row.direct_picousd + row.shared_picousd
        assert min(row.direct_picousd, row.shared_picousd, row.idle_picousd) >= 0


@settings(max_examples=15, deadline=None)
@given(seeds, groupings, views, st.sampled_from(["digits", "flights", "=1+1"]))
def test_what_a_filter_leaves_out_stays_in_the_sum(seed: int, by: tuple[Dimension, ...], view: View, model: str):
    ledger = ledgers.random_ledger(seed)
    try:
        report = reported(ledger, by=by, view=view, model=model)
    except ModelNotFound:
        return
    assert total(report) == bill(ledger)


@settings(max_examples=15, deadline=None)
@given(seeds, views)
def test_moving_shared_costs_leaves_every_hour_and_activity_its_own_bill(seed: int, view: View):
    ledger = ledgers.random_ledger(seed)
    by: tuple[Dimension, ...] = ("hour", "activity")
    moved, as_posted = reported(ledger, by=by, view=view), reported(ledger, by=by, view="direct")
    assert {(row.hour, row.activity): row.cost_picousd for row in moved.rows if row.cost_picousd} == {
        (row.hour, row.activity): row.cost_picousd for row in as_posted.rows if row.cost_picousd
    }


@settings(max_examples=15, deadline=None)
@given(seeds)
def test_grouped_and_summary_say_the_same_of_a_model(seed: int):
    with opened(ledgers.random_ledger(seed)) as connection:
        rows = breakdown.report(breakdown.sheet(connection, Query()), ("model", "version")).rows
        summary = costs.report(connection)
    grouped = {(row.model, row.version): (row.cost_picousd, row.requests, row.rows) for row in rows if row.model}
    assert grouped == {(row.model, row.version): (row.full_picousd, row.requests, row.rows) for row in summary.models}


@settings(max_examples=15, deadline=None)
@given(seeds)
def test_coarser_rows_are_the_sums_of_finer_ones(seed: int):
    with opened(ledgers.random_ledger(seed)) as connection:
        sheet = breakdown.sheet(connection, Query())
    fine = breakdown.report(sheet, ("model", "hour", "tenant", "outcome", "activity")).rows
    for row in breakdown.report(sheet, ("model",)).rows:
        own = [part for part in fine if part.model == row.model]
        for name in (
            "requests",
            "rows",
            "cpu_ns",
            "memory_byte_ns",
            "boots",
            "loads",
            "direct_picousd",
            "cost_picousd",
        ):
            assert getattr(row, name) == sum(getattr(part, name) for part in own)


# Who pays


def test_direct_view_leaves_shared_costs_by_themselves():
    report = reported(ledgers.container("c", [segment(SERVED, WARM, IDLE)]), by=("model",), view="direct")
    assert [(row.model, row.cost_picousd, row.idle_picousd) for row in report.rows] == [
        ("", 1000, 1000),
        ("digits", 700, 0),
    ]
    assert "(shared)" in printed(report)


def test_idle_follows_memory_only_where_asked():
    ledger = ledgers.container("c", [segment(SERVED, OTHER, WARM, WARMER, IDLE, OVERHEAD)])
    full = reported(ledger, by=("model",), view="full").rows
    caused = reported(ledger, by=("model",), view="idle-to-cause").rows
    assert [(row.model, row.shared_picousd) for row in full if row.model] == [("digits", 1050), ("flights", 450)]
    assert [(row.model, row.idle_picousd) for row in caused if row.model] == [("digits", 250), ("flights", 750)]
    assert [(row.model, row.shared_picousd) for row in caused if row.model] == [("digits", 600), ("flights", 900)]


def test_hour_without_models_is_paid_by_the_periods_models_and_stays_in_its_hour():
    ledger = ledgers.container("a", [segment(IDLE)]) | ledgers.container(
        "b", [segment(SERVED)], boot_ns=T0_NS + HOUR_NS
    )
    rows = reported(ledger, by=("hour", "model")).rows
    assert [(row.hour, row.model, row.cost_picousd) for row in rows if row.cost_picousd] == [
        ("2026-11-05T12:00:00Z", "digits", 1000),
        ("2026-11-05T13:00:00Z", "digits", 600),
    ]


def test_an_hour_costs_only_the_models_that_were_there():
    ledger = ledgers.container("a", [segment(OTHER, IDLE)]) | ledgers.container(
        "b", [segment(SERVED)], boot_ns=T0_NS + HOUR_NS
    )
    rows = reported(ledger, by=("model",)).rows
    assert [(row.model, row.cost_picousd) for row in rows if row.model] == [("digits", 600), ("flights", 1200)]


def test_starts_and_loads_are_counted():
    load = Posting("load", VCPU, 50, 5_000_000, "digits", 1)
    boot = [Posting("boot", VCPU, 9, 1), Posting("boot", MEMORY, 9, 1)]
    ledger = ledgers.container("c", [segment(*boot), segment(load, SERVED), segment(load)]) | ledgers.container(
        "d", [segment(*boot)]
    )
    rows = reported(ledger, by=("activity",)).rows
    assert {row.activity: (row.boots, row.loads) for row in rows} == {"boot": (2, 0), "load": (0, 2), "infer": (0, 0)}


def test_cpu_that_was_used_is_told_apart_from_what_was_provided():
    idle, load = Posting("idle_cpu", VCPU, 50, 3_000_000), Posting("load", VCPU, 50, 7_000_000, "digits", 1)
    report = reported(ledgers.container("c", [segment(SERVED, idle, load)]), by=("activity",))
    used = {row.activity: (row.cpu_ns, row.cpu_used_ns) for row in report.rows}
    assert used["idle_cpu"] == (3000, 0)
    assert used["load"] == (7000, 7000)
    assert used["infer"] == (SERVED.quantity // 1000,) * 2
    file = export.rows_as_csv(report)
    assert sum(int(row["cpu_used_ns"]) for row in csv.DictReader(io.StringIO(file))) == 7000 + SERVED.quantity // 1000


def test_cost_of_a_thousand_counts_answered_rows_only():
    failed = Posting("infer", VCPU, 100, 1_000_000, "digits", 1, "acme", "failed", 1, 4)
    [row] = reported(ledgers.container("c", [segment(SERVED, failed)]), by=("tenant",), tenant="acme").rows
    assert (row.requests, row.not_ok, row.rows, row.per_1000_rows_picousd) == (3, 1, 4, 175_000)


# Trend


def test_trend_is_against_the_period_of_the_same_length_before():
    ledger = ledgers.container("a", [segment(SERVED)], boot_ns=T0_NS - HOUR_NS) | ledgers.container(
        "b", [segment(SERVED, SERVED, OTHER)]
    )
    ledger |= ledgers.container("old", [segment(SERVED)], boot_ns=T0_NS - 3 * HOUR_NS)
    report = reported(ledger, by=("model",), view="direct", since_ns=T0_NS, until_ns=T0_NS + HOUR_NS)
    assert report.previous_charged_picousd == 600
    assert [(row.model, row.cost_picousd, row.previous_picousd) for row in report.rows if row.model] == [
        ("digits", 1200, 600),
        ("flights", 200, 0),
    ]
    text = printed(report)
    assert "+100.0 %" in text
    assert "new" in text
    assert "+133.3 % against the period before" in text


def test_without_a_beginning_there_is_no_period_before():
    report = reported(ledgers.container("a", [segment(SERVED)]), by=("model",))
    assert report.previous_charged_picousd is None
    assert {row.previous_picousd for row in report.rows} == {None}
    assert "trend" not in printed(report)


def test_a_period_after_the_last_segment_has_no_end_and_is_not_compared():
    ledger = ledgers.container("a", [segment(SERVED)])
    report = reported(ledger, by=("model",), since_ns=T0_NS + HOUR_NS)
    assert (report.segments, report.trend, report.previous_charged_picousd) == (0, None, None)


def test_a_filtered_report_compares_whole_bills_and_its_own_rows():
    ledger = ledgers.container("a", [segment(SERVED, OTHER)], boot_ns=T0_NS - HOUR_NS) | ledgers.container(
        "b", [segment(SERVED, SERVED, OTHER)]
    )
    report = reported(ledger, by=("model",), view="direct", model="digits", since_ns=T0_NS, until_ns=T0_NS + HOUR_NS)
    assert (report.charged_picousd, report.previous_charged_picousd) == (1400, 800)
    assert [(row.compared_picousd, row.previous_picousd) for row in report.rows] == [(1200, 600)]


def test_rows_are_compared_by_whole_days_when_no_period_is_asked_for():
    ledger = {}
    for day, postings in enumerate([(SERVED,), (SERVED, SERVED), (SERVED, OTHER), (SERVED,)]):
        ledger |= ledgers.container(f"d{day}", [segment(*postings)], boot_ns=T0_NS + day * 24 * HOUR_NS)
    report = reported(ledger, by=("model",), view="direct")
    assert report.trend is not None
    assert report.trend.periods.words == "the last whole day, 2026-11-07"
    assert [(row.model, row.compared_picousd, row.previous_picousd) for row in report.rows if row.model] == [
        ("digits", 600, 1200),
        ("flights", 200, 0),
    ]
    text = printed(report)
    assert "-50.0 %" in text
    assert "new" in text
    assert {row.compared_picousd for row in reported(ledger, by=("model", "day")).rows} == {None}


# Training in portions


@given(
    st.integers(0, 2**70),
    st.lists(st.integers(0, 10**9), min_size=1, max_size=6),
    st.integers(1, 10**9),
)
def test_portions_and_the_remainder_are_the_whole_cost(cost: int, steps: list[int], whole: int):
    done, expensed = 0, 0
    for step in steps:
        expensed += amortizing.spent(cost, done + step, whole) - amortizing.spent(cost, done, whole)
        done += step
    remaining = cost - amortizing.spent(cost, done, whole)
    assert expensed + remaining == cost
    assert (remaining == 0) == (done >= whole or cost - cost * done // whole == 0)


@pytest.mark.parametrize("text", ["rows", "rows:0", "rows:-1", "days:1.5", "weeks:2", "", "days:٣", "rows:" + "9" * 99])
def test_plan_that_is_none_is_refused(text: str):
    with pytest.raises(InvalidInput, match="rows:1000000 or days:90"):
        query.plan(text)


# What is refused, empty or hostile


def test_unknown_model_and_tenant_name_those_there_are():
    ledger = ledgers.container("c", [segment(SERVED)])
    with pytest.raises(ModelNotFound, match="digits"):
        reported(ledger, model="nope")
    with pytest.raises(InvalidInput, match="acme"):
        reported(ledger, tenant="nope")


def test_names_that_are_offered_are_told_apart():
    ledger = ledgers.container("c", [segment(SERVED, msgspec.structs.replace(SERVED, tenant="ads, inc"))])
    with pytest.raises(InvalidInput, match=r"tenants that have: 'acme', 'ads, inc'$"):
        reported(ledger, tenant="nope")


def test_too_many_rows_are_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(breakdown, "ROWS_MAX", 1)
    with pytest.raises(InvalidInput, match="shorter period"):
        reported(ledgers.container("c", [segment(SERVED, OTHER)]), by=("model",))


def test_empty_period_says_so_with_its_bounds():
    report = reported({}, since_ns=T0_NS, until_ns=T0_NS + HOUR_NS)
    assert (report.rows, report.charged_picousd, report.balanced) == ((), 0, True)
    assert printed(report) == (
        "no costs yet: the ledger has no segment in this period from 2026-11-05T12:00:00Z until 2026-11-05T13:00:00Z\n"
    )


@pytest.mark.parametrize("name", ["=cmd|' /C calc'!A0", "+1", "-1", "@sum", "\tx", " =1"])
def test_no_name_of_a_model_or_tenant_is_a_formula(name: str):
    posting = msgspec.structs.replace(SERVED, model=name, tenant=name)
    text = export.rows_as_csv(reported(ledgers.container("c", [segment(posting)]), by=("model", "tenant")))
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [(row["model"], row["tenant"]) for row in rows if row["model"]] == [(f"'{name}", f"'{name}")]


@pytest.mark.parametrize("name", ["a,b", 'a"b', "a\nb", "a\r\nb", "ä;b"])
def test_separators_stay_inside_a_name(name: str):
    posting = msgspec.structs.replace(SERVED, model=name)
    report = reported(ledgers.container("c", [segment(posting)]), by=("model",))
    rows = list(csv.DictReader(io.StringIO(export.rows_as_csv(report), newline="")))
    assert name in [row["model"] for row in rows]
    assert sum(int(row["cost_picousd"]) for row in rows) == 600


# Files


@settings(max_examples=10, deadline=None)
@given(seeds, groupings)
def test_json_csv_and_parquet_carry_the_same_bill(seed: int, by: tuple[Dimension, ...]):
    ledger = ledgers.random_ledger(seed)
    report = reported(ledger, by=by)
    assert msgspec.json.decode(export.encoded(report, "json"), type=Breakdown) == report
    rows = list(csv.DictReader(io.StringIO(export.encoded(report, "csv").decode(), newline="")))
    assert sum(int(row["cost_picousd"]) for row in rows) == bill(ledger)
    with tempfile.TemporaryDirectory() as folder, duckdb.connect() as connection:
        path = Path(folder) / "costs.parquet"
        path.write_bytes(export.encoded(report, "parquet"))
        columns = {name: kind for name, kind, *_ in connection.execute(f"DESCRIBE FROM '{path}'").fetchall()}
        found = connection.execute(f"SELECT coalesce(sum(cost_picousd), 0), count(*) FROM '{path}'").fetchone()
    assert found == (bill(ledger), len(report.rows))
    assert columns["cost_picousd"] == "DECIMAL(38,0)"
    assert list(columns)[: len(by)] == list(by)


def test_filtered_file_keeps_what_others_cost():
    report = reported(ledgers.container("c", [segment(SERVED, OTHER)]), by=("version", "model"), model="digits")
    rows = list(csv.DictReader(io.StringIO(export.rows_as_csv(report))))
    assert [(row["version"], row["model"], row["cost_picousd"]) for row in rows] == [
        ("1", "digits", "600"),
        ("", "", "200"),
    ]

"""The report's arithmetic: totals are those of the ledger, the full column is the bill, and time is told as it was billed."""

import itertools
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.contract import codec, layout
from gateway.contract.ledger import Charge, Posting, Request, Segment
from gateway.errors import ModelNotFound
from gateway.reports import tables
from gateway.reports.costs import report
from tests.support import ledgers
from tests.support.costreports import FAILED, IDLE, SERVED, WARM, opened, printed, reported, segment
from tests.support.ledgers import HOUR_NS, MEMORY, T0_NS, VCPU

OWNED = {"infer", "resident", "load"}
seeds = st.integers(0, 2**32)


@settings(max_examples=20, deadline=None)
@given(seeds)
def test_totals_are_the_integer_sums_of_the_ledger(seed: int):
    ledger = ledgers.random_ledger(seed)
    lines = ledgers.all_lines(ledger)
    postings = [line for line in lines if isinstance(line, Posting)]

    result = reported(ledger)

    assert result.charged_picousd == sum(line.cost_picousd for line in lines if isinstance(line, Charge))
    assert result.posted_picousd == sum(posting.cost_picousd for posting in postings)
    assert result.charged_picousd == sum(billed.cost_picousd for billed in result.billed)
    assert result.balanced
    for row in result.models:
        own = [line for line in postings if (line.model, line.version) == (row.model, row.version)]
        for account in ("infer", "resident", "load"):
            assert getattr(row, f"{account}_picousd") == sum(p.cost_picousd for p in own if p.account == account)
        assert row.requests == sum(posting.requests for posting in own)
        assert row.not_ok == sum(posting.requests for posting in own if posting.outcome != "ok")
        assert row.rows == sum(posting.rows for posting in own if posting.outcome == "ok")
    assert {(row.model, row.version) for row in result.models} == {(p.model, p.version) for p in postings if p.model}


@settings(max_examples=20, deadline=None)
@given(seeds, st.sampled_from([None, "digits", "flights"]))
def test_full_column_is_exactly_the_bill(seed: int, model: str | None):
    ledger = ledgers.random_ledger(seed)
    try:
        result = reported(ledger, model=model)
    except ModelNotFound:
        return
    full = sum(row.full_picousd for row in result.models)
    assert full + result.other_models_picousd + result.unallocated_picousd == result.charged_picousd


@settings(max_examples=8, deadline=None)
@given(seeds, st.lists(st.integers(-HOUR_NS, 2 * HOUR_NS), min_size=1, max_size=3))
def test_periods_that_follow_each_other_add_up_to_the_whole(seed: int, cuts: list[int]):
    edges = [None, *sorted(T0_NS + cut for cut in cuts), None]
    with opened(ledgers.random_ledger(seed)) as connection:
        parts = [report(connection, since, until) for since, until in itertools.pairwise(edges)]
        whole = report(connection)
    assert sum(part.charged_picousd for part in parts) == whole.charged_picousd
    assert sum(part.segments for part in parts) == whole.segments


def test_amounts_beyond_64_bits_stay_exact():
    huge = Posting("infer", VCPU, 2**63 - 1, 2**90, "digits", 1, "", "ok", 1, 1)
    result = reported(ledgers.container("c", [segment(huge)] * 3))
    assert result.charged_picousd == 3 * (2**63 - 1)
    assert result.models[0].cpu_ns == 3 * 2**90 // 1000


def test_cost_of_failures_is_in_the_cost_of_answered_rows():
    [row] = reported(ledgers.container("c", [segment(SERVED, FAILED, WARM, IDLE)])).models
    assert (row.requests, row.not_ok, row.rows, row.cpu_ns) == (3, 1, 4, 3000)
    assert row.infer_per_1000_rows_picousd == 700 * 1000 // 4
    assert row.full_per_1000_rows_picousd == 1500 * 1000 // 4


def test_shared_costs_follow_what_each_model_costs_itself():
    other = Posting("resident", MEMORY, 300, 1, "idle-model", 2)
    result = reported(ledgers.container("c", [segment(SERVED, WARM, other, IDLE)]))
    assert [(row.model, row.shared_picousd) for row in result.models] == [("digits", 375), ("idle-model", 125)]


def test_without_models_the_bill_is_unallocated():
    result = reported(ledgers.container("c", [segment(IDLE)]))
    assert (result.models, result.unallocated_picousd, result.charged_picousd) == ((), 500, 500)
    assert "no model yet" in printed(result)


def test_requests_that_reached_no_model_are_shared():
    shed = Posting("infer", VCPU, 40, 1000, "", 0, "", "shed", 9)
    result = reported(ledgers.container("c", [segment(SERVED, shed)]))
    assert [(account.account, account.cost_picousd) for account in result.accounts] == [("infer", 40)]
    assert result.models[0].full_picousd == 640


def test_bill_is_told_per_size_of_container():
    big = ledgers.container("a", [segment(SERVED)] * 2)
    small = [Charge(VCPU, "milli-vcpu-ns", 250 * 10**9, 7), Posting("boot", VCPU, 7, 1)]
    result = reported(big | ledgers.container("b", [small], length_ns=10**9))
    assert [(b.platform, b.vcpu_milli, b.memory_bytes, b.containers, b.container_ns) for b in result.billed] == [
        ("fargate-x86", 2000, 4 << 30, 1, 120 * 10**9),
        ("fargate-x86", 250, 0, 1, 10**9),
    ]


def test_unknown_model_names_those_that_have_costs():
    with pytest.raises(ModelNotFound, match="digits"):
        reported(ledgers.container("c", [segment(SERVED)]), model="nope")


def test_empty_ledger_has_all_tables_and_a_friendly_line():
    with opened({}) as connection:
        for name in ("segments", "charges", "postings", "requests", "opens", "closes"):
            assert connection.execute(f"SELECT count(*) FROM {name}").fetchone() == (0,)
        result = report(connection)
    assert result.balanced
    assert printed(result).count("\n") == 1


def test_money_is_read_without_the_requests():
    """They come last in a segment and are most of it."""
    ledger = ledgers.container("c", [segment(SERVED)])
    [key] = ledgers.segment_keys(ledger)
    rows = [Request(f"r{number}", T0_NS, "digits", 1, "ok", 2, 1000, 300) for number in range(2)]
    lines = [*ledgers.lines(ledger[key]), *rows]
    unreadable = ledgers.pack(lines) + ledgers.gzip.compress(b"not a line")
    with opened({key: unreadable}) as connection:
        assert report(connection).charged_picousd == 600


def test_request_rows_can_be_asked_for():
    rows = [Request("r1", T0_NS, "digits", 1, "ok", 4, 2000, 600, tenant="acme")]
    with opened(ledgers.container("c", [[*segment(SERVED), *rows]])) as connection:
        assert connection.execute("SELECT id, cost_picousd, tenant, queue_ns FROM requests").fetchall() == [
            ("r1", 600, "acme", 0)
        ]


# Billed time and trend


def test_golden_segment_of_the_contract_is_read():
    golden = Path(__file__).parents[1] / "contract" / "golden" / "segment-v1.jsonl"
    lines = [codec_line for codec_line in golden.read_bytes().splitlines() if codec_line]
    key = layout.segment(from_ns=T0_NS, container="c", boot_ns=T0_NS, seq=0)
    parsed = msgspec.json.decode(lines[0], type=Segment)
    with opened({key: ledgers.gzip.compress(b"\n".join(lines))}) as connection:
        assert report(connection).charged_picousd == parsed.cost_picousd
    assert codec.schema_version(Segment) == 1


def test_folder_name_is_no_pattern(tmp_path: Path):
    local = ledgers.write(tmp_path / "a[b]*?'{c}", ledgers.container("c", [segment(SERVED)]))
    with tables.opened(local) as connection:
        assert report(connection).charged_picousd == 600


def test_bill_says_the_time_billed_beside_the_time_lived():
    length_ns = 10**9
    boot = Posting("boot", VCPU, 590, 59 * 2000 * length_ns)
    charges = ledgers.charges(1190, 0, length_ns=length_ns)
    last = [msgspec.structs.replace(charges[0], beyond=59 * charges[0].quantity), charges[1], SERVED, boot]
    [billed] = reported(ledgers.container("c", [last], length_ns=length_ns)).billed
    assert (billed.container_ns, billed.billed_ns) == (length_ns, 60 * length_ns)
    text = printed(reported(ledgers.container("c", [last], length_ns=length_ns)))
    assert "2 vCPU, 4 GB for 1.0 s, billed as 60.0 s, on fargate-x86" in text
    plain = printed(reported(ledgers.container("c", [segment(SERVED)])))
    assert "billed as" not in plain


def test_without_a_beginning_the_last_two_whole_hours_are_compared():
    ledger = ledgers.container("a", [segment(SERVED)] * 2)
    for hours, count in ((1, 1), (2, 3), (3, 1)):
        boot_ns = T0_NS + hours * HOUR_NS
        ledger |= ledgers.container(f"b{hours}", [segment(SERVED)] * count, boot_ns=boot_ns, length_ns=60 * 10**9)
    result = reported(ledger)
    assert result.trend is not None
    assert (result.trend.periods.kind, result.trend.periods.from_ns) == ("hour", T0_NS + 2 * HOUR_NS)
    assert (result.trend.charged_picousd, result.trend.previous_picousd) == (1800, 600)
    assert "; the last whole hour, 2026-11-05T14:00: $0.000000001800, +200.0 % against the hour before" in printed(
        result
    )


def test_days_are_compared_where_there_are_two_and_nothing_in_a_short_ledger():
    days = [
        ledgers.container(f"d{day}", [segment(SERVED)] * (day + 1), boot_ns=T0_NS + day * 24 * HOUR_NS)
        for day in range(4)
    ]
    trend = reported(days[0] | days[1] | days[2] | days[3]).trend
    assert trend is not None
    assert (trend.periods.kind, trend.charged_picousd, trend.previous_picousd) == ("day", 1800, 1200)
    assert reported(days[0]).trend is None

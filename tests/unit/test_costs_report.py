"""The report's arithmetic: totals are those of the ledger, the full column is the bill, and a damaged ledger is named."""

import csv
import io
import itertools
import random
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

from gateway.contract import codec, layout
from gateway.contract.ledger import Charge, Posting, Request, Segment
from gateway.errors import ManifestInvalid, ModelNotFound
from gateway.reports import export, figures, tables
from gateway.reports.costs import CostReport, report
from gateway.reports.render import render
from tests.support import ledgers
from tests.support.ledgers import HOUR_NS, MEMORY, T0_NS, VCPU, Ledger

OWNED = {"infer", "resident", "load"}
seeds = st.integers(0, 2**32)
SERVED = Posting("infer", VCPU, 600, 2_000_000, "digits", 1, "", "ok", 2, 4)
FAILED = Posting("infer", VCPU, 100, 1_000_000, "digits", 1, "", "failed", 1, 4)
WARM = Posting("resident", MEMORY, 300, 1, "digits", 1)
IDLE = Posting("idle_cpu", VCPU, 500, 1)


@contextmanager
def opened(ledger: Ledger) -> Iterator[duckdb.DuckDBPyConnection]:
    with tempfile.TemporaryDirectory() as folder, tables.opened(ledgers.write(Path(folder), ledger)) as connection:
        yield connection


def reported(ledger: Ledger, **chosen: object) -> CostReport:
    with opened(ledger) as connection:
        return report(connection, **chosen)  # type: ignore[arg-type]


def printed(of: CostReport, width: int = 100, *, terminal: bool = False) -> str:
    console = Console(width=width, file=io.StringIO(), force_terminal=terminal, color_system=None)
    render(of, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def segment(*postings: Posting) -> list[Charge | Posting]:
    bill = {sku: sum(posting.cost_picousd for posting in postings if posting.sku == sku) for sku in (VCPU, MEMORY)}
    return [*ledgers.charges(bill[VCPU], bill[MEMORY]), *postings]


def kinds(of: CostReport) -> list[str]:
    return [finding.kind for finding in of.findings]


# What adds up


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


# What does not


def damaged(ledger: Ledger, index: int, change: dict[str, object], kind: type) -> Ledger:
    """The ledger with the first line of this kind changed in its index-th segment."""
    key = ledgers.segment_keys(ledger)[index]
    lines = ledgers.lines(ledger[key])
    at = next(number for number, line in enumerate(lines) if isinstance(line, kind))
    lines[at] = msgspec.structs.replace(lines[at], **change)
    return ledger | {key: ledgers.pack(lines)}


def test_sound_ledger_has_no_findings():
    assert reported(ledgers.container("c", [segment(SERVED, IDLE)] * 3)).findings == ()


def test_posting_changed_by_one_picodollar_is_shouted_about():
    ledger = damaged(ledgers.container("c", [segment(SERVED, IDLE)]), 0, {"cost_picousd": 601}, Posting)
    result = reported(ledger)
    assert not result.balanced
    assert "fargate-x86/vcpu adds up to 1,101 p$, charged are 1,100 p$" in result.faults[0].message
    assert "NOT BALANCED" in printed(result)
    assert "exact" not in printed(result)


def test_imbalances_that_cancel_out_are_found():
    ledger = ledgers.container("c", [segment(SERVED, IDLE)] * 2)
    ledger = damaged(damaged(ledger, 0, {"cost_picousd": 599}, Posting), 1, {"cost_picousd": 601}, Posting)
    result = reported(ledger)
    assert result.posted_picousd == result.charged_picousd
    assert not result.balanced
    assert "NOT BALANCED" in printed(result)


def test_header_that_contradicts_its_charges_is_found():
    ledger = damaged(ledgers.container("c", [segment(SERVED)]), 0, {"cost_picousd": 1}, Segment)
    assert kinds(reported(ledger))[0] == "unbalanced"


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        (0, "segments before 1 are missing"),
        (1, "segments 1 to 1 are missing"),
        (3, "promises 4 segments, the ledger has 3"),
    ],
)
def test_missing_segment_is_named(lost: int, message: str):
    ledger = ledgers.container("c", [segment(SERVED)] * 4)
    del ledger[ledgers.segment_keys(ledger)[lost]]
    result = reported(ledger)
    assert "gap" in kinds(result)
    assert any(message in fault.message for fault in result.faults)


def test_gap_outside_the_period_is_not_reported():
    ledger = ledgers.container("c", [segment(SERVED)] * 62)
    del ledger[ledgers.segment_keys(ledger)[3]]
    ledger = {key: body for key, body in ledger.items() if not key.endswith("-close.json")}
    assert reported(ledger, since_ns=T0_NS + HOUR_NS).faults == ()
    assert kinds(reported(ledger, until_ns=T0_NS + HOUR_NS))[0] == "gap"


def test_changed_segment_breaks_the_chain():
    ledger = ledgers.container("c", [segment(SERVED)] * 3)
    ledger = damaged(ledger, 1, {"rows": 5}, Posting)
    assert [
        (f.kind, "segment 2 does not carry the digest of segment 1" in f.message) for f in reported(ledger).findings
    ] == [("broken_chain", True)]


def test_segment_stored_twice_is_found():
    ledger = ledgers.container("c", [segment(SERVED)])
    [key] = ledgers.segment_keys(ledger)
    assert "broken_chain" in kinds(reported(ledger | {key.replace("hr=12", "hr=13"): ledger[key]}))


def test_container_without_close_record_is_noted_with_its_last_moment():
    result = reported(ledgers.container("c", [segment(SERVED)] * 2, is_closed=False))
    assert kinds(result) == ["not_closed"]
    assert result.faults == ()
    assert "last seen 2026-11-05T12:02:00Z" in result.findings[0].message


def test_container_without_open_record_is_noted():
    ledger = ledgers.container("c", [segment(SERVED)])
    del ledger[layout.container_open("c", T0_NS)]
    result = reported(ledger)
    assert kinds(result) == ["never_opened"]
    assert result.billed[0].platform == "fargate-x86"


@pytest.mark.parametrize("spoil", [lambda body: body[:-20], lambda body: b"not gzip", lambda body: b""])
def test_damaged_file_is_refused_by_name(spoil):
    ledger = ledgers.container("c", [segment(SERVED)] * 2)
    key = ledgers.segment_keys(ledger)[1]
    with pytest.raises(ManifestInvalid, match=key.rsplit("/", 1)[1]):
        reported(ledger | {key: spoil(ledger[key])})


@pytest.mark.parametrize("cost", [-1, 1.5, None, "600"])
def test_amount_that_is_no_count_is_refused(cost: object):
    with pytest.raises(ManifestInvalid, match="cost_picousd"):
        reported(damaged(ledgers.container("c", [segment(SERVED)]), 0, {"cost_picousd": cost}, Posting))


def test_newer_segment_asks_for_an_upgrade():
    with pytest.raises(ManifestInvalid, match="upgrade"):
        reported(damaged(ledgers.container("c", [segment(SERVED)]), 0, {"schema_version": 2}, Segment))


def test_folder_name_is_no_pattern(tmp_path: Path):
    local = ledgers.write(tmp_path / "a[b]*?'{c}", ledgers.container("c", [segment(SERVED)]))
    with tables.opened(local) as connection:
        assert report(connection).charged_picousd == 600


# What is written


@settings(max_examples=10, deadline=None)
@given(seeds)
def test_json_and_csv_give_back_the_report(seed: int):
    result = reported(ledgers.random_ledger(seed))
    assert msgspec.json.decode(export.as_json(result), type=CostReport) == result
    rows = list(csv.DictReader(io.StringIO(export.as_csv(result))))
    assert [row["model"].lstrip("'") for row in rows[: len(result.models)]] == [row.model for row in result.models]
    assert sum(int(row["full_picousd"]) for row in rows) == result.charged_picousd


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@sum", "\tx", "\rx", " =1"])
def test_csv_cells_are_never_formulas(name: str):
    posting = msgspec.structs.replace(SERVED, model=name)
    text = export.as_csv(reported(ledgers.container("c", [segment(posting)])))
    [row] = csv.DictReader(io.StringIO(text, newline=""))
    assert row["model"] == f"'{name}"


@pytest.mark.parametrize("name", ["a,b", 'a"b', "a\nb"])
def test_csv_keeps_separators_inside_a_name(name: str):
    posting = msgspec.structs.replace(SERVED, model=name)
    text = export.as_csv(reported(ledgers.container("c", [segment(posting)])))
    [row] = csv.DictReader(io.StringIO(text, newline=""))
    assert row["model"] == name


@pytest.mark.parametrize("width", [40, 80, 100, 200])
def test_numbers_are_never_cut(width: int):
    amounts = random.Random(width).sample(range(10**9, 10**12), 3)
    name = "a-name-of-sixty-three-characters-which-is-the-longest-there-is"
    postings = [Posting("infer", VCPU, cost, 10**12, name, 1, "", "ok", 123_456_789, 1) for cost in amounts]
    result = reported(ledgers.container("c", [segment(*postings, IDLE)]))
    text = printed(result, width, terminal=True)
    assert figures.scale(result.charged_picousd).amount(result.models[0].full_picousd) in text
    assert f"{3 * 123_456_789:,}" in text
    assert "…" not in text


def test_names_cannot_control_the_terminal():
    posting = msgspec.structs.replace(SERVED, model="[red]a\x1b[31mb[/red]")
    text = printed(reported(ledgers.container("c", [segment(posting)])), terminal=True)
    assert "\x1b[31m" not in text
    assert "[red]a�[31mb[/red]@1" in text


def test_report_ends_with_the_proven_bill():
    text = printed(reported(ledgers.container("c", [segment(SERVED, IDLE)] * 2)))
    assert "bill: 2 vCPU, 4 GB for 2.0 min on fargate-x86 = $0.000000002200 = sum of all rows, exact" in text


def test_long_list_of_findings_is_cut_and_says_so():
    ledger: Ledger = {}
    for number in range(25):
        ledger |= ledgers.container(f"c{number}", [segment(SERVED)], is_closed=False)
    assert "... and 5 more; --json lists them all" in printed(reported(ledger))


@pytest.mark.parametrize(
    ("picousd", "text"),
    [(0, "$0"), (1, "$0.000000000001000"), (56_222, "$0.00000005622"), (2_553_300_000, "$0.002553"), (10**12, "$1.00")],
)
def test_dollars_have_sensible_digits(picousd: int, text: str):
    assert figures.dollars(picousd) == text


def test_golden_segment_of_the_contract_is_read():
    golden = Path(__file__).parents[1] / "contract" / "golden" / "segment-v1.jsonl"
    lines = [codec_line for codec_line in golden.read_bytes().splitlines() if codec_line]
    key = layout.segment(from_ns=T0_NS, container="c", boot_ns=T0_NS, seq=0)
    parsed = msgspec.json.decode(lines[0], type=Segment)
    with opened({key: ledgers.gzip.compress(b"\n".join(lines))}) as connection:
        assert report(connection).charged_picousd == parsed.cost_picousd
    assert codec.schema_version(Segment) == 1


# Billed time and trend


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

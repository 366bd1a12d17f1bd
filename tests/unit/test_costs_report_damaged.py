"""A ledger that is not whole is not reported as if it were: what is wrong is named, or the report refused."""

import msgspec
import pytest

from gateway.contract import layout
from gateway.contract.ledger import Posting, Segment
from gateway.errors import ManifestInvalid
from tests.support import ledgers
from tests.support.costreports import IDLE, SERVED, kinds, printed, reported, segment
from tests.support.ledgers import HOUR_NS, T0_NS, Ledger


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
        (0, "segment 0 is missing"),
        (1, "segment 1 is missing"),
        (3, "promises 4 segments, the ledger has 3"),
    ],
)
def test_missing_segment_is_named(lost: int, message: str):
    ledger = ledgers.container("c", [segment(SERVED)] * 4)
    del ledger[ledgers.segment_keys(ledger)[lost]]
    result = reported(ledger)
    assert "gap" in kinds(result)
    assert any(message in fault.message for fault in result.faults)


def test_a_gap_in_a_closed_life_is_one_fault_and_two_when_the_end_is_lost_too():
    ledger = ledgers.container("c", [segment(SERVED)] * 6)
    keys = ledgers.segment_keys(ledger)
    middle = {key: body for key, body in ledger.items() if key not in {keys[1], keys[3]}}
    assert [fault.message.partition(": ")[2] for fault in reported(middle).faults if fault.kind == "gap"] == [
        "segment 1 is missing",
        "segment 3 is missing",
    ]
    both = {key: body for key, body in ledger.items() if key not in {keys[1], keys[2], keys[5]}}
    assert [fault.message.partition(": ")[2] for fault in reported(both).faults if fault.kind == "gap"] == [
        "segments 1 to 2 are missing",
        "its close record promises 6 segments, the ledger has 3",
    ]


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

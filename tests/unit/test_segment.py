"""Segments: the same bytes for the same statement, all of it back again, and damage named."""

import gzip

import msgspec
import pytest
from msgspec.structs import replace

from gateway.accounting import segment
from gateway.accounting.segment import ParsedSegment
from gateway.accounting.statement import Statement
from gateway.errors import ManifestInvalid
from tests.support import meters
from tests.support.manualclock import ManualClock
from tests.support.meters import BOOT_NS, SECOND_NS

SHA256 = "a" * 64


@pytest.fixture
def statement() -> Statement:
    """600 requests: more than one chunk."""
    clock = ManualClock(BOOT_NS)
    meter = meters.meter(clock)
    clock.work(10 * SECOND_NS, cpu_ns=5 * SECOND_NS)
    meter.mark_ready()
    for number in range(600):
        meters.charge(meter, 1_000_000 + number, request_id=f"r{number}")
    clock.work(SECOND_NS, cpu_ns=SECOND_NS)
    return meters.close(meter, clock)


def encode(statement: Statement, *, seq: int = 7) -> bytes:
    return segment.encode(
        statement, container="c0", boot_ns=BOOT_NS, seq=seq, previous_sha256=SHA256, price_book_sha256=SHA256
    )


def parsed(statement: Statement) -> ParsedSegment:
    return segment.decode(encode(statement))


def test_everything_comes_back(statement: Statement) -> None:
    back = parsed(statement)
    assert (back.header.container, back.header.seq, back.header.previous_sha256) == ("c0", 7, SHA256)
    assert (back.header.from_ns, back.header.to_ns) == (statement.from_ns, statement.to_ns)
    assert (back.header.cost_picousd, back.header.requests, back.header.collapsed) == (statement.cost_picousd, 600, 0)
    assert (back.charges, back.postings, back.requests) == (
        statement.charges,
        statement.postings,
        tuple(statement.requests),
    )
    assert segment.discrepancies(back) == ()


def test_equal_statements_are_equal_bytes_without_a_time_in_them(statement: Statement) -> None:
    assert encode(statement) == encode(statement)
    assert encode(statement)[4:8] == bytes(4)  # gzip's mtime (RFC 1952, 2.3.1)


def test_any_gzip_and_json_reader_can_read_it(statement: Statement) -> None:
    lines = [msgspec.json.decode(line) for line in gzip.decompress(encode(statement)).splitlines()]
    assert [line["type"] for line in lines[:3]] == ["segment", "charge", "charge"]
    assert lines[-1]["id"] == "r599"


def test_collapsed_requests_leave_the_sums(statement: Statement) -> None:
    few = parsed(replace(statement, requests=statement.requests[:10]))
    assert (few.header.requests, few.header.collapsed, len(few.requests)) == (600, 590, 10)
    assert segment.discrepancies(few) == ()


def test_what_does_not_add_up_is_named(statement: Statement) -> None:
    """One number changed by one, or one line gone, at a time."""
    sound = parsed(statement)
    header, charge, posting, request = sound.header, sound.charges[0], sound.postings[0], sound.requests[0]
    for damaged, problem in (
        (replace(sound, header=replace(header, cost_picousd=header.cost_picousd + 1)), "the header's cost"),
        (replace(sound, header=replace(header, requests=601)), "the header's requests and the lines"),
        (
            replace(sound, charges=(replace(charge, cost_picousd=charge.cost_picousd - 1), *sound.charges[1:])),
            "postings and charge of 'fargate-x86/vcpu'",
        ),
        (replace(sound, charges=sound.charges[:1]), "postings and charge of 'fargate-x86/memory'"),
        (replace(sound, postings=sound.postings[:-1]), "postings and charge of 'fargate-x86/memory'"),
        (
            replace(sound, postings=(replace(posting, requests=599), *sound.postings[1:])),
            "the header's requests and those of the infer postings",
        ),
        (
            replace(sound, requests=(replace(request, cost_picousd=request.cost_picousd + 1), *sound.requests[1:])),
            "the receipts",
        ),
        (replace(sound, requests=sound.requests[1:]), "the header's requests and the lines"),
    ):
        assert any(found.startswith(problem) for found in segment.discrepancies(damaged)), problem


def test_receipts_beyond_the_infer_postings_are_named_even_when_some_are_collapsed(statement: Statement) -> None:
    few = parsed(replace(statement, requests=statement.requests[:10]))
    dear = tuple(replace(request, cost_picousd=10**12) for request in few.requests)
    assert segment.discrepancies(replace(few, requests=dear)) == ("the receipts and the infer postings differ",)


def test_damaged_bytes_are_refused_by_name(statement: Statement) -> None:
    data = encode(statement)
    lines = gzip.decompress(data)
    for damaged, problem in (
        (b"no gzip", "s1 is not gzip"),
        (data[:-1], "s1 is not one whole gzip stream"),
        (data + data, "s1 is not one whole gzip stream"),
        (data[:100] + bytes([data[100] ^ 1]) + data[101:], "s1 is not"),
        (gzip.compress(lines[:-5]), "s1 is not valid"),
        (gzip.compress(b""), "s1 is not valid"),
        (gzip.compress(lines.partition(b"\n")[2]), "s1 is not valid"),
        (gzip.compress(lines + lines), "s1 has two headers"),
        (gzip.compress(lines.replace(b'"schema_version":1', b'"schema_version":2', 1)), "schema_version 2"),
    ):
        with pytest.raises(ManifestInvalid, match=problem):
            segment.decode(damaged, what="s1")


def test_a_bomb_is_refused_before_it_fills_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segment, "DECODED_BYTES_MAX", 1000)
    with pytest.raises(ManifestInvalid, match="at most 1000 bytes"):
        segment.decode(gzip.compress(bytes(1001)))

"""Segments that cannot be read: named by their key in the store, with what to do, and no reason to refuse another period."""

import json
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from gateway.cli.costs import costs as command
from gateway.contract.ledger import Posting, Request
from gateway.errors import ManifestInvalid, WrittenByNewer
from tests.support import ledgers
from tests.support.ledgers import HOUR_NS, T0_NS

IDLE = Posting("idle_cpu", ledgers.VCPU, 600, 1)
BAD_HOUR = ("--since", "2026-11-05T12:00", "--until", "2026-11-05T13:00")
AFTER = ("--since", "2026-11-05T13:00")


def damaged(body: bytes) -> bytes:
    return body[:-20]


@pytest.fixture
def ledger() -> ledgers.Ledger:
    """One life of three hours, a segment each."""
    return ledgers.container("c", [[*ledgers.charges(600, 0, length_ns=HOUR_NS), IDLE]] * 3, length_ns=HOUR_NS)


def ran(folder: Path, *arguments: str) -> Result:
    return CliRunner().invoke(command, ["--store", str(folder / "store"), "--cache", str(folder / "cache"), *arguments])


@pytest.mark.parametrize("grouped", [(), ("--by", "model"), ("--format", "html")])
def test_a_damaged_segment_is_named_by_its_key_with_both_remedies(
    tmp_path: Path, ledger: ledgers.Ledger, grouped: tuple[str, ...]
) -> None:
    key = ledgers.segment_keys(ledger)[0]
    ledgers.write(tmp_path / "store", ledger | {key: damaged(ledger[key])})
    for period in ((), BAD_HOUR, ("--since", "2026-11-05T12:59"), ("--amortize", "days:9", *AFTER)):
        error = ran(tmp_path, *grouped, *period).exception
        assert isinstance(error, ManifestInvalid)
        assert str(error).startswith(f"ledger segment {key} is damaged (")
        assert f"delete its copy {tmp_path / 'cache' / key} and run again; if that says the same" in str(error)
        assert "`steelyard ledger verify`" in str(error)


def test_what_cannot_be_read_is_no_reason_to_refuse_another_period(tmp_path: Path, ledger: ledgers.Ledger) -> None:
    """The same figures as before the damage, but for the comparison that would need it; and a note instead of faults."""
    key = ledgers.segment_keys(ledger)[0]
    ledgers.write(tmp_path / "store", ledger)
    for form in (("--json",), ("--by", "hour", "--json")):
        whole = json.loads(ran(tmp_path, *AFTER, *form).stdout)
        ledgers.write(tmp_path / "store", {key: damaged(ledger[key])})
        result = ran(tmp_path, *AFTER, *form)
        told = json.loads(result.stdout)
        assert (result.exit_code, whole["trend"] is None, told["trend"]) == (0, False, None)
        [note] = [one for one in told["findings"] if one["kind"] == "unreadable_segment"]
        assert f"segment {key} cannot be read (steelyard ledger verify) and left out" in note["message"]
        assert not note["is_fault"]
        assert told["charged_picousd"] == whole["charged_picousd"] == 1200
        ledgers.write(tmp_path / "store", {key: ledger[key]})


def test_a_comparison_that_does_not_need_it_is_made(tmp_path: Path, ledger: ledgers.Ledger) -> None:
    key = ledgers.segment_keys(ledger)[0]
    ledgers.write(tmp_path / "store", ledger | {key: damaged(ledger[key])})
    told = json.loads(ran(tmp_path, "--since", "2026-11-05T14:00", "--json").stdout)
    assert (told["trend"]["charged_picousd"], told["trend"]["previous_picousd"]) == (600, 600)


def test_a_newer_segment_is_named_by_its_key(tmp_path: Path, ledger: ledgers.Ledger) -> None:
    key = ledgers.segment_keys(ledger)[0]
    header, *rows = ledgers.lines(ledger[key])
    body = ledgers.pack([msgspec.structs.replace(header, schema_version=9), *rows])
    ledgers.write(tmp_path / "store", ledger | {key: body})
    error = ran(tmp_path).exception
    assert isinstance(error, WrittenByNewer)
    assert str(error).startswith(f"ledger segment {key} has schema_version 9;")
    assert ran(tmp_path, "--since", "2026-11-05T14:00").exit_code == 0


def test_a_damaged_record_is_named_by_its_key(tmp_path: Path, ledger: ledgers.Ledger) -> None:
    key = next(key for key in ledger if key.endswith("-open.json"))
    ledgers.write(tmp_path / "store", ledger | {key: b"{"})
    assert f"ledger record {key} is damaged" in str(ran(tmp_path).exception)


def test_requests_that_cannot_be_read_are_no_traceback(tmp_path: Path) -> None:
    """Only the page reads the lines of requests; the money stands before them."""
    requests = [Request(f"r{n}" * 40, T0_NS, "digits", 1, "ok", 2, 1000, 1) for n in range(5000)]
    served = Posting("infer", ledgers.VCPU, 5000, 10**6, "digits", 1, "", "ok", 5000, 10_000)
    ledger = ledgers.container("c", [[*ledgers.charges(5000, 0), served, *requests]])
    [key] = ledgers.segment_keys(ledger)
    body = bytearray(ledger[key])
    body[-9] ^= 1
    ledgers.write(tmp_path / "store", ledger | {key: bytes(body[:-30])})
    error = ran(tmp_path, "--format", "html").exception
    assert isinstance(error, ManifestInvalid)
    assert "`steelyard ledger verify`" in str(error)

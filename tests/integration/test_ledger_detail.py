"""Detail by setting: each request, a sample, or minute sums. Who paid what is the same to the pico-dollar in all three."""

import asyncio
from pathlib import Path
from random import Random

import pytest

from gateway import settings
from gateway.accounting import segment
from gateway.accounting.ledger import LedgerWriter
from gateway.accounting.meter import Meter
from gateway.accounting.options import LedgerOptions
from gateway.accounting.segment import ParsedSegment
from gateway.accounting.usage import Usage
from gateway.audit.verifying import Scope, verify
from gateway.contract.ledger import Outcome
from gateway.errors import SettingsError
from gateway.objectstore.local import LocalStore
from gateway.reports import breakdown, hourproof
from gateway.reports.breakdown import Breakdown
from gateway.reports.query import Query
from tests.support.manualclock import ManualClock, until
from tests.support.meters import BOOK, BOOT_NS, CONTAINER, SECOND_NS

REQUEST, SAMPLED, MINUTE = (
    LedgerOptions(detail="request"),
    LedgerOptions(detail="sampled", sampled_rate=0.3),
    LedgerOptions(detail="minute"),
)
OUTCOMES: tuple[Outcome, ...] = ("ok", "ok", "failed", "shed")
WHO = ("model", "version", "tenant", "outcome", "hour")


async def serve(root: Path, seed: int, options: LedgerOptions) -> int:
    """Twenty minutes across the end of an hour, the same for the same seed; the sum of the receipts."""
    random, clock = Random(seed), ManualClock(BOOT_NS)
    clock.work(2 * SECOND_NS, cpu_ns=SECOND_NS)
    meter = Meter(CONTAINER, BOOK, clock, detail_share=options.detail_share, random=Random(seed + 1).random)
    writer = LedgerWriter(LocalStore(root), CONTAINER, meter, BOOK, clock, options, sleep=clock.sleep)
    paid = 0
    async with writer:
        meter.mark_ready()
        for turn in range(60):
            paid += sum(_request(meter, random, f"{turn}-{number}") for number in range(random.randrange(20)))
            await clock.advance(20, cpu_ns=10**9)
            await until(lambda: not meter.closed)
    return paid


def _request(meter: Meter, random: Random, request_id: str) -> int:
    return meter.charge(
        request_id=request_id,
        model=random.choice(["digits", "flights"]),
        version=random.randrange(1, 3),
        tenant=random.choice(["", "shop", "bank"]),
        outcome=random.choice(OUTCOMES),
        usage=Usage(rows=random.randrange(5), cpu_ns=random.randrange(40_000_000), run_ns=5_000_000),
    )


def segments(root: Path) -> list[ParsedSegment]:
    return [segment.decode(path.read_bytes()) for path in sorted(root.glob("ledger/v1/dt=*/hr=*/*/*.jsonl.gz"))]


def paid_for(report: Breakdown) -> list[tuple[object, ...]]:
    """Who, how often, and for how much; idle and shared costs are of the containers, and split by interval."""
    return [
        (*(getattr(row, name) for name in WHO), row.requests, row.not_ok, row.rows, row.cpu_ns, row.direct_picousd)
        for row in report.rows
        if row.model
    ]


@pytest.mark.parametrize("seed", range(2))
def test_reports_are_the_same_whatever_detail_is_kept(tmp_path: Path, seed: int) -> None:
    found, bills, receipts, lines = [], set(), set(), []
    for options in (REQUEST, SAMPLED, MINUTE):
        root = tmp_path / options.detail
        root.mkdir()
        receipts.add(asyncio.run(serve(root, seed, options)))
        report = asyncio.run(
            breakdown.read(LocalStore(root), tmp_path / f"{options.detail}-copy", Query(WHO, view="direct"))
        )
        assert report.balanced
        assert report.faults == ()
        verdict = asyncio.run(verify(LocalStore(root), Scope(), now_ns=BOOT_NS + 10**15, reader=hourproof.read))
        assert (verdict.faults, verdict.unattributed_picousd) == ((), 0)
        found.append(paid_for(report))
        bills.add(report.charged_picousd)
        lines.append(sum(len(one.requests) for one in segments(root)))
    assert found[0] == found[1] == found[2] != []
    assert len(bills) == len(receipts) == 1
    assert sum(int(row[-1]) for row in found[0]) in receipts  # type: ignore[call-overload]
    total = sum(int(row[5]) for row in found[0])  # type: ignore[call-overload]
    assert (lines[0], lines[2]) == (total, 0)
    assert 0.15 * total < lines[1] < 0.45 * total


def test_minute_sums_are_one_segment_a_minute(tmp_path: Path) -> None:
    asyncio.run(serve(tmp_path, 1, MINUTE))
    found = [one.header for one in segments(tmp_path)]
    minutes = [header.from_ns // (60 * SECOND_NS) for header in found]
    assert len(set(minutes)) == len(minutes) == 21  # the last is the exit's
    assert {header.to_ns % (60 * SECOND_NS) for header in found[:-1]} <= {0, 2 * SECOND_NS}  # when the clock ticks next
    assert all(header.collapsed == header.requests for header in found)


def test_each_request_is_in_the_sample_with_the_same_chance(tmp_path: Path) -> None:
    """Also the first, and those after a long silence: nothing about a request decides."""
    kept = []
    for seed in range(400):
        meter = Meter(CONTAINER, BOOK, ManualClock(BOOT_NS), detail_share=0.25, random=Random(seed).random)
        for number in range(8):
            _request(meter, Random(0), str(number))
        meter.close_interval(BOOT_NS + 60 * SECOND_NS)
        kept += [int(request.id) for request in meter.closed[0].requests]
    counts = [kept.count(number) for number in range(8)]
    assert all(65 < count < 135 for count in counts)  # four standard deviations around 100


def test_detail_is_a_setting_and_a_wrong_one_is_named() -> None:
    found = settings.load(environ={"STEELYARD_LEDGER__DETAIL": "sampled", "STEELYARD_LEDGER__SAMPLED_RATE": "0.05"})
    assert found.ledger.detail_share == 0.05
    assert settings.Settings().ledger.detail_share == 1
    for name, value in (("DETAIL", "hour"), ("SAMPLED_RATE", "0"), ("SAMPLED_RATE", "1.5")):
        with pytest.raises(SettingsError, match=f"STEELYARD_LEDGER__{name}"):
            settings.load(environ={f"STEELYARD_LEDGER__{name}": value})

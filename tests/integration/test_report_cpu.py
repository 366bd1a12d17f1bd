"""The CPU of a live cost report is in the container's books: posted to `ledger`, not passed off as idle; and the books add up."""

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.accounting import segment
from gateway.audit.verifying import Scope, verify
from gateway.contract import layout
from gateway.errors import Unavailable
from gateway.objectstore.local import LocalStore
from gateway.reports import hourproof
from gateway.reports.live import LivePage
from gateway.reports.query import Query
from tests.support import gateways, meters, models
from tests.support.manualclock import ManualClock
from tests.support.meters import BOOT_NS, SECOND_NS, VCPU

BURN = "import sys, time; sys.stdin.read(); [None for _ in iter(lambda: time.process_time() < 0.3, False)]; "


def weights(postings: tuple[segment.Posting, ...]) -> dict[str, int]:
    return {posting.account: posting.quantity // 1000 for posting in postings if posting.sku == VCPU}


@given(used_ns=st.integers(0, 60 * SECOND_NS), own_ns=st.integers(0, 20 * SECOND_NS))
def test_a_reports_cpu_is_the_ledgers_and_every_charge_is_distributed(used_ns: int, own_ns: int) -> None:
    """Also where it was reaped in an interval shorter than it ran: more CPU than the interval had."""
    clock = ManualClock(BOOT_NS)
    meter = meters.meter(clock)
    meter.mark_ready()
    clock.work(10 * SECOND_NS, cpu_ns=own_ns)
    meter.note_report(used_ns)
    stated = meters.close(meter, clock)
    found = weights(stated.postings)
    assert found.get("ledger", 0) == used_ns
    assert found.get("overhead", 0) == own_ns
    assert found.get("idle_cpu", 0) == max(0, 20 * SECOND_NS - own_ns - used_ns)
    for charge in stated.charges:
        assert charge.cost_picousd == sum(one.cost_picousd for one in stated.postings if one.sku == charge.sku)


def page(folder: Path, program: str, note: Callable[[int], None]) -> LivePage:
    return LivePage("store", folder, lambda: 0.0, command=(sys.executable, "-c", program), note_cpu=note)


async def test_what_a_report_used_is_told_once_it_has_ended(tmp_path: Path) -> None:
    told: list[int] = []
    assert await page(tmp_path, BURN + "print('done')", told.append).answer(Query(), "json") == b"done\n"
    [used_ns] = told
    assert 300_000_000 <= used_ns < 60 * SECOND_NS


async def test_what_a_failed_or_killed_report_used_is_told_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int] = []
    with pytest.raises(Unavailable):
        await page(tmp_path, BURN + "sys.exit(7)", told.append).answer(Query(), "json")
    burnt = tmp_path / "burnt"
    os.mkfifo(burnt)
    stuck = page(tmp_path, BURN + f"open({str(burnt)!r}, 'w').close(); time.sleep(600)", told.append)
    asked = asyncio.create_task(stuck.answer(Query(), "json"))
    await asyncio.to_thread(burnt.read_text)
    await stuck.aclose()
    with pytest.raises(asyncio.CancelledError):
        await asked
    assert len(told) == 2
    assert min(told) >= 300_000_000


async def test_a_gateway_posts_its_reports_and_its_books_add_up(tmp_path: Path) -> None:
    root = tmp_path / "store"
    root.mkdir()
    await models.publish_tiny(LocalStore(root))
    with gateways.running(root, tmp_path, TMPDIR=str(tmp_path)) as gateway:
        assert gateway.get("/costs?format=json").status == 200
        assert gateway.terminate() == 0
    paths = sorted(root.glob(f"{layout.segments()}*/hr=*/*/*.jsonl.gz"))
    postings = [line for path in paths for line in segment.decode(path.read_bytes()).postings]
    posted_ns = sum(line.quantity for line in postings if line.account == "ledger") // 1000
    assert posted_ns > 200_000_000  # the child's imports alone; writing these few segments takes a hundredth
    verdict = await verify(LocalStore(root), Scope(), now_ns=max(_times(paths)), reader=hourproof.read)
    assert verdict.faults == ()
    assert verdict.unattributed_picousd == 0


def _times(paths: list[Path]) -> list[int]:
    return [segment.decode(path.read_bytes()).header.to_ns for path in paths]

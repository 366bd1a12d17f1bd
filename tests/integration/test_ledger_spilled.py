"""An outage of the store on real disk: what waits survives a crash, and the next gateway in the same place writes it."""

import asyncio
import logging
import os
import signal
import time
from pathlib import Path

import pytest

from gateway.accounting import segment
from gateway.accounting.ledger import LedgerWriter
from gateway.accounting.options import LedgerOptions
from gateway.accounting.spillfolder import ASIDE, SpillRoot
from gateway.audit.findings import Verdict
from gateway.audit.verifying import Scope, verify
from gateway.contract import codec, layout, ledgerkeys
from gateway.objectstore.local import LocalStore
from gateway.reports import hourproof
from tests.support import gateways, killing, meters, models
from tests.support.manualclock import ManualClock, until
from tests.support.memorystore import MemoryStore
from tests.support.meters import BOOK, BOOT_NS, CONTAINER, HOUR_NS, SECOND_NS

SEGMENTS = layout.segments()


class Life:
    """The accounting half of one gateway process, on a store and a folder."""

    def __init__(
        self,
        store: MemoryStore,
        folder: Path,
        *,
        boot_ns: int = BOOT_NS,
        options: LedgerOptions = LedgerOptions(flush_rows=50),  # noqa: B008 - frozen
    ) -> None:
        self.clock = ManualClock(boot_ns)
        self.clock.work(2 * SECOND_NS, cpu_ns=SECOND_NS)
        here = codec.msgspec.structs.replace(CONTAINER, boot_ns=boot_ns)
        self.meter = meters.Meter(here, BOOK, self.clock)
        self.meter.mark_ready()
        self.writer = LedgerWriter(
            store,
            here,
            self.meter,
            BOOK,
            self.clock,
            options,
            shelves=SpillRoot(folder, store.url),
            sleep=self.clock.sleep,
            jitter=lambda: 1.0,
        )

    async def serve(self, seconds: float, count: int = 3) -> int:
        """Requests, then time passes; the sum of their receipts."""
        name = f"{self.clock.now_ns()}"
        paid = sum(meters.charge(self.meter, 1_000_000, request_id=f"{name}-{number}") for number in range(count))
        await self.clock.advance(seconds)
        await until(lambda: not self.meter.closed)
        return paid

    async def die(self) -> None:
        """As a kill: tasks stop where they are, no exit is made, and the lock goes with the process."""
        await asyncio.sleep(0)
        for task in self.writer._tasks:
            task.cancel()
        await asyncio.gather(*self.writer._tasks, return_exceptions=True)
        assert self.writer._spill is not None
        self.writer._spill.close()


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def spilled(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.spilled"))


async def audited(store: MemoryStore, now_ns: int) -> Verdict:
    return await verify(store, Scope(), now_ns=now_ns, reader=hourproof.read)


async def test_what_waits_during_an_outage_survives_a_crash(store: MemoryStore, tmp_path: Path) -> None:
    first = Life(store, tmp_path)
    await first.writer.__aenter__()
    await until(lambda: len(store.objects) == 2)
    store.is_down = True
    paid = 0
    for _ in range(3):
        paid += await first.serve(10)
        await until(lambda: 0 < first.writer.spilled_bytes == first.writer.pending_bytes)
    assert first.writer.unsafe_picousd == 0 < first.writer.unwritten_picousd
    await first.die()

    store.is_down = False
    second = Life(store, tmp_path, boot_ns=first.clock.now_ns() + 5 * SECOND_NS)
    async with second.writer:
        await until(lambda: second.writer.recovered == 3)
    assert spilled(tmp_path) == []
    verdict = await audited(store, second.clock.now_ns())
    assert verdict.faults == ()
    lives = meters.bill_picousd(second.meter.boot_ns - BOOT_NS), meters.life_picousd(2 * SECOND_NS)
    assert verdict.charged_picousd + verdict.unattributed_picousd == sum(sum(bill.values()) for bill in lives)
    parsed = [segment.decode(store.objects[key]) for key in store.keys(SEGMENTS)]
    assert sum(meters.costs(one.postings, "infer") for one in parsed) == paid
    assert len({request.id for one in parsed for request in one.requests}) == 9


async def test_an_exit_during_an_outage_leaves_all_of_the_life_to_the_next(
    store: MemoryStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = Life(store, tmp_path, options=LedgerOptions(drain_s=5))
    store.is_down = True
    await first.writer.__aenter__()
    await first.serve(20)
    ending = asyncio.create_task(first.writer.__aexit__(None, None, None))
    await until(lambda: len(spilled(tmp_path)) == 5)  # book, opening, two segments, close
    await first.clock.advance(5)
    await ending
    assert "the next gateway here writes them" in caplog.text
    assert "will be reported as unattributed" not in caplog.text
    store.is_down = False
    second = Life(store, tmp_path, boot_ns=first.clock.now_ns() + HOUR_NS)
    async with second.writer:
        await until(lambda: layout.container_close(CONTAINER.id, BOOT_NS) in store.objects)
    keys = [named for key in store.objects if (named := ledgerkeys.parse(key)) and named.boot_ns == BOOT_NS]
    assert sorted(named.kind for named in keys) == ["close", "open", "segment", "segment"]
    assert {named.hour_ns for named in keys if named.kind == "segment"} == {
        BOOT_NS // HOUR_NS * HOUR_NS
    }  # its own hour
    assert (await audited(store, second.clock.now_ns())).faults == ()


async def test_what_the_store_has_already_is_no_conflict(store: MemoryStore, tmp_path: Path) -> None:
    """Killed between the store's answer and the file's end; or the answer was lost."""
    first = Life(store, tmp_path)
    await first.writer.__aenter__()
    await until(lambda: len(store.objects) == 2)
    store.is_down = True
    await first.serve(10)
    await until(lambda: first.writer.spilled_bytes > 0)
    await first.die()
    [file] = spilled(tmp_path)
    kept = file.read_bytes()
    store.is_down = False
    for boot in (1, 2):
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(kept)
        again = Life(store, tmp_path, boot_ns=BOOT_NS + boot * 100 * SECOND_NS)
        async with again.writer:
            await until(lambda: again.writer.recovered == 1)  # noqa: B023 - awaited at once
        assert (again.writer.conflicts, again.writer.set_aside) == (0, 0)
    assert len(store.keys(SEGMENTS)) == 3


async def test_another_writer_s_key_sets_a_dead_life_s_files_aside_and_stops_nobody(
    store: MemoryStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = Life(store, tmp_path)
    await first.writer.__aenter__()
    await until(lambda: len(store.objects) == 2)
    store.is_down = True
    await first.serve(10)
    await until(lambda: first.writer.spilled_bytes > 0)
    await first.die()
    store.is_down = False
    store.objects[layout.segment(from_ns=BOOT_NS, container=CONTAINER.id, boot_ns=BOOT_NS, seq=0)] = b"another's"
    second = Life(store, tmp_path, boot_ns=BOOT_NS + HOUR_NS)
    async with second.writer:
        await until(lambda: second.writer.set_aside == 1)
    assert (second.writer.conflicts, second.writer.segments_written) == (0, 1)
    assert "set aside for you to look at" in caplog.text
    assert [path.parent.name for path in spilled(tmp_path)] == [ASIDE]


async def test_beyond_the_memory_s_cap_what_waits_is_on_disk_only_and_nothing_collapses(
    store: MemoryStore, tmp_path: Path
) -> None:
    life = Life(store, tmp_path, options=LedgerOptions(pending_bytes_max=1))
    async with life.writer:
        await until(lambda: len(store.objects) == 2)
        store.is_down = True
        paid = sum([await life.serve(10) for _ in range(5)])
        store.is_down = False
        await life.clock.advance(30)
        await until(lambda: life.writer.segments_written == 5)
    parsed = [segment.decode(store.objects[key]) for key in store.keys(SEGMENTS)]
    assert (sum(len(one.requests) for one in parsed), life.writer.collapsed) == (15, 0)
    assert sum(meters.costs(one.postings, "infer") for one in parsed) == paid
    assert spilled(tmp_path) == []


async def test_when_memory_and_disk_are_full_requests_become_sums(store: MemoryStore, tmp_path: Path) -> None:
    options = LedgerOptions(pending_bytes_max=1, spill_bytes_max=1)
    life = Life(store, tmp_path, options=options)
    async with life.writer:
        await until(lambda: len(store.objects) == 2)
        store.is_down = True
        paid = sum([await life.serve(10) for _ in range(3 * 360)])
        assert life.writer.pending_bytes < 100_000  # with all detail ten times as many
        store.is_down = False
        await life.clock.advance(30)
    parsed = [segment.decode(store.objects[key]) for key in store.keys(SEGMENTS)]
    assert sum(one.header.requests for one in parsed) == 3 * 360 * 3
    assert sum(one.header.collapsed for one in parsed) == life.writer.collapsed > 3000
    assert sum(meters.costs(one.postings, "infer") for one in parsed) == paid


async def test_a_disk_that_takes_nothing_means_memory_only(
    store: MemoryStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    life = Life(store, tmp_path / "file")
    async with life.writer:
        await until(lambda: len(store.objects) == 2)
        store.is_down = True
        paid = sum([await life.serve(10) for _ in range(3)])
        await until(lambda: life.writer.spill_failures > 1)
        assert (life.writer.spilled_bytes, life.writer.unsafe_picousd) == (0, life.writer.unwritten_picousd)
        store.is_down = False
        await life.clock.advance(30)
    parsed = [segment.decode(store.objects[key]) for key in store.keys(SEGMENTS)]
    assert sum(meters.costs(one.postings, "infer") for one in parsed) == paid
    assert sum("takes no files" in record.message for record in caplog.records) == 1
    assert not any(record.levelno >= logging.ERROR for record in caplog.records)


def test_a_gateway_killed_while_its_store_is_away_loses_nothing_of_what_it_spilled(tmp_path: Path) -> None:
    """A real process, SIGKILL, and a store in which the ledger's place is taken by a file."""
    root, environment = tmp_path / "store", killing.ENVIRONMENT | {"STEELYARD_LEDGER__PUT_TIMEOUT_S": "5"}
    root.mkdir()
    asyncio.run(models.publish_tiny(LocalStore(root)))
    (root / "ledger").write_text("in the way")
    with gateways.running(root, tmp_path, **environment) as first:
        ids = {first.post("/v1/predict/tiny", {"rows": [killing.ROW]}).headers["steelyard-request-id"]}
        count = len(spilled(tmp_path)) + 4  # of these the request's segment is one: they come in order
        gateways.until(lambda: len(spilled(tmp_path)) >= count)
        os.kill(first.process.pid, signal.SIGKILL)
        first.process.wait()
    (root / "ledger").unlink()
    with gateways.running(root, tmp_path, **environment) as second:
        gateways.until(lambda: not spilled(tmp_path))
        assert second.terminate() == 0
    keys = sorted(root.glob("ledger/v1/dt=*/hr=*/box/*.jsonl.gz"))
    assert ids <= {request.id for path in keys for request in segment.decode(path.read_bytes()).requests}
    verdict = asyncio.run(verify(LocalStore(root), Scope(), now_ns=time.time_ns(), reader=hourproof.read))
    assert verdict.faults == ()

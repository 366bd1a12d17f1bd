"""The ledger writer against a store that answers, lies, vanishes and is shared: what is stored balances, whatever happened."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from random import Random
from typing import cast

import pytest

from gateway.accounting import ledger, segment
from gateway.accounting.ledger import LedgerWriter
from gateway.accounting.meter import Meter
from gateway.accounting.options import LedgerOptions
from gateway.accounting.segment import ParsedSegment
from gateway.contract import codec, layout
from gateway.contract.ledger import Close, Open
from gateway.objectstore.local import LocalStore
from gateway.objectstore.protocol import ObjectStore
from tests.support import meters
from tests.support.faults import CrashingStore
from tests.support.manualclock import ManualClock, until
from tests.support.memorystore import Fault, MemoryStore
from tests.support.meters import BOOK, BOOT_NS, CONTAINER, HOUR_NS, SECOND_NS

SEGMENTS = layout.segments()
CLOSE_KEY = layout.container_close(CONTAINER.id, BOOT_NS)


class Gateway:
    """The accounting half of one gateway process: a meter, its clock, and a writer on a store."""

    def __init__(self, store: ObjectStore, options: LedgerOptions = LedgerOptions()) -> None:  # noqa: B008 - frozen
        self.clock = ManualClock(BOOT_NS)
        self.clock.work(2 * SECOND_NS, cpu_ns=SECOND_NS)
        self.meter = meters.meter(self.clock)
        self.meter.mark_ready()
        self.writer = LedgerWriter(
            store, CONTAINER, self.meter, BOOK, self.clock, options, sleep=self.clock.sleep, jitter=lambda: 1.0
        )

    def serve(self, count: int) -> int:
        """That many requests; the sum of their receipts."""
        return sum(meters.charge(self.meter, 1_000_000, request_id=f"r{number}") for number in range(count))


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


async def stored(store: ObjectStore) -> list[ParsedSegment]:
    """All segments in order, each balanced, chained to the one before and beginning where that ended."""
    segments: list[ParsedSegment] = []
    previous_sha256, from_ns = "", BOOT_NS
    async for info in store.list(SEGMENTS):
        body = (await store.get(info.key)).body
        parsed = segment.decode(body, what=info.key)
        header = parsed.header
        assert segment.discrepancies(parsed) == ()
        assert (header.seq, header.from_ns, header.previous_sha256) == (len(segments), from_ns, previous_sha256)
        assert info.key == layout.segment(from_ns=from_ns, container=CONTAINER.id, boot_ns=BOOT_NS, seq=header.seq)
        previous_sha256, from_ns = codec.sha256(body), header.to_ns
        segments.append(parsed)
    return segments


async def assert_is_the_whole_bill(store: ObjectStore) -> list[ParsedSegment]:
    """Segments and close record agree with each other and with the price list. Returns the segments."""
    segments = await stored(store)
    closed = codec.decode((await store.get(CLOSE_KEY)).body, Close)
    last_key = layout.segment(
        from_ns=segments[-1].header.from_ns, container=CONTAINER.id, boot_ns=BOOT_NS, seq=len(segments) - 1
    )
    assert (closed.segments, closed.closed_ns) == (len(segments), segments[-1].header.to_ns)
    assert closed.last_sha256 == codec.sha256((await store.get(last_key)).body)
    assert closed.cost_picousd == sum(parsed.header.cost_picousd for parsed in segments)
    assert closed.cost_picousd == sum(meters.life_picousd(closed.closed_ns - BOOT_NS).values())
    return segments


def receipts(segments: list[ParsedSegment]) -> int:
    return sum(meters.costs(parsed.postings, "infer") for parsed in segments)


def request_count(segments: list[ParsedSegment]) -> int:
    return sum(len(parsed.requests) for parsed in segments)


async def test_a_life_is_opened_written_and_closed(store: MemoryStore) -> None:
    gateway = Gateway(store)
    async with gateway.writer:
        paid = gateway.serve(3)
    segments = await assert_is_the_whole_bill(store)
    opened = codec.decode(store.objects[layout.container_open(CONTAINER.id, BOOT_NS)], Open)
    assert (opened.boot_ns, opened.platform, len(opened.provisioned)) == (BOOT_NS, "fargate-x86", 2)
    assert store.objects[layout.price_book(opened.price_book_sha256)] == BOOK.data
    assert (receipts(segments), request_count(segments)) == (paid, 3)
    assert gateway.writer.segments_written == len(segments) == 1


async def test_the_timer_writes_a_segment(store: MemoryStore) -> None:
    gateway = Gateway(store)
    async with gateway.writer:
        for written in (1, 2, 3):
            gateway.serve(2)
            await gateway.clock.advance(10)
            await until(lambda: gateway.writer.segments_written == written)  # noqa: B023 - awaited at once
    segments = await assert_is_the_whole_bill(store)
    assert [len(parsed.requests) for parsed in segments] == [2, 2, 2, 0]


async def test_the_timer_waits_for_the_bill_to_cover_the_receipts(store: MemoryStore) -> None:
    gateway = Gateway(store)
    async with gateway.writer:
        await gateway.clock.advance(8)
        await until(lambda: gateway.writer.segments_written == 1)
        gateway.clock.work(9_800_000_000)
        paid = meters.charge(gateway.meter, 20_500_000_000)  # of two vCPUs in ten seconds, and some before
        await gateway.clock.advance(0.4)
        assert not gateway.meter.closed
        await gateway.clock.advance(1)
        await until(lambda: gateway.writer.segments_written == 2)
    assert receipts(await assert_is_the_whole_bill(store)) == paid


async def test_enough_requests_write_a_segment_without_waiting_for_the_timer(store: MemoryStore) -> None:
    gateway = Gateway(store, LedgerOptions(flush_rows=5))
    async with gateway.writer:
        gateway.serve(5)
        await until(lambda: gateway.writer.segments_written == 1)
        gateway.serve(4)
    segments = await assert_is_the_whole_bill(store)
    assert [len(parsed.requests) for parsed in segments] == [5, 4]


async def test_no_segment_crosses_an_hour(store: MemoryStore) -> None:
    gateway = Gateway(store, LedgerOptions(flush_interval_s=60))
    async with gateway.writer:
        await gateway.clock.advance(590)
        await until(lambda: gateway.writer.segments_written == 1)
        gateway.serve(1)
        await gateway.clock.advance(20)
        await until(lambda: gateway.writer.segments_written == 2)
    segments = await assert_is_the_whole_bill(store)
    assert [parsed.header.to_ns % HOUR_NS == 0 for parsed in segments] == [False, True, False]
    assert ["/hr=12/" in key for key in store.keys(SEGMENTS)] == [True, True, False]


async def test_the_cost_of_accounting_is_posted(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    gateway = Gateway(store)
    encode = ledger.segment.encode

    def busy_encode(*arguments: object, **named: object) -> bytes:
        gateway.clock.work(0, cpu_ns=30_000_000)
        return encode(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(ledger.segment, "encode", busy_encode)
    async with gateway.writer:
        await gateway.clock.advance(10)
        await until(lambda: gateway.writer.segments_written == 1)
    ledger_cpu = [
        posting.quantity for parsed in await stored(store) for posting in parsed.postings if posting.account == "ledger"
    ]
    assert ledger_cpu == [30_000_000 * 1000]  # the first segment's, posted in the second


async def test_a_lost_answer_is_not_a_second_segment(store: MemoryStore) -> None:
    store.faults.extend(["none", "lost answer", "none", "lost answer"])  # price book, open record twice, segment
    gateway = Gateway(store)
    async with gateway.writer:
        paid = gateway.serve(3)
        await until(lambda: gateway.writer.failures == 1)
        await gateway.clock.advance(10)
        await until(lambda: gateway.writer.failures == 2)
        await gateway.clock.advance(1)
        await until(lambda: gateway.writer.segments_written == 1)
    assert receipts(await assert_is_the_whole_bill(store)) == paid
    assert (store.attempts.count(store.keys(SEGMENTS)[0]), gateway.writer.conflicts) == (2, 0)


@pytest.mark.parametrize("fault", ["unavailable", "broken"])
async def test_after_an_outage_everything_is_written_in_order(
    store: MemoryStore, fault: Fault, caplog: pytest.LogCaptureFixture
) -> None:
    gateway = Gateway(store)
    async with gateway.writer:
        await until(lambda: len(store.objects) == 2)
        store.faults.extend([fault] * 4)
        paid = 0
        for failures in (1, 2, 3, 4):
            paid += gateway.serve(2)
            await gateway.clock.advance(10)
            await until(lambda: gateway.writer.failures == failures)  # noqa: B023 - awaited at once
        await gateway.clock.advance(10)
        await until(lambda: gateway.writer.segments_written == 5)
    segments = await assert_is_the_whole_bill(store)
    tried = [key for key in store.attempts if key.startswith(SEGMENTS)]
    assert tried == sorted(tried)
    assert (receipts(segments), request_count(segments)) == (paid, 8)
    assert sum("cannot write" in record.message for record in caplog.records) == 1


async def test_a_store_that_does_not_answer_is_asked_again(store: MemoryStore) -> None:
    store.answers.clear()
    gateway = Gateway(store, LedgerOptions(put_timeout_s=0.001))
    async with gateway.writer:
        await until(lambda: gateway.writer.failures == 1)
        store.answers.set()
    await assert_is_the_whole_bill(store)


async def test_a_full_outbox_keeps_sums_and_closes_once_an_hour(store: MemoryStore) -> None:
    gateway = Gateway(store, LedgerOptions(pending_bytes_max=1, flush_rows=50))
    async with gateway.writer:
        await until(lambda: len(store.objects) == 2)
        store.is_down = True
        paid = 0
        for _ in range(3 * 360):  # three hours in steps of ten seconds
            paid += gateway.serve(10)
            await gateway.clock.advance(10)
            await until(lambda: not gateway.meter.closed)
        assert gateway.writer.pending_bytes < 10_000
        store.is_down = False
    segments = await assert_is_the_whole_bill(store)
    assert [parsed.header.collapsed > 0 for parsed in segments] == [False, True, True, True, True]
    assert (receipts(segments), sum(parsed.header.requests for parsed in segments)) == (paid, 3 * 360 * 10)
    assert gateway.writer.collapsed == sum(parsed.header.collapsed for parsed in segments)


async def test_two_processes_as_one_container_raise_the_alarm(
    store: MemoryStore, caplog: pytest.LogCaptureFixture
) -> None:
    first, clone = Gateway(store), Gateway(store)
    async with first.writer, clone.writer:
        first.serve(3)
        await first.clock.advance(10)
        await until(lambda: first.writer.segments_written == 1)
        before = dict(store.objects)
        clone.serve(4)
        await clone.clock.advance(10)
        await until(lambda: clone.writer.conflicts == 1)
        assert clone.serve(2) > 0
        clone.clock.work(SECOND_NS)
        assert store.objects == before
    assert (first.writer.conflicts, clone.writer.conflicts, clone.writer.segments_written) == (0, 1, 0)
    assert await assert_is_the_whole_bill(store)
    lost = sum(meters.life_picousd(clone.clock.now_ns() - BOOT_NS).values())
    assert clone.writer.unwritten_picousd == lost
    errors = [record.message for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 2
    assert f"{store.keys(SEGMENTS)[0]} exists with other content" in errors[0]
    assert f"{lost} pico-dollars of container c0 are not in the ledger" in errors[1]


async def test_an_exit_waits_no_longer_than_its_deadline_and_says_what_is_lost(
    store: MemoryStore, caplog: pytest.LogCaptureFixture
) -> None:
    gateway = Gateway(store, LedgerOptions(drain_s=5))
    await gateway.writer.__aenter__()
    await until(lambda: len(store.objects) == 2)
    store.is_down = True
    gateway.serve(3)
    ending = asyncio.create_task(gateway.writer.__aexit__(None, None, None))
    await until(lambda: gateway.writer.failures == 1)
    lost = sum(meters.life_picousd(gateway.clock.now_ns() - BOOT_NS).values())
    await gateway.clock.advance(5)
    await ending
    assert f"{lost} pico-dollars of container c0" in caplog.text


async def test_an_exit_does_not_sit_out_a_long_wait(store: MemoryStore) -> None:
    gateway = Gateway(store)
    async with gateway.writer:
        store.is_down = True
        gateway.serve(3)
        for failures in range(1, 9):
            await until(lambda: gateway.writer.failures == failures)  # noqa: B023 - awaited at once
            await gateway.clock.advance(30)
        store.is_down = False  # half a minute before the next attempt is due
    await assert_is_the_whole_bill(store)


async def test_an_exit_during_a_write_neither_loses_nor_repeats_it(store: MemoryStore) -> None:
    gateway = Gateway(store)
    async with gateway.writer:
        await until(lambda: len(store.objects) == 2)
        store.answers.clear()
        paid = gateway.serve(3)
        await gateway.clock.advance(10)
        await until(lambda: bool(store.keys(SEGMENTS)))  # written, and the answer is on its way
        asyncio.get_running_loop().call_soon(store.answers.set)
    assert receipts(await assert_is_the_whole_bill(store)) == paid


async def test_a_cancelled_exit_says_what_is_lost(store: MemoryStore, caplog: pytest.LogCaptureFixture) -> None:
    store.is_down = True
    gateway = Gateway(store)
    await gateway.writer.__aenter__()
    ending = asyncio.create_task(gateway.writer.__aexit__(None, None, None))
    await until(lambda: gateway.writer.failures >= 1)
    ending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ending
    assert "will be reported as unattributed" in caplog.text
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_statement_that_does_not_balance_is_never_written(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    gateway = Gateway(store)
    settle = ledger.settle

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("receipts exceed the charge")

    monkeypatch.setattr(ledger, "settle", refuse)
    async with gateway.writer:
        await gateway.clock.advance(10)
        await until(lambda: "cannot be written" in caplog.text)
        monkeypatch.setattr(ledger, "settle", settle)
    [only] = [segment.decode(store.objects[key]) for key in store.keys(SEGMENTS)]
    assert (only.header.seq, only.header.from_ns) == (0, BOOT_NS + 12 * SECOND_NS)
    assert gateway.writer.unwritten_picousd == sum(meters.bill_picousd(12 * SECOND_NS).values())


@pytest.mark.parametrize("after_effect", [False, True])
@pytest.mark.parametrize("call", range(1, 8))
async def test_a_process_that_dies_at_any_write_leaves_a_balanced_chain(
    store: MemoryStore, call: int, after_effect: bool
) -> None:
    crashing = CrashingStore(store, crash_at=call, after_effect=after_effect)
    gateway = Gateway(cast("ObjectStore", crashing))
    await gateway.writer.__aenter__()
    while crashing.calls < call:
        gateway.serve(2)
        await gateway.clock.advance(10)
        await until(lambda: not gateway.meter.closed)
    await until(lambda: crashing.has_crashed)  # a write that has begun may still be on its way
    await kill(gateway.writer)
    segments = await stored(store)
    assert len(segments) == max(0, call - 2 - (not after_effect))  # the price book and the open record come first
    assert sum(parsed.header.cost_picousd for parsed in segments) == sum(
        meters.bill_picousd(segments[-1].header.to_ns - BOOT_NS if segments else 0).values()
    )


@pytest.fixture(params=["memory", "local"])
async def any_store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ObjectStore]:
    made: ObjectStore = MemoryStore() if request.param == "memory" else LocalStore(tmp_path)
    yield made
    await made.aclose()


@pytest.mark.parametrize("seed", range(20))
async def test_whatever_is_written_before_a_kill_balances(any_store: ObjectStore, seed: int) -> None:
    """Random requests, loads, waits and faults; half of the lives end in a kill, which is to stop and never run again."""
    random = Random(seed)
    if isinstance(any_store, MemoryStore):
        any_store.faults.extend(random.choices(["none", "unavailable", "lost answer"], [6, 3, 1], k=60))
    gateway = Gateway(any_store, LedgerOptions(flush_rows=40, pending_bytes_max=random.choice([1, 1 << 20])))
    await gateway.writer.__aenter__()
    paid = sum([await _something(gateway, random) for _ in range(random.randrange(60))])
    if random.random() < 0.5:
        await kill(gateway.writer)
        segments = await stored(any_store)
        ended_ns = segments[-1].header.to_ns if segments else BOOT_NS
        written = sum(parsed.header.cost_picousd for parsed in segments)
        assert written == sum(meters.bill_picousd(ended_ns - BOOT_NS).values())
        assert receipts(segments) <= paid
    else:
        if isinstance(any_store, MemoryStore):
            any_store.faults.clear()
        await gateway.writer.__aexit__(None, None, None)
        assert receipts(await assert_is_the_whole_bill(any_store)) == paid


async def _something(gateway: Gateway, random: Random) -> int:
    """One event in the life of a gateway; the receipts it gave."""
    events: list[Callable[[Meter], None]] = [
        lambda meter: meter.note_load("digits", 1, random.randrange(10**9)),
        lambda meter: meter.note_resident("digits", 1, random.randrange(1 << 31)),
        lambda meter: meter.note_unloaded("digits", 1),
    ]
    match random.randrange(3):
        case 0:
            return gateway.serve(random.randrange(30))
        case 1:
            await gateway.clock.advance(random.choice([0.001, 1, 10, 700]), cpu_ns=random.randrange(10**9))
        case _:
            random.choice(events)(gateway.meter)
    return 0


async def kill(writer: LedgerWriter) -> None:
    """What a process leaves behind that is stopped at whichever await its tasks had reached."""
    for task in writer._tasks:
        task.cancel()
    await asyncio.gather(*writer._tasks, return_exceptions=True)

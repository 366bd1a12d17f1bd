"""Lives of a container, simulated from a seed: the real meter, ledger writer and outbox on virtual time, over a store that fails.

A seed decides everything: load, pauses, faults, and the step before which a process is killed. `run(seed)` checks the invariants
whenever an object appears and at the end, and its failures name the seed, which replays them. Faults of the store: refused (503,
409), slow, answer lost, delivered twice, delivered late (after its sender gave up), and torn: half of the bytes become visible,
which no store of ours may do and which must stop the writer and be named by the audit.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from random import Random

from gateway.accounting import segment
from gateway.accounting.container import Container
from gateway.accounting.ledger import LedgerOptions, LedgerWriter
from gateway.accounting.meter import Meter
from gateway.audit.findings import Verdict
from gateway.audit.verifying import Scope, verify
from gateway.contract import codec, layout, ledgerkeys
from gateway.contract.ledger import Outcome
from gateway.errors import ObjectNotFound, PreconditionFailed, StoreUnavailable
from gateway.objectstore.protocol import ObjectInfo, StoredObject
from gateway.reports import hourproof
from tests.support.meters import BOOK, GIB, HOUR_NS, SECOND_NS
from tests.support.virtualloop import Stopped, VirtualLoop

START_NS = 1_793_880_000 * SECOND_NS + 3500 * SECOND_NS  # 100 s before an hour ends
FAULTS = ("none", "503", "409", "slow", "lost answer", "twice", "late")


class Disk:
    """What has become durable. Every new object is checked against what must hold at any time."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.request_ids: set[str] = set()
        self.last: dict[tuple[str, int], tuple[int, str, int]] = {}
        self.torn: list[str] = []
        self.over: set[int] = set()

    def create(self, key: str, body: bytes, *, is_torn: bool = False) -> bool:
        """False when it is there already."""
        if key in self.objects:
            return False
        self.objects[key] = body[: len(body) // 2] if is_torn else body
        if is_torn:
            self.torn.append(key)
        elif key.startswith(layout.segments()):
            self._check(key, body)
        return True

    def _check(self, key: str, body: bytes) -> None:
        """Conservation, no record twice, an unbroken chain: of every prefix of history, so after every kill."""
        parsed = segment.decode(body)
        header = parsed.header
        assert segment.discrepancies(parsed) == ()
        seq, sha256, to_ns = self.last.get((header.container, header.boot_ns), (-1, "", header.boot_ns))
        assert (header.seq, header.previous_sha256, header.from_ns) == (seq + 1, sha256, to_ns), key
        assert header.to_ns > header.from_ns
        assert header.from_ns // HOUR_NS == (header.to_ns - 1) // HOUR_NS
        self.last[header.container, header.boot_ns] = header.seq, codec.sha256(body), header.to_ns
        if any(charge.beyond for charge in parsed.charges):
            self.over.add(header.boot_ns)  # its end is written, with or without a close record
        for request in parsed.requests:
            assert request.id not in self.request_ids, f"{request.id} is recorded twice"
            self.request_ids.add(request.id)


class Wire:
    """One process's way to the disk: an object store with faults by `random`. Severed, nothing gets through any more."""

    url = "simulated:"

    def __init__(self, disk: Disk, random: Random, loop: VirtualLoop, *, trouble: float, may_tear: bool) -> None:
        self._disk = disk
        self._random = random
        self._loop = loop
        self.trouble = trouble
        self._may_tear = may_tear
        self.is_severed = False
        self.acknowledged: set[str] = set()
        self.faults = Counter[str]()

    async def put_if_absent(self, key: str, body: bytes) -> str:
        fault = self._random.choice(FAULTS[1:]) if self._random.random() < self.trouble else "none"
        if self._may_tear and self._random.random() < 0.03:
            fault = "torn"
        self.faults[fault] += 1
        await asyncio.sleep(self._random.choice([0, 0.01, 0.2]))
        self._reach()
        if fault in {"503", "409"}:
            raise StoreUnavailable(fault)
        if fault == "late":
            self._loop.call_later(self._random.uniform(0.1, 60), self._deliver, key, body)
            await asyncio.sleep(self._random.choice([1, 40]))  # the writer's timeout is 30 s
            raise StoreUnavailable("no answer")
        if fault == "slow":
            await asyncio.sleep(self._random.uniform(1, 45))
            self._reach()
        if fault == "twice":
            self._loop.call_later(self._random.uniform(0, 5), self._deliver, key, body)
        if not self._disk.create(key, body, is_torn=fault == "torn"):
            raise PreconditionFailed(key)
        await asyncio.sleep(self._random.choice([0, 0.05]))
        if fault in {"lost answer", "torn"}:
            raise StoreUnavailable("the connection broke")
        self.acknowledged.add(key)
        return "etag"

    def _deliver(self, key: str, body: bytes) -> None:
        """What is on the network arrives even when its sender has died."""
        self._disk.create(key, body)

    async def get(self, key: str) -> StoredObject:
        await asyncio.sleep(0)
        self._reach()
        if self._random.random() < self.trouble:
            raise StoreUnavailable("503")
        if key not in self._disk.objects:
            raise ObjectNotFound(key)
        return StoredObject(self._disk.objects[key], "etag")

    async def list(self, prefix: str, *, start_after: str = "") -> AsyncIterator[ObjectInfo]:
        for key in sorted(self._disk.objects):
            if key.startswith(prefix) and key > start_after:
                yield ObjectInfo(key, len(self._disk.objects[key]))

    def _reach(self) -> None:
        if self.is_severed:
            raise StoreUnavailable("this process is dead")


class LoopClock:
    """The process's clock: the loop's time; CPU that the scenario says it used."""

    def __init__(self, loop: VirtualLoop, started_ns: int) -> None:
        self._loop = loop
        self.started_ns = started_ns
        self.used_ns = 0

    def now_ns(self) -> int:
        return max(self.started_ns, START_NS + round(self._loop.seconds * 1e9))

    def cpu_ns(self) -> int:
        return self.used_ns

    def thread_cpu_ns(self) -> int:
        return self.used_ns

    def rss_bytes(self) -> int:
        return 300 << 20


@dataclass(eq=False)
class Life:
    """One process: what it served, and how it ended."""

    container: Container
    receipts: dict[str, int] = field(default_factory=dict)
    is_killed: bool = False
    conflicts: int = 0
    ended_ns: int = 0


@dataclass(eq=False)
class Outcomes:
    """What a run left behind, for tests that look closer."""

    disk: Disk
    lives: list[Life]
    verdict: Verdict
    steps: int
    faults: Counter[str]


def run(seed: int, *, kill_at: int | None = None, may_tear: bool = False, lives: int = 3) -> Outcomes:
    """Simulate and check. `kill_at`: the one kill, at this step of the first life; else the seed decides."""
    try:
        return _run(Random(seed), kill_at, may_tear, lives)
    except Exception as error:
        error.add_note(f"replay: ledgersim.run({seed}, kill_at={kill_at}, may_tear={may_tear}, lives={lives})")
        raise


@cache
def killed_twice() -> Outcomes:
    """Three lives of one container, the first two killed, with several segments each, over three hours or more from 12:58 on."""
    for seed in range(300):
        done = run(seed)
        keys = [named for key in done.disk.objects if (named := ledgerkeys.parse(key)) and named.kind == "segment"]
        lives = Counter(named.boot_ns for named in keys)
        hours = Counter(named.hour_ns for named in keys)
        second_ns = START_NS // HOUR_NS * HOUR_NS + HOUR_NS
        has_kills = [life.is_killed for life in done.lives] == [True, True, False]
        if has_kills and len(lives) == 3 and min(lives.values()) >= 3 and len(hours) > 2 and hours[second_ns] > 3:
            return done
    raise AssertionError("no such seed")


def _run(random: Random, kill_at: int | None, may_tear: bool, count: int) -> Outcomes:
    disk, past, faults, seconds, steps = Disk(), list[Life](), Counter[str](), 0.0, 0
    for number in range(count):
        is_last = number == count - 1
        stop_at = -1
        if kill_at is not None:
            stop_at = kill_at if number == 0 else -1
        elif not is_last and random.random() < 0.8:
            stop_at = random.randrange(1, 700)
        loop = VirtualLoop(seconds)
        try:
            life, wire = _live(loop, disk, random, stop_at=stop_at, number=number, may_tear=may_tear)
        finally:
            asyncio.set_event_loop(None)
            loop.close()
        past.append(life)
        faults += wire.faults
        assert wire.acknowledged <= set(disk.objects), "acknowledged, and gone"
        steps = steps or loop.steps
        seconds = loop.seconds + random.uniform(0.5, 5000)
    verdict = _audit(disk, seconds)
    _check_end(disk, past, verdict)
    return Outcomes(disk, past, verdict, steps, faults)


def _live(
    loop: VirtualLoop, disk: Disk, random: Random, *, stop_at: int, number: int, may_tear: bool
) -> tuple[Life, Wire]:
    clock = LoopClock(loop, START_NS + round(loop.seconds * 1e9))
    life = Life(Container("c0", clock.started_ns, "fargate-x86", 2000, 4 * GIB))
    wire = Wire(disk, random, loop, trouble=random.choice([0, 0.1, 0.5]), may_tear=may_tear)
    options = LedgerOptions(
        flush_rows=random.choice([5, 50, 20_000]), pending_bytes_max=random.choice([2000, 64 << 20]), drain_s=3600
    )
    meter = Meter(life.container, BOOK, clock, detail_rows_max=random.choice([3, 100_000]))
    writer = LedgerWriter(wire, life.container, meter, BOOK, clock, options, jitter=random.random)  # type: ignore[arg-type]
    loop.stop_at = stop_at
    try:
        loop.run_until_complete(_serve(meter, writer, clock, random, life, wire, number))
    except Stopped:
        tasks = asyncio.all_tasks(loop)
        life.is_killed = bool(tasks)  # else it had ended, and only its loop had not
        life.ended_ns = clock.now_ns()
        wire.is_severed = True
        loop.stop_at = -1
        if tasks:
            loop.run_until_complete(_bury(tasks))
    life.conflicts = writer.conflicts
    return life, wire


async def _bury(tasks: set[asyncio.Task[None]]) -> None:
    """Python wants its coroutines ended; what is on the network is delivered. Neither reaches the disk through the dead process."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.sleep(100)


async def _serve(
    meter: Meter, writer: LedgerWriter, clock: LoopClock, random: Random, life: Life, wire: Wire, number: int
) -> None:
    async with writer:
        await asyncio.sleep(random.uniform(0, 3))
        meter.note_load("digits", 1, 10**8)
        meter.note_resident("digits", 1, 10**8)
        meter.mark_ready()
        for turn in range(random.randrange(2, 14)):
            for index in range(random.choice([0, 1, 4, 12])):
                _request(meter, clock, random, life, f"{number}-{turn}-{index}")
            await _pause(random)
        wire.trouble = 0  # the store comes back before the end
        meter.mark_draining()
    life.ended_ns = clock.now_ns()


def _request(meter: Meter, clock: LoopClock, random: Random, life: Life, name: str) -> None:
    cpu_ns = random.choice([0, 1_234_567, 40_000_000])
    clock.used_ns += cpu_ns + 1000
    outcome: Outcome = random.choice(["ok", "failed", "shed"])
    life.receipts[name] = meter.charge(
        request_id=name, model="digits", version=1, outcome=outcome, rows=1, cpu_ns=cpu_ns
    )


async def _pause(random: Random) -> None:
    pauses: list[Callable[[], Awaitable[None]]] = [
        lambda: asyncio.sleep(0),
        lambda: asyncio.sleep(random.uniform(0, 12)),
        lambda: asyncio.sleep(random.uniform(0, 200)),
    ]
    await random.choice(pauses)()


def _audit(disk: Disk, seconds: float) -> Verdict:
    loop = VirtualLoop(seconds)
    try:
        wire = Wire(disk, Random(0), loop, trouble=0, may_tear=False)
        return loop.run_until_complete(
            verify(wire, Scope(), now_ns=START_NS + round(seconds * 1e9), reader=hourproof.read)
        )  # type: ignore[arg-type]
    finally:
        loop.close()


def _check_end(disk: Disk, past: list[Life], verdict: Verdict) -> None:
    """Nothing is lost but who used a killed life's last seconds; what that cost is unattributed, to the pico-dollar."""
    if disk.torn:
        faulty = {finding.key for finding in verdict.faults}
        assert set(disk.torn) <= faulty, "a torn object was not named"
        return
    assert verdict.faults == ()
    assert [life.conflicts for life in past] == [0] * len(past)
    assert verdict.charged_picousd + verdict.unattributed_picousd == _bill(disk, past)
    for life in past:
        _check_life(disk, life)


def _check_life(disk: Disk, life: Life) -> None:
    segments = [
        segment.decode(body)
        for key, body in disk.objects.items()
        if (named := ledgerkeys.parse(key)) and (named.kind, named.boot_ns) == ("segment", life.container.boot_ns)
    ]
    infer = sum(line.cost_picousd for parsed in segments for line in parsed.postings if line.account == "infer")
    detail = [request for parsed in segments for request in parsed.requests]
    assert all(life.receipts[request.id] == request.cost_picousd for request in detail)
    assert sum(parsed.header.requests for parsed in segments) == len(detail) + sum(
        parsed.header.collapsed for parsed in segments
    )
    if life.is_killed:
        assert infer <= sum(life.receipts.values())
    else:
        assert infer == sum(life.receipts.values())
        assert sum(parsed.header.requests for parsed in segments) == len(life.receipts)
        assert layout.container_close("c0", life.container.boot_ns) in disk.objects


def _bill(disk: Disk, past: list[Life]) -> int:
    """Container-seconds times price, from the price list and nothing else, of every life that could say it began."""
    opened = [life for life in past if layout.container_open("c0", life.container.boot_ns) in disk.objects]
    total = 0
    for index, life in enumerate(opened):
        boot_ns = life.container.boot_ns
        if layout.container_close("c0", boot_ns) in disk.objects or boot_ns in disk.over:
            ended_ns = disk.last[("c0", boot_ns)][2] - boot_ns
            lasted_ns = max(60, -(-ended_ns // 10**9)) * 10**9  # Fargate: whole seconds, a minute at least
        else:
            lasted_ns = opened[index + 1].container.boot_ns - boot_ns  # the last life is never killed
        hours = Fraction(lasted_ns, HOUR_NS)
        total += round(Fraction("0.04048") * 2 * hours * 10**12) + round(Fraction("0.004445") * 4 * hours * 10**12)
    return total

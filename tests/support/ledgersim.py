"""Lives of a container, simulated from a seed: the real meter, ledger writer and outbox on virtual time, over a store that fails.

A seed decides everything: load, pauses, faults, and the step before which a process is killed. `run(seed)` checks the invariants
whenever an object appears and at the end, and its failures name the seed, which replays them. Faults of the store: refused (503,
409), slow, answer lost, delivered twice, delivered late (after its sender gave up), and torn: half of the bytes become visible,
which no store of ours may do and which must stop the writer and be named by the audit. With a local disk (`tests.support.spillsim`)
the store is also away for long, even at exits, and what lives leave on that disk is written by later ones.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from random import Random

import msgspec

from gateway.accounting import segment
from gateway.accounting.container import Container
from gateway.accounting.ledger import LedgerWriter
from gateway.accounting.leftovers import Leftovers
from gateway.accounting.meter import Meter
from gateway.accounting.options import LedgerOptions
from gateway.accounting.usage import Usage
from gateway.audit.findings import Verdict
from gateway.audit.verifying import Scope, verify
from gateway.contract import layout, ledgerkeys
from gateway.contract.ledger import Outcome
from gateway.reports import hourproof
from tests.support.meters import BOOK, GIB, HOUR_NS
from tests.support.simworld import START_NS, Disk, LoopClock, Wire
from tests.support.spillsim import DiskKind, SimDisk, SimShelves
from tests.support.virtualloop import Stopped, VirtualLoop


@dataclass(eq=False)
class Life:
    """One process: what it served, and how it ended."""

    container: Container
    receipts: dict[str, int] = field(default_factory=dict)
    is_killed: bool = False
    is_cut: bool = False  # ended during an outage, with nowhere to leave anything
    conflicts: int = 0
    ended_ns: int = 0
    recovered: int = 0
    set_aside: int = 0


@dataclass(eq=False)
class Outcomes:
    """What a run left behind, for tests that look closer."""

    disk: Disk
    lives: list[Life]
    verdict: Verdict
    steps: int
    faults: Counter[str]
    local: SimDisk
    recovered: int = 0
    set_aside: int = 0


def run(
    seed: int, *, kill_at: int | None = None, may_tear: bool = False, lives: int = 3, disk: DiskKind = "none"
) -> Outcomes:
    """Simulate and check. `kill_at`: the one kill, at this step of the first life; else the seed decides."""
    try:
        return _run(Random(seed), kill_at, may_tear, lives, SimDisk(disk, Random(-seed - 1)))
    except Exception as error:
        error.add_note(
            f"replay: ledgersim.run({seed}, kill_at={kill_at}, may_tear={may_tear}, lives={lives}, disk={disk!r})"
        )
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


def _run(random: Random, kill_at: int | None, may_tear: bool, count: int, local: SimDisk) -> Outcomes:
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
            world = _World(loop, disk, local, random, may_tear)
            life, wire = _live(world, stop_at=stop_at, number=number, is_last=is_last)
        finally:
            asyncio.set_event_loop(None)
            loop.close()
        past.append(life)
        faults += wire.faults
        assert wire.acknowledged <= set(disk.objects), "acknowledged, and gone"
        steps = steps or loop.steps
        seconds = loop.seconds + random.uniform(0.5, 5000)
    left, set_aside = _collect(disk, local, seconds)
    recovered = left + sum(life.recovered for life in past)
    set_aside += sum(life.set_aside for life in past)
    verdict = _audit(disk, seconds)
    _check_end(disk, past, verdict, local)
    return Outcomes(disk, past, verdict, steps, faults, local, recovered, set_aside)


@dataclass(frozen=True)
class _World:
    """What a life lives in."""

    loop: VirtualLoop
    disk: Disk
    local: SimDisk
    random: Random
    may_tear: bool


def _live(world: _World, *, stop_at: int, number: int, is_last: bool) -> tuple[Life, Wire]:
    loop, disk, random, local = world.loop, world.disk, world.random, world.local
    clock = LoopClock(loop, START_NS + round(loop.seconds * 1e9))
    life = Life(Container("c0", clock.started_ns, "fargate-x86", 2000, 4 * GIB))
    wire = Wire(disk, random, loop, trouble=random.choice([0, 0.1, 0.5]), may_tear=world.may_tear)
    options = LedgerOptions(
        flush_rows=random.choice([5, 50, 20_000]), pending_bytes_max=random.choice([2000, 64 << 20]), drain_s=3600
    )
    shelves = None if local.kind == "none" else SimShelves(local)
    if shelves:
        wire.has_outages = True
        wire.ends_away = not is_last and random.random() < 0.4
        options = msgspec.structs.replace(
            options, spill_bytes_max=random.choice([0, 5000, 1 << 20]), drain_s=5 if wire.ends_away else 3600
        )
    meter = Meter(life.container, BOOK, clock, detail_rows_max=random.choice([3, 100_000]))
    writer = LedgerWriter(
        wire,
        life.container,
        meter,
        BOOK,
        clock,
        options,
        shelves=shelves,
        jitter=random.random,  # type: ignore[arg-type]
    )
    loop.stop_at = stop_at
    try:
        loop.run_until_complete(_serve(meter, writer, clock, random, life, wire, number))
    except Stopped:
        tasks = asyncio.all_tasks(loop)
        life.is_killed = bool(tasks)  # else it had ended, and only its loop had not
        life.ended_ns = clock.now_ns()
        wire.is_severed = True
        if shelves:
            shelves.is_severed = True
        loop.stop_at = -1
        if tasks:
            loop.run_until_complete(_bury(tasks))
    if life.is_killed:
        local.crash()
    local.held.clear()
    disk.may_have_gaps = bool(local.torn) or local.kind in {"absent", "full"}
    life.conflicts, life.recovered, life.set_aside = writer.conflicts, writer.recovered, writer.set_aside
    life.is_cut = wire.ends_away and local.kind in {"absent", "full"}
    assert local.kind != "present" or life.is_killed or writer.unsafe_picousd == 0
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
            if wire.has_outages:
                wire.is_away = random.random() < 0.5
            await _pause(random)
        wire.trouble = 0  # the store comes back before the end
        wire.is_away = wire.ends_away
        meter.mark_draining()
    life.ended_ns = clock.now_ns()


def _request(meter: Meter, clock: LoopClock, random: Random, life: Life, name: str) -> None:
    cpu_ns = random.choice([0, 1_234_567, 40_000_000])
    clock.used_ns += cpu_ns + 1000
    outcome: Outcome = random.choice(["ok", "failed", "shed"])
    life.receipts[name] = meter.charge(
        request_id=name, model="digits", version=1, outcome=outcome, usage=Usage(cpu_ns, rows=1)
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


def _collect(disk: Disk, local: SimDisk, seconds: float) -> tuple[int, int]:
    """One more start in the same place, with a store that answers: what is left then on the disk is what nobody can use."""
    loop = VirtualLoop(seconds)
    try:
        wire = Wire(disk, Random(0), loop, trouble=0, may_tear=False)
        left = Leftovers(wire, SimShelves(local), put_timeout_s=30, sleep=asyncio.sleep, jitter=lambda: 1.0)  # type: ignore[arg-type]
        loop.run_until_complete(_for_a_while(left))
    finally:
        loop.close()
    assert not any(local.files.values())
    return left.written["segment"], left.set_aside


async def _for_a_while(left: Leftovers) -> None:
    task = asyncio.create_task(left.run())
    await asyncio.sleep(500)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _check_end(disk: Disk, past: list[Life], verdict: Verdict, local: SimDisk) -> None:
    """Nothing is lost but who used a killed life's last seconds; what that cost is unattributed, to the pico-dollar."""
    if disk.torn:
        faulty = {finding.key for finding in verdict.faults}
        assert set(disk.torn) <= faulty, "a torn object was not named"
        return
    assert local.promised - set(local.torn) <= set(disk.objects), "on disk, and gone"
    if local.torn:  # the disk lied: what it lost shows as gaps, and nothing else is wrong
        assert {finding.kind for finding in verdict.faults} <= {"gap", "never_opened"}
        return
    assert disk.may_have_gaps or verdict.faults == ()
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
    if life.is_killed or life.is_cut:
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

"""Scheduled events on a local store and on moto's S3: one run per event, one run per schedule, whatever comes twice or at once."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.contract import codec, layout
from gateway.contract.schedules import ScheduleClaim
from gateway.errors import StoreUnavailable
from gateway.objectstore.opening import open_store
from gateway.objectstore.protocol import ObjectStore
from tests.support import stores
from tests.support.memorystore import MemoryStore
from trainers.errors import DataError, LeaseLost, Preempted, SpecError
from trainers.launch import claim
from trainers.launch.environment import Assignment, Scheduled
from trainers.spec import reading

SPEC = reading.from_options({"recipe": "flights"})
HOUR = 3600 * 10**9
NOON = 1_764_072_000 * 10**9


@pytest.fixture(params=["local", "moto"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[ObjectStore]:
    async with contextlib.aclosing(open_store(stores.empty(request))) as opened:
        yield opened


def assigned(time: str = "20261130T030000Z", *, job: str = "job-1", **options: Any) -> Assignment:
    scheduled = Scheduled("weekly", time)
    spec = reading.from_options({"recipe": "flights", **options})
    return Assignment(spec, scheduled.run_id, "s3://x", "aws-batch", 1, job, scheduled)


async def test_a_job_of_no_schedule_has_nothing_to_claim(store: ObjectStore) -> None:
    entry = await claim.enter(store, Assignment(SPEC, "run-1", "s3://x", "local", 1, "run-1", None), NOON)
    assert (entry.refusal, entry.lease) == ("", None)
    assert [row.key async for row in store.list("")] == []


async def test_a_doubled_event_makes_one_run(store: ObjectStore) -> None:
    entries = await asyncio.gather(*(claim.enter(store, assigned(job=f"job-{i}"), NOON) for i in range(8)))
    assert sum(entry.lease is not None for entry in entries) == 1
    (refusal,) = {entry.refusal.split(";")[0] for entry in entries if entry.refusal}
    assert refusal == "the event of schedule 'weekly' at 20261130T030000Z came twice"
    stored = codec.decode((await store.get(layout.schedule_claim("weekly", "20261130T030000Z"))).body, ScheduleClaim)
    winner = next(i for i, entry in enumerate(entries) if entry.lease)
    assert (stored.job, stored.run_id) == (f"job-{winner}", "weekly-20261130t030000z")


async def test_a_later_attempt_of_the_same_job_goes_on(store: ObjectStore) -> None:
    first = await claim.enter(store, assigned(), NOON)
    again = await claim.enter(store, assigned(), NOON + HOUR)
    assert first.lease
    assert again.lease
    assert not again.refusal
    await first.lease.renew(NOON + HOUR)  # of the same run: not lost
    await again.lease.renew(NOON + HOUR)


async def test_overlap_is_forbidden_until_the_run_ends(store: ObjectStore) -> None:
    first = await claim.enter(store, assigned(), NOON)
    second = await claim.enter(store, assigned("20261207T030000Z", job="job-2"), NOON + HOUR)
    assert second.lease is None
    assert "run weekly-20261130t030000z holds schedule 'weekly' until 2025-11-25T14:00:00Z" in second.refusal
    assert "(overlap: forbid)" in second.refusal
    assert first.lease
    await first.lease.release()
    third = await claim.enter(store, assigned("20261214T030000Z", job="job-3"), NOON + HOUR)
    assert third.lease


async def test_a_lease_that_is_not_renewed_ends(store: ObjectStore) -> None:
    lost = (await claim.enter(store, assigned(), NOON)).lease
    assert lost
    ended = NOON + (claim.LEASE_S_MIN + claim.SKEW_S) * 10**9
    early = await claim.enter(store, assigned("20261207T030000Z", job="job-2"), ended - 1)
    assert early.refusal
    late = await claim.enter(store, assigned("20261214T030000Z", job="job-3"), ended)
    assert late.lease
    with pytest.raises(LeaseLost, match="run weekly-20261214t030000z holds schedule 'weekly' now"):
        await lost.renew(ended)
    await lost.release()  # takes nothing away from who holds it now
    await late.lease.renew(ended)


async def test_a_renewed_lease_lasts(store: ObjectStore) -> None:
    lease = (await claim.enter(store, assigned(), NOON)).lease
    assert lease
    for hours in range(1, 5):
        await lease.renew(NOON + hours * HOUR)
    refused = await claim.enter(store, assigned("20261207T030000Z", job="job-2"), NOON + 5 * HOUR)
    assert refused.refusal
    assert lease.renew_every_s * 4 == claim.LEASE_S_MIN


async def test_many_events_at_once_leave_one_holder(store: ObjectStore) -> None:
    jobs = [assigned(f"202611{day:02d}T030000Z", job=f"job-{day}") for day in range(1, 9)]
    entries = await asyncio.gather(*(claim.enter(store, job, NOON) for job in jobs))
    assert sum(entry.lease is not None for entry in entries) == 1


async def test_a_deleted_lease_is_lost(store: ObjectStore) -> None:
    lease = (await claim.enter(store, assigned(), NOON)).lease
    assert lease
    await store.delete(layout.schedule_lease("weekly"))
    with pytest.raises(LeaseLost, match="was deleted"):
        await lease.renew(NOON)


async def test_a_claim_whose_answer_was_lost_is_found_again() -> None:
    store = MemoryStore()
    store.faults.append("lost answer")
    with pytest.raises(StoreUnavailable):
        await claim.enter(store, assigned(), NOON)
    assert (await claim.enter(store, assigned(), NOON)).lease
    assert (await claim.enter(store, assigned(job="job-2"), NOON)).refusal


def test_who_may_wait_long_for_a_machine_keeps_its_schedule_as_long() -> None:
    patient = reading.from_options({"recipe": "flights", "market.fallback_on_demand_after": "5h"})
    assert (claim.lifetime_s(SPEC), claim.lifetime_s(patient)) == (7_200, 36_000)


class Ticks:
    """Waits that end when the test says so."""

    def __init__(self) -> None:
        self.waited = list[float]()
        self.ends = asyncio.Queue[None]()
        self._began = asyncio.Queue[None]()

    async def wait(self, seconds: float) -> None:
        self.waited.append(seconds)
        self._began.put_nowait(None)
        await self.ends.get()

    async def tick(self) -> None:
        """A wait ends, and what follows it is done when the next one begins."""
        await self.began()
        self.ends.put_nowait(None)

    async def began(self) -> None:
        await self._began.get()


async def test_a_held_schedule_is_renewed_and_given_back() -> None:
    store, ticks, now = MemoryStore(), Ticks(), [NOON]
    async with claim.held(store, assigned(), lost=pytest.fail, now_ns=lambda: now[0], wait=ticks.wait) as entry:
        assert not entry.refusal
        for _ in range(4):
            now[0] += HOUR // 2
            await ticks.tick()
        await ticks.began()
        store.faults.append("unavailable")
        now[0] += HOUR // 2
        ticks.ends.put_nowait(None)
        await ticks.began()
        other = await claim.enter(store, assigned("20261207T030000Z", job="job-2"), now[0])
        assert other.refusal
    assert ticks.waited[0] == claim.LEASE_S_MIN / 4
    assert (await claim.enter(store, assigned("20261214T030000Z", job="job-3"), now[0])).lease


async def test_a_schedule_lost_meanwhile_is_told_and_not_given_back() -> None:
    store, ticks, now = MemoryStore(), Ticks(), [NOON]
    told = asyncio.Queue[LeaseLost]()
    async with claim.held(store, assigned(), lost=told.put_nowait, now_ns=lambda: now[0], wait=ticks.wait):
        now[0] += 3 * HOUR
        taken = await claim.enter(store, assigned("20261207T030000Z", job="job-2"), now[0])
        assert taken.lease
        await ticks.tick()
        assert "holds schedule 'weekly' now" in str(await told.get())
    assert (await claim.enter(store, assigned("20261214T030000Z", job="job-3"), now[0])).refusal


async def test_a_refused_job_renews_nothing() -> None:
    store, ticks = MemoryStore(), Ticks()
    await claim.enter(store, assigned(), NOON)
    async with claim.held(store, assigned(job="job-2"), lost=pytest.fail, wait=ticks.wait) as entry:
        assert "came twice" in entry.refusal
    assert ticks.waited == []


@pytest.mark.parametrize("error", [ZeroDivisionError(), DataError("no rows"), SpecError("no")])
async def test_a_training_that_failed_for_good_gives_its_schedule_back(error: Exception) -> None:
    store = MemoryStore()
    with pytest.raises(type(error)):
        async with claim.held(store, assigned(), lost=pytest.fail, now_ns=lambda: NOON):
            raise error
    assert (await claim.enter(store, assigned("20261207T030000Z", job="job-2"), NOON)).lease


@pytest.mark.parametrize("error", [Preempted("saved"), StoreUnavailable("down"), asyncio.CancelledError()])
async def test_a_training_that_will_be_tried_again_keeps_its_schedule(error: BaseException) -> None:
    store = MemoryStore()
    with pytest.raises(type(error)):
        async with claim.held(store, assigned(), lost=pytest.fail, now_ns=lambda: NOON):
            raise error
    assert (await claim.enter(store, assigned("20261207T030000Z", job="job-2"), NOON)).refusal
    assert (await claim.enter(store, assigned(), NOON)).lease


STEPS = st.lists(
    st.tuples(st.sampled_from(["enter", "renew", "release"]), st.integers(0, 3), st.integers(0, 2)), max_size=25
)


@given(STEPS)
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_in_any_order_nobody_holds_a_schedule_beside_somebody_else(steps: list[tuple[str, int, int]]) -> None:
    """`steps` are what, which of four runs, and how many hours pass before."""

    async def play() -> None:
        store, now, leases = MemoryStore(), NOON, dict[int, claim.Lease]()
        until = dict[int, int]()
        for what, run, hours in steps:
            now += hours * HOUR
            valid = {other for other, end in until.items() if other != run and now < end}
            if what == "enter":
                entry = await claim.enter(store, assigned(f"2026110{run + 1}T030000Z", job=f"job-{run}"), now)
                assert not (entry.lease and valid), "two runs hold the schedule"
                if entry.lease:
                    leases[run], until[run] = entry.lease, now + claim.LEASE_S_MIN * 10**9
            elif run in leases:
                with contextlib.suppress(LeaseLost):
                    if what == "renew":
                        await leases[run].renew(now)
                        assert not valid
                        until[run] = now + claim.LEASE_S_MIN * 10**9
                    else:
                        await leases.pop(run).release()
                        until.pop(run)

    asyncio.run(play())

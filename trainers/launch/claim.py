"""The first thing that a scheduled job does: is this event mine, and is no other run of the schedule at work?

Events are delivered at least once, and a run may outlast the interval. So the event is claimed by a conditional put, and the
schedule is held by a lease that the run renews with its heartbeat and gives back at its end. A later attempt of the same job finds
its own claim and its own lease.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec

from gateway import wording
from gateway.contract import codec, layout
from gateway.contract.schedules import ScheduleClaim, ScheduleLease
from gateway.errors import ObjectNotFound, PreconditionFailed, StoreUnavailable
from gateway.objectstore.protocol import ObjectStore
from trainers import exits
from trainers.errors import LeaseLost
from trainers.launch.environment import Assignment, Scheduled
from trainers.spec.jobspec import JobSpec

LEASE_S_MIN = 7_200
"""Two hours: between two attempts a run may wait in a queue for a machine, and nobody should take its place meanwhile."""

SKEW_S = 60
"""How far two machines' clocks may be apart: so long after its end a lease is still left alone."""

TRIES = 10
"""Of a conditional write: each lost one means that another made progress, and one schedule has few at once."""

NS = 10**9


class Lease:
    """A schedule held by a run. Not for two tasks at once."""

    def __init__(self, store: ObjectStore, held: ScheduleLease, etag: str, lifetime_s: int) -> None:
        self._store = store
        self._held = held
        self._etag = etag
        self._lifetime_s = lifetime_s

    @property
    def renew_every_s(self) -> float:
        """Often enough that three renewals may fail."""
        return self._lifetime_s / 4

    async def renew(self, now_ns: int) -> None:
        """Raises `LeaseLost` when another run holds the schedule, or a store's error: then try again before the lease ends."""
        await self._put(msgspec.structs.replace(self._held, expires_ns=now_ns + self._lifetime_s * NS))

    async def release(self) -> None:
        """The next event may begin. Nothing happens when another run holds the schedule already."""
        try:
            await self._put(msgspec.structs.replace(self._held, expires_ns=0))
        except LeaseLost:
            return

    async def _put(self, lease: ScheduleLease) -> None:
        key = layout.schedule_lease(lease.schedule)
        for _ in range(TRIES):
            try:
                self._etag = await self._store.put_if_match(key, codec.encode(lease), self._etag)
            except PreconditionFailed:
                self._etag = await self._others_etag(key)
            else:
                self._held = lease
                return
        raise StoreUnavailable(f"the lease of schedule '{lease.schedule}' keeps changing; try again")

    async def _others_etag(self, key: str) -> str:
        """Of a later attempt of this same run, or of our own write whose answer was lost."""
        try:
            found = await self._store.get(key)
        except ObjectNotFound:
            raise LeaseLost(
                f"the lease of schedule '{self._held.schedule}' was deleted while this run held it"
            ) from None
        other = codec.decode(found.body, ScheduleLease)
        if other.run_id != self._held.run_id:
            raise LeaseLost(
                f"run {other.run_id} holds schedule '{other.schedule}' now; this run was silent for too long"
            )
        return found.etag


class Entry(msgspec.Struct, frozen=True):
    """Whether to go on: `refusal` is a sentence for the log when not, and the process then ends with 0. `lease`: renew, release."""

    refusal: str = ""
    lease: Lease | None = None


async def enter(store: ObjectStore, assigned: Assignment, now_ns: int) -> Entry:
    """For a job that no schedule started there is nothing to do. Raises a store's error; nothing has begun then."""
    if assigned.scheduled is None:
        return Entry()
    refusal = await _claim(store, assigned.scheduled, assigned, now_ns)
    return Entry(refusal) if refusal else await _take(store, assigned, assigned.scheduled, now_ns)


@contextlib.asynccontextmanager
async def held(
    store: ObjectStore,
    assigned: Assignment,
    *,
    lost: Callable[[LeaseLost], None],
    now_ns: Callable[[], int] = time.time_ns,
    wait: Callable[[float], Awaitable[object]] = asyncio.sleep,
) -> AsyncIterator[Entry]:
    """`enter`, then renew in the background, and release at the end unless the job will be tried again: then it stays the run's.

    `lost` is called once, from the event loop, when another run took over: it should have the training stop. An `Entry` with a
    refusal means that nothing may begin. Raises a store's error on entering; later ones are tried again until the lease is lost.
    """
    entry = await enter(store, assigned, now_ns())
    if entry.lease is None:
        yield entry
        return
    renewing = asyncio.create_task(_renewed(entry.lease, lost, now_ns, wait))
    is_over = True
    try:
        yield entry
    except BaseException as error:
        is_over = not isinstance(error, asyncio.CancelledError) and exits.code_of(error) not in exits.RETRIED
        raise
    finally:
        renewing.cancel()
        await asyncio.wait([renewing])
        if is_over:
            with contextlib.suppress(StoreUnavailable):  # it ends by itself
                await entry.lease.release()


async def _renewed(
    lease: Lease,
    lost: Callable[[LeaseLost], None],
    now_ns: Callable[[], int],
    wait: Callable[[float], Awaitable[object]],
) -> None:
    while True:
        await wait(lease.renew_every_s)
        try:
            await lease.renew(now_ns())
        except StoreUnavailable:
            continue  # three more tries before it ends
        except LeaseLost as error:
            lost(error)
            return


def lifetime_s(spec: JobSpec) -> int:
    """How long a silent run keeps its schedule: it may have to wait for a machine as long as its spec allows."""
    after = spec.market.fallback_on_demand_after
    return max(LEASE_S_MIN, 2 * after.seconds if after else 0)


async def _claim(store: ObjectStore, scheduled: Scheduled, assigned: Assignment, now_ns: int) -> str:
    """ "" when this job has the event."""
    key = layout.schedule_claim(scheduled.schedule, scheduled.time)
    wanted = ScheduleClaim(
        schedule=scheduled.schedule, time=scheduled.time, run_id=assigned.run_id, job=assigned.job, claimed_ns=now_ns
    )
    try:
        await store.put_if_absent(key, codec.encode(wanted))
    except PreconditionFailed:
        found = codec.decode((await store.get(key)).body, ScheduleClaim)
        if found.job != assigned.job:
            return (
                f"the event of schedule '{scheduled.schedule}' at {scheduled.time} came twice; job {found.job} runs it "
                f"since {wording.moment(found.claimed_ns)}, so this one has nothing to do"
            )
    return ""


async def _take(store: ObjectStore, assigned: Assignment, scheduled: Scheduled, now_ns: int) -> Entry:
    key, seconds = layout.schedule_lease(scheduled.schedule), lifetime_s(assigned.spec)
    wanted = ScheduleLease(schedule=scheduled.schedule, run_id=assigned.run_id, expires_ns=now_ns + seconds * NS)
    for _ in range(TRIES):
        try:
            found = await store.get(key)
            held = codec.decode(found.body, ScheduleLease)
            if held.run_id != assigned.run_id and held.expires_ns and now_ns < held.expires_ns + SKEW_S * NS:
                until = wording.moment(held.expires_ns)
                return Entry(
                    f"run {held.run_id} holds schedule '{held.schedule}' until {until} at least; "
                    f"the event of {scheduled.time} is left out (overlap: forbid)"
                )
            etag = await store.put_if_match(key, codec.encode(wanted), found.etag)
        except ObjectNotFound:
            try:
                etag = await store.put_if_absent(key, codec.encode(wanted))
            except PreconditionFailed:
                continue
        except PreconditionFailed:
            continue
        return Entry(lease=Lease(store, wanted, etag, seconds))
    raise StoreUnavailable(f"the lease of schedule '{scheduled.schedule}' keeps changing; try again")

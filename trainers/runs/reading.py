"""Reads runs from a store and says what state they are in. Writes nothing: `records` does.

A run is never taken for dead because a question about it failed: only its own record or an old heartbeat says so.
"""

import asyncio
import difflib
import time
from collections.abc import Callable
from typing import Literal, TypeVar

import msgspec

from gateway.contract import codec, layout
from gateway.contract.runs import (
    AttemptEnd,
    AttemptRecord,
    Cancellation,
    Heartbeat,
    Outcome,
    RunRecord,
    StageRecord,
)
from gateway.contract.words import is_name
from gateway.errors import ArtifactError, ObjectNotFound
from gateway.objectstore.protocol import ObjectStore
from trainers.errors import SpecError
from trainers.runs import settle

READS_AT_ONCE = 16
"""Of small objects, for people who wait: half of the connections that the S3 store keeps."""

MISSED_BEATS_MAX = 3
"""So many intervals without a heartbeat, and the attempt counts as lost: one may be late, and one may fail."""

NAMES_SHOWN_MAX = 10

T = TypeVar("T", bound=msgspec.Struct)
State = Literal["waiting", "running", "cancelling"] | Outcome
RUNNING = ("running", "cancelling")


class Tried(msgspec.Struct, frozen=True):
    """One attempt; `end` is None while it runs, and until an attempt that died is settled."""

    attempt: AttemptRecord
    end: AttemptEnd | None


class RunView(msgspec.Struct, frozen=True):
    """All small records of one run, as they were read: not at one moment, since others write meanwhile."""

    run: RunRecord
    tried: tuple[Tried, ...]
    heartbeat: Heartbeat | None
    cancellation: Cancellation | None

    @property
    def beat(self) -> Heartbeat | None:
        """The newest attempt's heartbeat; one of an earlier attempt says nothing about it."""
        is_newest = self.heartbeat and self.tried and self.heartbeat.attempt == self.tried[-1].attempt.attempt
        return self.heartbeat if is_newest else None

    def ends(self, now_ns: int) -> list[AttemptEnd]:
        """How each attempt ended, as stored; those without a record as they would be settled, a running one as it stands."""
        is_running = state(self, now_ns) in RUNNING
        ends: list[AttemptEnd] = []
        for tried in self.tried:
            settled = settle.so_far if is_running and tried is self.tried[-1] else settle.abandoned
            ends.append(tried.end or settled(tried.attempt, settle.earlier(ends), self.beat))
        return ends

    def unsettled(self, now_ns: int) -> tuple[int, ...]:
        """The attempts that are over and have no record of it: their cost is taken from a heartbeat until someone settles them."""
        over = self.tried[:-1] if state(self, now_ns) in RUNNING else self.tried
        return tuple(tried.attempt.attempt for tried in over if tried.end is None)


def state(view: RunView, now_ns: int) -> State:
    """`running` while the newest attempt's heartbeat is younger than three intervals, `lost` after; else how it ended.

    A heartbeat from the future is a young one: clocks differ, and nothing else is known.
    """
    if not view.tried:
        return "cancelled" if view.cancellation else "waiting"
    newest = view.tried[-1]
    if newest.end is not None:
        return newest.end.outcome
    if now_ns - seen_ns(view) >= MISSED_BEATS_MAX * interval_ns(view):
        return "lost"
    return "cancelling" if view.cancellation else "running"


def seen_ns(view: RunView) -> int:
    """When there was last a sign of life, by the clock of whoever gave it."""
    if view.tried and view.tried[-1].end is not None:
        return view.tried[-1].end.ended_ns
    if view.beat is not None:
        return view.beat.at_ns
    return view.tried[-1].attempt.started_ns if view.tried else view.run.created_ns


def interval_ns(view: RunView) -> int:
    return view.beat.interval_ns if view.beat else 30 * 10**9


async def names(store: ObjectStore) -> list[str]:
    """Every run id under which there is anything."""
    return [name for name in await store.folders(layout.RUNS) if is_name(name)]


async def every(store: ObjectStore) -> tuple[list[RunView], list[str]]:
    """All runs, the newest first, and a sentence for each that cannot be read. What has no `run.json` is no run."""
    slots = asyncio.Semaphore(READS_AT_ONCE)

    async def read(name: str) -> RunView | ArtifactError | None:
        async with slots:
            try:
                return await _read(store, name)
            except ArtifactError as error:
                return error

    found = await asyncio.gather(*map(read, await names(store)))
    views = [view for view in found if isinstance(view, RunView)]
    views.sort(key=lambda view: (view.run.created_ns, view.run.run_id), reverse=True)
    return views, [str(error) for error in found if isinstance(error, ArtifactError)]


async def one(store: ObjectStore, run_id: str) -> RunView:
    """Raises `SpecError` naming the runs whose names are nearest."""
    view = await _read(store, run_id) if is_name(run_id) else None
    if view is None:
        raise await unknown(store, run_id)
    return view


async def unknown(store: ObjectStore, run_id: str) -> SpecError:
    known = await names(store)
    near = difflib.get_close_matches(run_id, known, n=3, cutoff=0.5)
    if near:
        return SpecError(f"no run is named '{run_id[:64]}'; nearest: {', '.join(near)}")
    there = f"there are: {', '.join(known[:NAMES_SHOWN_MAX])}" if known else "there are none in this store yet"
    return SpecError(f"no run is named '{run_id[:64]}'; {there}")


async def numbers(store: ObjectStore, run_id: str) -> dict[int, bool]:
    """Every attempt that was claimed, ascending, and whether its end is recorded."""
    stems = [info.key.rpartition("/")[2].removesuffix(".json") async for info in store.list(layout.attempts(run_id))]
    return {int(stem): f"{stem}-end" in stems for stem in stems if stem.isdecimal()}


async def tried(store: ObjectStore, run_id: str) -> tuple[Tried, ...]:
    """Every attempt, oldest first."""

    async def read(number: int, *, is_over: bool) -> Tried:
        attempt = await _get(store, layout.attempt(run_id, number), AttemptRecord)
        end = await _get(store, layout.attempt_end(run_id, number), AttemptEnd) if is_over else None
        return Tried(attempt, end)

    found = list((await numbers(store, run_id)).items())
    tried: list[Tried] = []
    for start in range(0, len(found), READS_AT_ONCE):
        some = found[start : start + READS_AT_ONCE]
        tried += await asyncio.gather(*(read(number, is_over=is_over) for number, is_over in some))
    return tuple(tried)


class StepsReached:
    """How far a run's attempts came, for whoever decides whether another is worth it."""

    def __init__(self, store: ObjectStore, *, now_ns: Callable[[], int] = time.time_ns) -> None:
        self._store = store
        self._now_ns = now_ns

    async def steps_reached(self, run_id: str) -> list[int]:
        """The highest step that was saved when each attempt ended, oldest first; empty when none began, or there is no such run."""
        view = await _read(self._store, run_id)
        return [end.kept_step for end in view.ends(self._now_ns())] if view else []


async def stages(store: ObjectStore, run_id: str) -> list[StageRecord]:
    """What is stored of a run's stages, in the order it was made."""
    keys = [info.key async for info in store.list(layout.stages(run_id))]
    records = [await _get(store, key, StageRecord) for key in keys]
    return sorted(records, key=lambda record: record.finished_ns)


async def heartbeat(store: ObjectStore, run_id: str) -> Heartbeat | None:
    return await _find(store, layout.heartbeat(run_id), Heartbeat)


async def cancellation(store: ObjectStore, run_id: str) -> Cancellation | None:
    return await _find(store, layout.cancellation(run_id), Cancellation)


async def record(store: ObjectStore, run_id: str) -> RunRecord | None:
    return await _find(store, layout.run(run_id), RunRecord)


async def _read(store: ObjectStore, run_id: str) -> RunView | None:
    run = await record(store, run_id)
    if run is None:
        return None
    # The heartbeat first: an attempt claimed after it makes it an earlier attempt's, never the other way round.
    beat = await heartbeat(store, run_id)
    return RunView(run, await tried(store, run_id), beat, await cancellation(store, run_id))


async def _get(store: ObjectStore, key: str, kind: type[T]) -> T:
    return codec.decode((await store.get(key)).body, kind, what=f"'{key}'")


async def _find(store: ObjectStore, key: str, kind: type[T]) -> T | None:
    try:
        return await _get(store, key, kind)
    except ObjectNotFound:
        return None

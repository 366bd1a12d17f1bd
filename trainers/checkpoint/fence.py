"""The pointer `LATEST` and its fencing token: of several attempts at one run, only the newest may save. `store` calls it.

An attempt takes its number when it begins, by compare-and-swap. Whoever finds a higher number there, or its own with another
owner, is a left-over: it gets `Fenced` and must end.
"""

import secrets

import msgspec

from gateway.contract import codec, layout
from gateway.contract.checkpoint import CheckpointRef, Latest
from gateway.errors import ManifestInvalid, ObjectNotFound, PreconditionFailed, StoreUnavailable
from gateway.objectstore.protocol import ObjectStore
from trainers.checkpoint.listing import listed
from trainers.errors import Fenced

SWAPS_MAX = 10  # each lost swap is another attempt that began; so many at once are no accident


class Seen(msgspec.Struct, frozen=True):
    """`LATEST` at one moment. `latest` is None when it is missing or damaged; `attempt` is the newest one that is known, or 0."""

    etag: str | None
    latest: Latest | None
    attempt: int

    @property
    def checkpoint(self) -> CheckpointRef | None:
        return self.latest.checkpoint if self.latest else None


class _Versioned(msgspec.Struct):
    schema_version: int = 0


class Fence:
    """This attempt's number and its right to move `LATEST`; made by `claim`."""

    def __init__(self, store: ObjectStore, run_id: str, attempt: int, owner: str) -> None:
        self.attempt = attempt
        self._store = store
        self._run_id = run_id
        self._owner = owner

    async def require_newest(self) -> Seen:
        """Raises `Fenced` when a newer attempt has begun."""
        seen = await look(self._store, self._run_id)
        is_other = seen.latest is not None and seen.attempt == self.attempt and seen.latest.owner != self._owner
        if seen.attempt > self.attempt or is_other:
            raise Fenced(
                f"run '{self._run_id}': attempt {seen.attempt} has taken over from this attempt {self.attempt}; "
                "this one ends and publishes nothing"
            )
        return seen

    async def move(self, checkpoint: CheckpointRef) -> None:
        """Let `LATEST` name this committed checkpoint. Raises `Fenced`; `StoreUnavailable` after `SWAPS_MAX` lost swaps."""
        latest = Latest(attempt=self.attempt, owner=self._owner, checkpoint=checkpoint)
        for _ in range(SWAPS_MAX):
            seen = await self.require_newest()
            if seen.latest == latest or await _swap(self._store, self._run_id, seen, latest):
                return
        raise _crowded(self._run_id)


async def claim(store: ObjectStore, run_id: str, attempt: int | None) -> Fence:
    """Become the newest attempt: number `attempt`, or None for the next free one. What `LATEST` names stays named.

    Raises `Fenced` when this number was taken before, or a higher one.
    """
    owner = secrets.token_hex(8)
    for _ in range(SWAPS_MAX):
        seen = await look(store, run_id)
        if seen.latest and seen.latest.owner == owner:  # our own swap, whose answer was lost
            return Fence(store, run_id, seen.attempt, owner)
        number = seen.attempt + 1 if attempt is None else attempt
        if number <= seen.attempt:
            raise Fenced(
                f"run '{run_id}': attempt {seen.attempt} has begun already, so this one cannot be attempt {number}; "
                "leave the number out to take the next one"
            )
        if await _swap(store, run_id, seen, Latest(attempt=number, owner=owner, checkpoint=seen.checkpoint)):
            return Fence(store, run_id, number, owner)
    raise _crowded(run_id)


async def look(store: ObjectStore, run_id: str) -> Seen:
    """`LATEST` as it is. Where it is missing or damaged, the checkpoints that exist say which attempts there were."""
    try:
        found = await store.get(layout.latest_checkpoint(run_id))
    except ObjectNotFound:
        return Seen(None, None, await _newest_attempt(store, run_id))
    try:
        latest = codec.decode(found.body, Latest)
    except ManifestInvalid:
        if _is_newer(found.body):
            raise  # not damaged: a newer Steelyard works on this run
        return Seen(found.etag, None, await _newest_attempt(store, run_id))
    return Seen(found.etag, latest, latest.attempt)


async def _swap(store: ObjectStore, run_id: str, seen: Seen, latest: Latest) -> bool:
    key, body = layout.latest_checkpoint(run_id), codec.encode(latest)
    try:
        if seen.etag is None:
            await store.put_if_absent(key, body)
        else:
            await store.put_if_match(key, body, seen.etag)
    except PreconditionFailed:
        return False
    return True


async def _newest_attempt(store: ObjectStore, run_id: str) -> int:
    return max((place.attempt for place in await listed(store, run_id)), default=0)


def _is_newer(body: bytes) -> bool:
    try:
        return msgspec.json.decode(body, type=_Versioned).schema_version > codec.schema_version(Latest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False


def _crowded(run_id: str) -> StoreUnavailable:
    return StoreUnavailable(
        f"run '{run_id}': {SWAPS_MAX} other attempts moved LATEST meanwhile; stop them, then run again"
    )

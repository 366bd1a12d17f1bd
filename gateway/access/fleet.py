"""Lets the gateways of a fleet keep one daily budget per key, through the store and without a database.

Each gateway writes one small object a day, what its own receipts add up to by key, and reads those of the others. It is the only
writer of its object (named by container and boot), so the compare-and-swap fails only where an earlier answer was lost.

A gateway that had receipts for keys with a budget does both once per `access.spend_interval_s`; one that had none does nothing. A
receipt is written within one interval and read by the others within the next, so once a budget is spent each gateway lets through
what is asked of it in two intervals at most, and what was in flight. A gateway alone lets through what was in flight. While the
store cannot be reached each goes on with what it last knew of the others. A container that starts reads the day before it answers;
one that is killed loses at most its last interval.

The ledger, not these counters, is the record of what was spent. They may be deleted once their day is over.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Mapping

import msgspec

from gateway.access.parallel import each
from gateway.access.spend import DaySpend, date
from gateway.contract import codec, layout
from gateway.contract.access import SpendRecord
from gateway.contract.words import DAY_NS
from gateway.errors import ManifestInvalid, ObjectNotFound, PreconditionFailed
from gateway.objectstore.protocol import ObjectStore

logger = logging.getLogger(__name__)

LIVES_MAX = 2048
"""Containers' lives of one day that are read; a fleet that passes it is told so, and its budgets miss the rest."""


class _Life(msgspec.Struct):
    """Another container's life as last read. One that is closed, or cannot be read, is not read again."""

    etag: str
    spent_picousd: dict[str, int]
    is_final: bool


class FleetSpend:
    """This container's side of it. Calls wait for each other; the purses change meanwhile, on the event loop."""

    def __init__(self, store: ObjectStore, *, container: str, boot_ns: int) -> None:
        self._store = store
        self._container = container
        self._boot_ns = boot_ns
        self._one_at_a_time = asyncio.Lock()
        self._begin("")

    async def read(self, purses: Mapping[str, DaySpend], now_ns: int) -> None:
        """Learn what the others have spent today. Raises `StoreUnavailable`."""
        async with self._one_at_a_time:
            self._turn(now_ns)
            await self._read(purses, now_ns)

    async def sync(self, purses: Mapping[str, DaySpend], now_ns: int) -> None:
        """If anything was spent here since the last time: read the others, then write our own. Raises `StoreUnavailable`."""
        async with self._one_at_a_time:
            self._turn(now_ns)
            own = _own(purses, now_ns)
            if own != self._written:
                await self._read(purses, now_ns)  # first, so that a store that is read-only for us still tells us
                await self._write(own, closed=False)

    async def close(self, purses: Mapping[str, DaySpend], now_ns: int) -> None:
        """Write the last receipts and that no more will come. Raises `StoreUnavailable`."""
        async with self._one_at_a_time:
            self._turn(now_ns)
            own = _own(purses, now_ns)
            if own or self._etag is not None:
                await self._write(own, closed=True)

    def _turn(self, now_ns: int) -> None:
        if date(now_ns) != self._date:
            self._begin(date(now_ns))

    def _begin(self, day: str) -> None:
        self._date = day
        self._etag: str | None = None
        self._written: dict[str, int] = {}
        self._lives: dict[str, _Life] = {}
        self._totals = Counter[str]()

    async def _read(self, purses: Mapping[str, DaySpend], now_ns: int) -> None:
        own_key, day = self._key(), self._date
        listed = [info.key async for info in self._store.list(layout.spends(day)) if info.key != own_key]
        if len(listed) > LIVES_MAX:
            logger.error("%d containers wrote what they spent on %s, of which %d count", len(listed), day, LIVES_MAX)
        await each(listed[:LIVES_MAX], self._read_life)
        for key_id, purse in purses.items():
            purse.turn(now_ns)
            if purse.day == now_ns // DAY_NS:  # midnight may have passed while we read
                purse.others_picousd = self._totals[key_id]

    async def _read_life(self, key: str) -> None:
        before = self._lives.get(key)
        if before is not None and before.is_final:
            return
        try:
            stored = await (self._store.get_if_changed(key, before.etag) if before else self._store.get(key))
        except ObjectNotFound:  # deleted since it was listed: what was spent stays spent
            return
        if stored is None:
            return
        try:
            record = codec.decode(stored.body, SpendRecord, what=f"the record {key!r}")
        except ManifestInvalid as error:
            logger.warning("what a container spent is not counted: %s", error)
            self._lives[key] = _Life(stored.etag, before.spent_picousd if before else {}, is_final=True)
            return
        self._totals.subtract(before.spent_picousd if before else {})
        self._totals.update(record.spent_picousd)
        self._lives[key] = _Life(stored.etag, record.spent_picousd, record.closed)

    async def _write(self, own: dict[str, int], *, closed: bool) -> None:
        record = SpendRecord(self._container, self._boot_ns, self._date, own, closed)
        key, body = self._key(), codec.encode(record)
        try:
            self._etag = await self._put(key, body)
        except PreconditionFailed:  # an earlier write of ours was stored and its answer lost, or somebody deleted it
            try:
                self._etag = (await self._store.get(key)).etag
            except ObjectNotFound:
                self._etag = None
            self._etag = await self._put(key, body)
        self._written = own

    async def _put(self, key: str, body: bytes) -> str:
        if self._etag is None:
            return await self._store.put_if_absent(key, body)
        return await self._store.put_if_match(key, body, self._etag)

    def _key(self) -> str:
        return layout.spend(self._date, self._container, self._boot_ns)


def _own(purses: Mapping[str, DaySpend], now_ns: int) -> dict[str, int]:
    """What was spent here today; keys that spent nothing are left out."""
    for purse in purses.values():
        purse.turn(now_ns)
    return {key_id: purse.own_picousd for key_id, purse in purses.items() if purse.own_picousd}

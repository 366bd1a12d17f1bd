"""Keeps a key ring equal to the store's `keys/`: one listing per look, and a GET for each record that is new or has another size.

We change a record only to revoke it, which makes it longer (`gateway.contract.access`). Somebody else may change one and not its
size, so each is read again once in `AGAIN_LOOKS` looks, a few at every look. What cannot be read as a key record is reported and is
no key: the others work on. On S3 looks every 5 s cost $4.40 a month for each thousand keys in each gateway: 526,000 LIST requests
at $5 per million, 4.4 million GET requests at $0.40 per million (S3 price list, us-east-1).
"""

import asyncio
import logging
from itertools import islice

from gateway.access.keyring import KeyRing
from gateway.access.parallel import each
from gateway.contract import codec, layout
from gateway.contract.access import KeyRecord
from gateway.errors import ManifestInvalid, ObjectNotFound
from gateway.objectstore.protocol import ObjectStore

logger = logging.getLogger(__name__)

RECORD_BYTES_MAX = 8192
"""A record of ours is below 1 KB unless it lists many models; a larger object is somebody's mistake and is not fetched."""

AGAIN_LOOKS = 120
"""Ten minutes at `access.poll_s` 5. Every look would cost $210 a month for each thousand keys; an hour is long for a revocation."""


class StoredKeys:
    """The keys of one store as last seen. `found` counts all objects, readable or not; `unreadable` says why, by object key."""

    def __init__(self, store: ObjectStore, ring: KeyRing, *, keys_max: int) -> None:
        self.unreadable: dict[str, str] = {}
        self._store = store
        self._ring = ring
        self._keys_max = keys_max
        self._sizes: dict[str, int] = {}  # the longest unread first
        self._owed = 0
        self._surplus = 0

    @property
    def found(self) -> int:
        return len(self._sizes)

    async def refresh(self) -> None:
        """Make the ring equal to the store. Raises `StoreUnavailable`; what was read until then counts, and is not read again."""
        listed = self._bounded(await self._listed())
        for key in self._sizes.keys() - listed.keys():
            self._forget(key)
        again, self._owed = divmod(self._owed + len(self._sizes), AGAIN_LOOKS)
        old = set(islice(self._sizes, again))
        due = [(key, size) for key, size in listed.items() if key in old or self._sizes.get(key) != size]
        await each(due, self._read)

    async def _listed(self) -> dict[str, int]:
        """Sizes by key. A folder's listing never waits, so others are let in between."""
        listed: dict[str, int] = {}
        async for info in self._store.list(layout.KEYS):
            listed[info.key] = info.size
            if len(listed) % 500 == 0:
                await asyncio.sleep(0)
        return listed

    def _bounded(self, listed: dict[str, int]) -> dict[str, int]:
        """At most `keys_max` of them, those that are used already first."""
        surplus = max(0, len(listed) - self._keys_max)
        if surplus > self._surplus:
            logger.error("%d keys are not used: there may be %d (access.keys_max)", surplus, self._keys_max)
        self._surplus = surplus
        if not surplus:
            return listed
        kept = sorted(listed, key=lambda key: (key not in self._sizes, key))[: self._keys_max]
        return {key: listed[key] for key in kept}

    async def _read(self, row: tuple[str, int]) -> None:
        key, size = row
        if size > RECORD_BYTES_MAX:
            self._refuse(key, size, f"it has {size} bytes; a key record has at most {RECORD_BYTES_MAX}")
            return
        try:
            body = (await self._store.get(key)).body
        except ObjectNotFound:  # deleted since it was listed
            self._forget(key)
            return
        try:
            record = _record(key, body)
        except ManifestInvalid as error:
            self._refuse(key, len(body), str(error))
            return
        self._ring.put(record)
        self._note(key, len(body))
        self.unreadable.pop(key, None)

    def _refuse(self, key: str, size: int, why: str) -> None:
        """No key, until the object changes. Said once."""
        if self.unreadable.get(key) != why:
            logger.error("%r is not used as a key: %s", key, why)
        self._ring.drop(_key_id(key))
        self._note(key, size)
        self.unreadable[key] = why

    def _note(self, key: str, size: int) -> None:
        self._sizes.pop(key, None)
        self._sizes[key] = size

    def _forget(self, key: str) -> None:
        self._ring.drop(_key_id(key))
        self._sizes.pop(key, None)
        self.unreadable.pop(key, None)


def _key_id(key: str) -> str:
    return key.removeprefix(layout.KEYS).removesuffix(".json")


def _record(key: str, body: bytes) -> KeyRecord:
    """Raises `ManifestInvalid`."""
    record = codec.decode(body, KeyRecord, what=f"the record {key!r}")
    if layout.key(record.id) != key:
        raise ManifestInvalid(f"it is the record of key '{record.id}'")
    return record

"""Issues, lists and revokes keys in a store. Only `steelyard keys` calls it; a gateway never writes a key record.

Every commit is a conditional write, so two people at once never overwrite each other.
"""

from collections.abc import Mapping

import msgspec

from gateway.access import tokens
from gateway.access.parallel import each
from gateway.contract import access, codec, layout
from gateway.contract.access import KeyRecord
from gateway.errors import GatewayError, ManifestInvalid, ObjectNotFound, PreconditionFailed
from gateway.objectstore.protocol import ObjectStore

ATTEMPTS_MAX = 5
"""Of a revocation that meets another change of the same record; the second attempt finds the key revoked."""


class Listed(msgspec.Struct, frozen=True):
    """One object below `keys/`: its record, or why it is none."""

    object_key: str
    record: KeyRecord | None
    problem: str = ""


def new(wanted: Mapping[str, object]) -> tuple[str, KeyRecord]:
    """A new key, which is stored nowhere and cannot be had again, and its record.

    `wanted` is everything in the record but its id and digest. Raises `msgspec.ValidationError` naming the field.
    """
    key_id, token = tokens.new()
    made = {"id": key_id, "secret_sha256": tokens.digest(token.encode()).hex()}
    return token, msgspec.convert({**wanted, **made}, KeyRecord)


async def add(store: ObjectStore, record: KeyRecord) -> None:
    """From now on the key is one."""
    try:
        await store.put_if_absent(layout.key(record.id), codec.encode(record))
    except PreconditionFailed:  # two ids of 50 random bits met
        raise GatewayError(f"there is a key '{record.id}' already; try again for another id") from None


async def listing(store: ObjectStore) -> list[Listed]:
    """Every key record there is, oldest first, and after them what cannot be read as one."""
    found: list[Listed] = []

    async def read(key: str) -> None:
        try:
            body = (await store.get(key)).body
            found.append(Listed(key, codec.decode(body, KeyRecord, what=f"the record {key!r}")))
        except ObjectNotFound:
            return  # deleted since it was listed
        except ManifestInvalid as error:
            found.append(Listed(key, None, str(error)))

    await each([info.key async for info in store.list(layout.KEYS)], read)
    return sorted(
        found, key=lambda row: (row.record is None, row.record.created_ns if row.record else 0, row.object_key)
    )


async def revoke(store: ObjectStore, key_id: str, *, at_ns: int, by: str) -> tuple[KeyRecord, bool]:
    """The record as it is now, and whether this call revoked it (false: it was revoked before).

    Raises `GatewayError` when there is no such key, `ManifestInvalid` when its record cannot be read.
    """
    for _ in range(ATTEMPTS_MAX):
        try:
            stored = await store.get(layout.key(key_id))
        except ObjectNotFound:
            raise GatewayError(f"no key '{key_id}' in {store.url}; `steelyard keys list` shows what there is") from None
        record = codec.decode(stored.body, KeyRecord, what=f"the record of key '{key_id}'")
        if record.revoked_ns is not None:
            return record, False
        body = access.revoked(stored.body, at_ns=at_ns, by=by)
        try:
            await store.put_if_match(layout.key(key_id), body, stored.etag)
        except PreconditionFailed:
            continue
        return codec.decode(body, KeyRecord), True
    raise GatewayError(f"key '{key_id}' was changed {ATTEMPTS_MAX} times by others meanwhile; try again")

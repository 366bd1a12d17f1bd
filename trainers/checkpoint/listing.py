"""Which checkpoints of a run the store holds, from their keys alone. Reads none of them."""

import re

import msgspec

from gateway.contract import layout
from gateway.contract.checkpoint import MANIFEST
from gateway.objectstore.protocol import ObjectStore

_KEY = re.compile(r"(\d{12,18})-(\d{4,9})/(.+)")


class Place(msgspec.Struct, frozen=True, order=True):
    """Where a checkpoint lies. A later attempt's sorts higher whatever its step: it resumed from what the earlier one left."""

    attempt: int
    step: int


async def listed(store: ObjectStore, run_id: str) -> dict[Place, set[str]]:
    """The names of the files at each place; a place without a manifest holds an upload that was never committed."""
    prefix = layout.checkpoints(run_id)
    found: dict[Place, set[str]] = {}
    async for row in store.list(prefix):
        if parts := _KEY.fullmatch(row.key.removeprefix(prefix)):
            found.setdefault(Place(int(parts[2]), int(parts[1])), set()).add(parts[3])
    return found


def committed(places: dict[Place, set[str]]) -> list[Place]:
    """Those with a manifest, the newest first."""
    return sorted((place for place, names in places.items() if MANIFEST in names), reverse=True)

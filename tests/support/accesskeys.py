"""Keys for tests, made as `steelyard keys add` makes them, and a time that a test moves by hand."""

from typing import Any

from gateway.access import issuing
from gateway.contract.access import KeyRecord
from gateway.objectstore.protocol import ObjectStore

NOON_NS = 1_795_608_000_000_000_000
"""2026-11-25T12:00:00Z."""

SECOND_NS = 1_000_000_000
HOUR_NS = 3600 * SECOND_NS


class Now:
    """What is called for the time; `ns` is what it says."""

    def __init__(self, ns: int = NOON_NS) -> None:
        self.ns = ns

    def __call__(self) -> int:
        return self.ns


def new(**fields: Any) -> tuple[str, KeyRecord]:  # Any: whichever fields of a key record
    """A key and its record; without limits and for all models unless the fields say otherwise."""
    wanted = {"tenant": "search", "rights": ("predict",), "models": ("*",), "created_ns": NOON_NS, "created_by": "anna"}
    return issuing.new(wanted | fields)


async def added(store: ObjectStore, **fields: Any) -> tuple[str, KeyRecord]:
    """The same, in the store."""
    token, record = new(**fields)
    await issuing.add(store, record)
    return token, record


async def revoke(store: ObjectStore, record: KeyRecord) -> None:
    await issuing.revoke(store, record.id, at_ns=NOON_NS, by="ben")


def bearer(token: str) -> bytes:
    """The value of an `Authorization` header."""
    return b"Bearer " + token.encode()

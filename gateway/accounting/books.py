"""Which price book a container is billed by: the operator's file, else the store's current book, else the one shipped.

Books lie in the store under their digests and never change; `prices/current.json` names one of them, and moves by compare-and-swap.
The gateway asks once when it starts, `steelyard prices update` moves it.
"""

import logging
from pathlib import Path

import msgspec

from gateway.contract import codec, layout, prices
from gateway.contract.prices import CurrentBook, PriceBook
from gateway.errors import GatewayError, ManifestInvalid, ObjectNotFound, PreconditionFailed, SettingsError
from gateway.objectstore.protocol import ObjectStore

logger = logging.getLogger(__name__)

MOVES_MAX = 5
"""Two operators who move the pointer at once meet again at most once; more than this is somebody's loop."""


class Moved(msgspec.Struct, frozen=True):
    """The pointer as it is now; `before` is None when there was none."""

    current: CurrentBook
    before: CurrentBook | None


async def current(store: ObjectStore) -> PriceBook | None:
    """The store's current book; None when nobody chose one. Raises `GatewayError` when it cannot be read or is not what it says."""
    found = await _pointer(store)
    return None if found is None else await stored(store, found[0])


async def stored(store: ObjectStore, pointer: CurrentBook) -> PriceBook:
    """Raises `GatewayError` when it is missing or has other bytes than its digest says."""
    book = PriceBook((await store.get(layout.price_book(pointer.sha256))).body, name=pointer.name)
    if book.sha256 != pointer.sha256:
        raise ManifestInvalid(
            f"price book {layout.price_book(pointer.sha256)} is damaged: run `steelyard prices update` again"
        )
    return book


async def make_current(store: ObjectStore, book: PriceBook, *, now_ns: int, actor: str) -> Moved:
    """Store the book under its digest, then have new containers use it. A book that is current already stays so, unchanged.

    Raises `StoreUnavailable`, or `PreconditionFailed` when others keep moving the pointer.
    """
    await _put(store, book)
    for _ in range(MOVES_MAX):
        found = await _pointer(store)
        before = found[0] if found else None
        if before is not None and before.sha256 == book.sha256:
            return Moved(before, before)
        pointer = CurrentBook(book.sha256, book.name, now_ns, actor, before.sha256 if before else "")
        body = codec.encode(pointer)
        try:
            if found is None:
                await store.put_if_absent(layout.current_prices(), body)
            else:
                await store.put_if_match(layout.current_prices(), body, found[1])
        except PreconditionFailed:
            continue
        return Moved(pointer, before)
    raise PreconditionFailed(
        f"{layout.current_prices()} was moved by others {MOVES_MAX} times meanwhile; run this again"
    )


async def chosen(store: ObjectStore, *, path: str, usd_per_hour: str, platform: str, day: str) -> PriceBook:
    """The book for a container that starts now on this platform. Only the operator's own settings can be refused.

    Raises `SettingsError` for a book file or a price that is wrong, or a platform that no book knows.
    """
    book = prices.load(Path(path)) if path else await _current_for(store, platform) or prices.shipped_for(platform)
    if usd_per_hour and platform != prices.MACHINE:
        raise SettingsError(
            f"accounting.usd_per_hour prices the platform '{prices.MACHINE}', and accounting.platform is '{platform}': "
            "set one of them"
        )
    if usd_per_hour:
        book = prices.with_machine(book, usd_per_hour, on=day)
    book.platform(platform)
    return book


async def _current_for(store: ObjectStore, platform: str) -> PriceBook | None:
    """A stored book that is damaged, away or does not know the platform is no reason not to serve."""
    try:
        book = await current(store)
        if book is not None:
            book.platform(platform)
    except (GatewayError, OSError) as error:
        logger.warning(
            "accounting: using the price book of this release, for the store's current one is no use: %s", error
        )
        return None
    return book


async def _pointer(store: ObjectStore) -> tuple[CurrentBook, str] | None:
    try:
        found = await store.get(layout.current_prices())
    except ObjectNotFound:
        return None
    return codec.decode(found.body, CurrentBook, what=layout.current_prices()), found.etag


async def _put(store: ObjectStore, book: PriceBook) -> None:
    key = layout.price_book(book.sha256)
    try:
        await store.put_if_absent(key, book.data)
    except PreconditionFailed:
        if (await store.get(key)).body != book.data:
            raise SettingsError(f"{key} exists with other bytes: it is damaged; delete it and run this again") from None

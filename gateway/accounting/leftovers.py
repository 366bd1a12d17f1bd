"""What earlier lives of a gateway left on this disk, on its way to the store under the keys they gave it.

A task of the ledger writer. Writing an object twice is harmless, for its key is its place and the store keeps the first; so nobody
needs to know how far the dead life had come.
"""

import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

from gateway.accounting.outbox import Outbox
from gateway.accounting.spill import Shelf, Shelves, Spill
from gateway.objectstore.blocking import in_thread
from gateway.objectstore.protocol import ObjectStore

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 600.0
"""Several gateways may share a disk: what one of them leaves need not wait for the next start. Listing a folder costs nothing."""
CLONED = "another process wrote as that life of the container. What it left on disk is set aside for you to look at"


class Leftovers:
    """`written` counts objects by kind, `set_aside` files that were no whole parcels or not to be written."""

    def __init__(
        self,
        store: ObjectStore,
        shelves: Shelves,
        *,
        put_timeout_s: float,
        sleep: Callable[[float], Awaitable[None]],
        jitter: Callable[[], float],
    ) -> None:
        self.written = Counter[str]()
        self.set_aside = 0
        self._store = store
        self._shelves = shelves
        self._put_timeout_s = put_timeout_s
        self._sleep = sleep
        self._jitter = jitter

    async def run(self) -> None:
        """Look for dead lives and write what they left, one after the other, until cancelled: what is left then stays on disk."""
        while True:
            found = await self._left()
            try:
                for shelf in found:
                    await self._try(shelf)
            finally:
                for shelf in found:
                    await in_thread(shelf.close)
            await self._sleep(LOOK_EVERY_S)

    async def _left(self) -> Sequence[Shelf]:
        try:
            return await in_thread(self._shelves.left)
        except OSError as error:
            logger.warning("ledger: cannot look for what earlier lives left on disk: %s", error)
            return []

    async def _try(self, shelf: Shelf) -> None:
        try:
            await self._ship(shelf)
        except Exception:  # a disk can fail in any way: another life's leftovers end nothing
            logger.exception("ledger: what is left in %s stays there", shelf.name)

    async def _ship(self, shelf: Shelf) -> None:
        spill = Spill(shelf, bytes_max=0)
        box = Outbox(
            self._store,
            bytes_max=0,
            put_timeout_s=self._put_timeout_s,
            sleep=self._sleep,
            jitter=self._jitter,
            spill=spill,
            on_conflict=CLONED,
        )
        try:
            found = await in_thread(spill.find)
            if found:
                logger.info("ledger: %s has %d objects that an earlier life could not write", shelf.name, len(found))
            box.add_stored(found)
            await box.empty()
        finally:
            self.written += box.written
            self.set_aside += spill.set_aside

"""Objects on their way to the store: created one by one, in order, and kept until the store has each for certain.

The ledger writer adds, one background task writes. An object that was attempted once keeps its bytes, for the attempt may have
succeeded without an answer; finding the same bytes there later is success, finding others stops this container's ledger. Only a
damaged price book does not: it is everybody's, and no bill needs it to be written.
"""

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from typing import Literal

import msgspec

from gateway.errors import PreconditionFailed
from gateway.objectstore.protocol import ObjectStore

logger = logging.getLogger(__name__)

FIRST_RETRY_S = 0.5
LAST_RETRY_S = 30.0
"""A store that comes back is used within half a minute; a fleet that waits this long and jittered does not stampede it."""


class Parcel(msgspec.Struct, frozen=True):
    """One object to create, and how much money it accounts for."""

    what: Literal["price book", "open record", "segment", "close record"]
    key: str
    body: bytes
    cost_picousd: int = 0


class Outbox:
    """`written` counts objects by kind, `failures` attempts that must be repeated, `conflicts` keys that another writer took."""

    def __init__(
        self,
        store: ObjectStore,
        *,
        bytes_max: int,
        put_timeout_s: float,
        sleep: Callable[[float], Awaitable[None]],
        jitter: Callable[[], float],
    ) -> None:
        """`bytes_max` is not enforced here: money is never refused. `is_full` asks the caller to add less often, and less."""
        self.written = Counter[str]()
        self.failures = 0
        self.conflicts = 0
        self.pending_bytes = 0
        self.unwritten_picousd = 0
        self._store = store
        self._bytes_max = bytes_max
        self._put_timeout_s = put_timeout_s
        self._sleep = sleep
        self._jitter = jitter
        self._pending: deque[Parcel] = deque()
        self._added = asyncio.Event()
        self._failed_in_row = 0

    @property
    def is_halted(self) -> bool:
        """Another writer has this container's keys: nothing more is written, what is added only counts as unwritten."""
        return self.conflicts > 0

    @property
    def is_full(self) -> bool:
        return self.is_halted or self.pending_bytes >= self._bytes_max

    def add(self, parcel: Parcel) -> None:
        """Never waits and never refuses."""
        self.unwritten_picousd += parcel.cost_picousd
        if not self.is_halted:
            self.pending_bytes += len(parcel.body)
            self._pending.append(parcel)
            self._added.set()

    async def run(self) -> None:
        """Write what is added, until cancelled. Cancelling loses nothing: `empty` or another `run` goes on."""
        while True:
            await self.empty()
            self._added.clear()
            await self._added.wait()

    async def empty(self) -> None:
        """Write until nothing is pending, however long the store takes. Not beside `run`: order needs a single writer."""
        while self._pending:
            try:
                async with asyncio.timeout(self._put_timeout_s):
                    await self._create(self._pending[0])
            except Exception as error:  # whatever a store raises, the bytes stay here and are tried again
                await self._back_off(error)

    async def _create(self, parcel: Parcel) -> None:
        try:
            await self._store.put_if_absent(parcel.key, parcel.body)
        except PreconditionFailed:
            if (await self._store.get(parcel.key)).body != parcel.body:
                if parcel.what != "price book":
                    self._halt(parcel)
                    return
                self._pass_over(parcel)
                return
        self._sent(parcel)
        self.written[parcel.what] += 1
        if self._failed_in_row:
            logger.info("ledger: the store takes writes again after %d attempts", self._failed_in_row)
            self._failed_in_row = 0

    def _sent(self, parcel: Parcel) -> None:
        self._pending.popleft()
        self.pending_bytes -= len(parcel.body)
        self.unwritten_picousd -= parcel.cost_picousd

    async def _back_off(self, error: Exception) -> None:
        """Exponential, the upper half of each step jittered. Logged once per outage."""
        if self._failed_in_row == 0:
            logger.warning("ledger: cannot write %s, will keep trying: %r", self._pending[0].what, error)
        self.failures += 1
        step_s = min(LAST_RETRY_S, FIRST_RETRY_S * 2 ** min(self._failed_in_row, 16))
        self._failed_in_row += 1
        await self._sleep(step_s * (1 + self._jitter()) / 2)

    def _pass_over(self, book: Parcel) -> None:
        """Its key is its digest, the same for every container: no writer of ours put this there."""
        self._sent(book)
        logger.error(
            "ledger: the price book %s is damaged in the store: delete it, and the next gateway to start writes it",
            book.key,
        )

    def _halt(self, parcel: Parcel) -> None:
        """Two processes believe to be the same life of one container (a cloned machine, a reused snapshot)."""
        self.conflicts += 1
        self._pending.clear()
        self.pending_bytes = 0
        logger.error(
            "ledger: %s %s exists with other content: another process writes as this container. Serving goes on, this "
            "process's ledger has stopped; give each container its own id and restart it",
            parcel.what,
            parcel.key,
        )

"""Feature windows on their way to the store, kept until they are there. Statistics, not money: what does not fit is lost, counted.

Order does not matter, so several are written at once. A window that was attempted may be there already, since an answer can get
lost; its key is its container's own, so finding the same bytes is success.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from itertools import islice

import msgspec

from gateway.errors import PreconditionFailed
from gateway.objectstore.protocol import ObjectStore

logger = logging.getLogger(__name__)

PUTS_AT_ONCE = 8
"""A quarter of the connections that the S3 store keeps: a hundred models end within the exit's deadline, and others still pass."""

PENDING_BYTES_MAX = 16 << 20
"""An hour of a model is 1 to 3 KB: two hundred models in a day's outage, since an outage makes windows last to the hour's end."""

FIRST_RETRY_S = 1.0
LAST_RETRY_S = 60.0
"""Nobody waits for statistics; a fleet that waits this long and jittered does not stampede a store that comes back."""


class Parcel(msgspec.Struct, frozen=True):
    """One object to create, and how many rows it counts."""

    key: str
    body: bytes
    rows: int


class Shipping:
    """`written` counts objects, `failures` attempts that must be repeated, `rows_lost` rows in windows that had to go."""

    def __init__(
        self,
        store: ObjectStore,
        *,
        put_timeout_s: float,
        sleep: Callable[[float], Awaitable[None]],
        jitter: Callable[[], float],
    ) -> None:
        self.written = 0
        self.failures = 0
        self.rows_lost = 0
        self._store = store
        self._put_timeout_s = put_timeout_s
        self._sleep = sleep
        self._jitter = jitter
        self._pending: dict[str, Parcel] = {}
        self._pending_bytes = 0
        self._failed_in_row = 0
        self._added = asyncio.Event()

    @property
    def is_behind(self) -> bool:
        """The store does not take writes: better one long window than many short ones."""
        return self._failed_in_row > 0

    @property
    def pending_rows(self) -> int:
        return sum(parcel.rows for parcel in self._pending.values())

    def add(self, parcel: Parcel) -> None:
        """Never waits. The oldest make room."""
        self._pending[parcel.key] = parcel
        self._pending_bytes += len(parcel.body)
        while self._pending_bytes > PENDING_BYTES_MAX:
            self._lose(next(iter(self._pending.values())))
        self._added.set()

    async def run(self) -> None:
        """Write what is added, until cancelled; then `empty` goes on."""
        while True:
            await self.empty()
            self._added.clear()
            await self._added.wait()

    async def empty(self) -> None:
        """Write until nothing is pending, however long the store takes. Not beside `run`."""
        while self._pending:
            parcels = list(islice(self._pending.values(), PUTS_AT_ONCE))
            outcomes = await asyncio.gather(*map(self._create, parcels), return_exceptions=True)
            errors = [error for error in outcomes if isinstance(error, Exception)]
            if errors:
                await self._back_off(errors)
            elif self._failed_in_row:
                logger.info("features: the store takes writes again after %d attempts", self._failed_in_row)
                self._failed_in_row = 0

    async def _create(self, parcel: Parcel) -> None:
        async with asyncio.timeout(self._put_timeout_s):
            try:
                await self._store.put_if_absent(parcel.key, parcel.body)
            except PreconditionFailed:
                await self._require_same(parcel)
        self.written += self._forget(parcel)

    async def _require_same(self, parcel: Parcel) -> None:
        """What is there under this key is either ours, or another process believes to be this container."""
        if (await self._store.get(parcel.key)).body != parcel.body:
            logger.error("features: %s exists with other content: give each container its own id", parcel.key)
            self._lose(parcel)

    def _lose(self, parcel: Parcel) -> None:
        if self._forget(parcel):
            self.rows_lost += parcel.rows

    def _forget(self, parcel: Parcel) -> bool:
        """Whether it was still here: one that is being written may have made room meanwhile."""
        if self._pending.pop(parcel.key, None) is None:
            return False
        self._pending_bytes -= len(parcel.body)
        return True

    async def _back_off(self, errors: list[Exception]) -> None:
        """Exponential, the upper half of each step jittered. Logged once per outage."""
        if self._failed_in_row == 0:
            logger.warning("features: cannot write what was counted, will keep trying: %r", errors[0])
        self.failures += len(errors)
        step_s = min(LAST_RETRY_S, FIRST_RETRY_S * 2 ** min(self._failed_in_row, 16))
        self._failed_in_row += 1
        await self._sleep(step_s * (1 + self._jitter()) / 2)

"""Objects on their way to the store: created one by one, in order, and kept until the store has each for certain.

The ledger writer adds, one background task writes. An object that was attempted once keeps its bytes, for the attempt may have
succeeded without an answer; finding the same bytes there later is success, finding others stops this life's ledger. Only a
damaged price book does not: it is everybody's, and no bill needs it to be written.
While the store is away, what waits goes to local disk as well, where the next life finds it: `keep`.
"""

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from gateway.accounting.parcel import Kind, Parcel
from gateway.accounting.spill import Spill, Stored
from gateway.errors import PreconditionFailed
from gateway.objectstore.blocking import in_thread
from gateway.objectstore.protocol import ObjectStore

logger = logging.getLogger(__name__)

FIRST_RETRY_S = 0.5
LAST_RETRY_S = 30.0
"""A store that comes back is used within half a minute; a fleet that waits this long and jittered does not stampede it."""
CLONED = (
    "another process writes as this container. Serving goes on, this process's ledger has stopped; give each container its own id "
    "and restart it"
)


@dataclass(slots=True, eq=False)
class _Waiting:
    """A parcel that the store does not have for certain. Its bytes are here, on disk, or both."""

    number: int
    what: Kind
    key: str
    cost_picousd: int
    body_bytes: int
    body: bytes | None
    is_done: bool = False


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
        spill: Spill | None = None,
        on_conflict: str = CLONED,
    ) -> None:
        """`bytes_max` are held in memory, what is beyond it on the `spill`'s disk only. Neither is enforced here when both are
        full: money is never refused. `is_full` asks the caller to add less often, and less.
        """
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
        self._spill = spill
        self._on_conflict = on_conflict
        self._held_bytes = 0
        self._pending: deque[_Waiting] = deque()
        self._added = asyncio.Event()
        self._keeping = asyncio.Lock()
        self._number = 0
        self._emptied = asyncio.Event()
        self._emptied.set()
        self._failed_in_row = 0

    @property
    def is_halted(self) -> bool:
        """Another writer has this life's keys: nothing more is written, what is added only counts as unwritten."""
        return self.conflicts > 0

    @property
    def is_full(self) -> bool:
        on_disk_bytes = self._spill.capacity_bytes if self._spill is not None else 0
        return self.is_halted or self.pending_bytes >= self._bytes_max + on_disk_bytes

    @property
    def unsafe_picousd(self) -> int:
        """Of what is unwritten, that which a kill would lose: not on disk either."""
        if self._spill is None:
            return self.unwritten_picousd
        spill = self._spill
        return self.unwritten_picousd - sum(one.cost_picousd for one in self._pending if spill.holds(one.number))

    @property
    def is_failing(self) -> bool:
        """The last attempt failed: nobody should wait for the next."""
        return self._failed_in_row > 0

    async def emptied(self) -> None:
        """Wait until `run` has nothing left to write."""
        await self._emptied.wait()

    def add(self, parcel: Parcel) -> None:
        """Never waits and never refuses."""
        size = len(parcel.body)
        self._append(_Waiting(self._number, parcel.what, parcel.key, parcel.cost_picousd, size, parcel.body))

    def add_stored(self, found: Sequence[Stored]) -> None:
        """What an earlier life left on the spill's disk, before anything is added."""
        for one in found:
            waiting = _Waiting(one.number, one.what, one.key, one.cost_picousd, one.body_bytes, None)
            self._append(waiting)

    def _append(self, waiting: _Waiting) -> None:
        self._number = waiting.number + 1
        self.unwritten_picousd += waiting.cost_picousd
        if not self.is_halted:
            self.pending_bytes += waiting.body_bytes
            self._held_bytes += 0 if waiting.body is None else waiting.body_bytes
            self._pending.append(waiting)
            self._emptied.clear()
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
                await self._create(self._pending[0])
            except Exception as error:  # whatever a store raises, the bytes stay here and are tried again
                await self._back_off(error)

    async def keep(self, *, at_exit: bool = False) -> None:
        """Put what waits on disk too, in order, when the store is away or nobody will wait for it any longer."""
        if self._spill is None or not (self._failed_in_row or at_exit):
            return
        async with self._keeping:
            for waiting in list(self._pending):
                is_safe = waiting.is_done or self._spill.holds(waiting.number)
                if is_safe or not self._spill.has_room(waiting.body_bytes):
                    continue
                if not await self._put_on_disk(waiting, self._spill):
                    return

    async def _put_on_disk(self, waiting: _Waiting, spill: Spill) -> bool:
        assert waiting.body is not None
        parcel = Parcel(waiting.what, waiting.key, waiting.body, waiting.cost_picousd)
        try:
            is_taken = await in_thread(spill.write, waiting.number, parcel)
        finally:  # also of a cancelled exit
            if waiting.is_done and spill.holds(waiting.number):  # meanwhile the store took it
                await in_thread(spill.remove, waiting.number)
        if not is_taken or waiting.is_done:
            return is_taken
        if self._held_bytes > self._bytes_max:
            waiting.body = None
            self._held_bytes -= waiting.body_bytes
        return True

    async def _create(self, waiting: _Waiting) -> None:
        body = await self._bytes_of(waiting)
        if body is None:
            self._done(waiting, is_written=False)
            return
        async with asyncio.timeout(self._put_timeout_s):
            is_ours = await self._is_created(waiting, body)
        if not is_ours and waiting.what != "price book":
            self._halt(waiting)
            if self._spill is not None:
                await in_thread(self._spill.give_up, "another writer has its place in the store")
            return
        self._done(waiting)
        if is_ours:
            self.written[waiting.what] += 1
            self._say_back()
        else:
            self._pass_over(waiting)
        if self._spill is not None and self._spill.holds(waiting.number):
            await in_thread(self._spill.remove, waiting.number)

    async def _bytes_of(self, waiting: _Waiting) -> bytes | None:
        """None when they were on disk only and are not there any more."""
        if waiting.body is not None:
            return waiting.body
        assert self._spill is not None
        parcel = await in_thread(self._spill.read, waiting.number)
        return None if parcel is None or parcel.key != waiting.key else parcel.body

    async def _is_created(self, waiting: _Waiting, body: bytes) -> bool:
        """False when the key has other bytes."""
        try:
            await self._store.put_if_absent(waiting.key, body)
        except PreconditionFailed:
            return (await self._store.get(waiting.key)).body == body
        return True

    def _done(self, waiting: _Waiting, *, is_written: bool = True) -> None:
        self._pending.popleft()
        if not self._pending:
            self._emptied.set()
        waiting.is_done = True
        self.pending_bytes -= waiting.body_bytes
        self._held_bytes -= 0 if waiting.body is None else waiting.body_bytes
        if is_written:
            self.unwritten_picousd -= waiting.cost_picousd

    def _say_back(self) -> None:
        if self._failed_in_row:
            logger.info("ledger: the store takes writes again after %d attempts", self._failed_in_row)
            self._failed_in_row = 0

    async def _back_off(self, error: Exception) -> None:
        """Exponential, the upper half of each step jittered. Logged once per outage."""
        if self._failed_in_row == 0:
            logger.warning("ledger: cannot write %s, will keep trying: %r", self._pending[0].what, error)
        self.failures += 1
        step_s = min(LAST_RETRY_S, FIRST_RETRY_S * 2 ** min(self._failed_in_row, 16))
        self._failed_in_row += 1
        await self.keep()
        await self._sleep(step_s * (1 + self._jitter()) / 2)

    def _pass_over(self, book: _Waiting) -> None:
        """Its key is its digest, the same for every container: no writer of ours put this there."""
        logger.error(
            "ledger: the price book %s is damaged in the store: delete it, and the next gateway to start writes it",
            book.key,
        )

    def _halt(self, waiting: _Waiting) -> None:
        """Two processes believe to be the same life of one container (a cloned machine, a reused snapshot)."""
        self.conflicts += 1
        for each in self._pending:
            each.is_done = True
        self._pending.clear()
        self.pending_bytes = self._held_bytes = 0
        self._emptied.set()
        logger.error("ledger: %s %s exists with other content: %s", waiting.what, waiting.key, self._on_conflict)

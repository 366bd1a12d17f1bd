"""What simulated lives live in: a store's disk that checks whatever becomes durable, the wire to it that fails, and a clock.

`tests.support.ledgersim` says which faults there are and what must hold.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from random import Random

from gateway.accounting import segment
from gateway.contract import codec, layout
from gateway.errors import ObjectNotFound, PreconditionFailed, StoreUnavailable
from gateway.objectstore.protocol import ObjectInfo, StoredObject
from tests.support.meters import HOUR_NS, SECOND_NS
from tests.support.virtualloop import VirtualLoop

START_NS = 1_793_880_000 * SECOND_NS + 3500 * SECOND_NS  # 100 s before an hour ends
FAULTS = ("none", "503", "409", "slow", "lost answer", "twice", "late")


class Disk:
    """What has become durable. Every new object is checked against what must hold at any time."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.request_ids: set[str] = set()
        self.last: dict[tuple[str, int], tuple[int, str, int]] = {}
        self.torn: list[str] = []
        self.over: set[int] = set()
        self.may_have_gaps = False

    def create(self, key: str, body: bytes, *, is_torn: bool = False) -> bool:
        """False when it is there already."""
        if key in self.objects:
            return False
        self.objects[key] = body[: len(body) // 2] if is_torn else body
        if is_torn:
            self.torn.append(key)
        elif key.startswith(layout.segments()):
            self._check(key, body)
        return True

    def _check(self, key: str, body: bytes) -> None:
        """Conservation, no record twice, an unbroken chain: of every prefix of history, so after every kill."""
        parsed = segment.decode(body)
        header = parsed.header
        assert segment.discrepancies(parsed) == ()
        seq, sha256, to_ns = self.last.get((header.container, header.boot_ns), (-1, "", header.boot_ns))
        if not (self.may_have_gaps and header.seq > seq + 1):
            assert (header.seq, header.previous_sha256, header.from_ns) == (seq + 1, sha256, to_ns), key
        assert header.to_ns > header.from_ns
        assert header.from_ns // HOUR_NS == (header.to_ns - 1) // HOUR_NS
        self.last[header.container, header.boot_ns] = header.seq, codec.sha256(body), header.to_ns
        if any(charge.beyond for charge in parsed.charges):
            self.over.add(header.boot_ns)  # its end is written, with or without a close record
        for request in parsed.requests:
            assert request.id not in self.request_ids, f"{request.id} is recorded twice"
            self.request_ids.add(request.id)


class Wire:
    """One process's way to the disk: an object store with faults by `random`. Severed, nothing gets through any more."""

    url = "simulated:"

    def __init__(self, disk: Disk, random: Random, loop: VirtualLoop, *, trouble: float, may_tear: bool) -> None:
        self._disk = disk
        self._random = random
        self._loop = loop
        self.trouble = trouble
        self._may_tear = may_tear
        self.is_severed = False
        self.is_away = False
        self.ends_away = False
        self.has_outages = False
        self.acknowledged: set[str] = set()
        self.faults = Counter[str]()

    async def put_if_absent(self, key: str, body: bytes) -> str:
        fault = self._random.choice(FAULTS[1:]) if self._random.random() < self.trouble else "none"
        if self._may_tear and self._random.random() < 0.03:
            fault = "torn"
        self.faults[fault] += 1
        await asyncio.sleep(self._random.choice([0, 0.01, 0.2]))
        self._reach()
        if fault in {"503", "409"}:
            raise StoreUnavailable(fault)
        if fault == "late":
            self._loop.call_later(self._random.uniform(0.1, 60), self._deliver, key, body)
            await asyncio.sleep(self._random.choice([1, 40]))  # the writer's timeout is 30 s
            raise StoreUnavailable("no answer")
        if fault == "slow":
            await asyncio.sleep(self._random.uniform(1, 45))
            self._reach()
        if fault == "twice":
            self._loop.call_later(self._random.uniform(0, 5), self._deliver, key, body)
        if not self._disk.create(key, body, is_torn=fault == "torn"):
            raise PreconditionFailed(key)
        await asyncio.sleep(self._random.choice([0, 0.05]))
        if fault in {"lost answer", "torn"}:
            raise StoreUnavailable("the connection broke")
        self.acknowledged.add(key)
        return "etag"

    def _deliver(self, key: str, body: bytes) -> None:
        """What is on the network arrives even when its sender has died."""
        self._disk.create(key, body)

    async def get(self, key: str) -> StoredObject:
        await asyncio.sleep(0)
        self._reach()
        if self._random.random() < self.trouble:
            raise StoreUnavailable("503")
        if key not in self._disk.objects:
            raise ObjectNotFound(key)
        return StoredObject(self._disk.objects[key], "etag")

    async def list(self, prefix: str, *, start_after: str = "") -> AsyncIterator[ObjectInfo]:
        for key in sorted(self._disk.objects):
            if key.startswith(prefix) and key > start_after:
                yield ObjectInfo(key, len(self._disk.objects[key]))

    def _reach(self) -> None:
        if self.is_away:
            raise StoreUnavailable("503 for everybody")
        if self.is_severed:
            raise StoreUnavailable("this process is dead")


class LoopClock:
    """The process's clock: the loop's time; CPU that the scenario says it used."""

    def __init__(self, loop: VirtualLoop, started_ns: int) -> None:
        self._loop = loop
        self.started_ns = started_ns
        self.used_ns = 0

    epoch_ns = 0

    def now_ns(self) -> int:
        return max(self.started_ns, START_NS + round(self._loop.seconds * 1e9))

    steady_ns = now_ns

    def cpu_ns(self) -> int:
        return self.used_ns

    def thread_cpu_ns(self) -> int:
        return self.used_ns

    def rss_bytes(self) -> int:
        return 300 << 20

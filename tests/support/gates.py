"""A gate over any store, whose polls a test lets pass by hand."""

import asyncio
from typing import Any

from gateway.access.gate import AccessOptions, Gate
from gateway.objectstore.protocol import ObjectStore
from tests.support.accesskeys import Now
from tests.support.manualclock import LIMIT_S


class Sleeper:
    """Stands in for `asyncio.sleep`: every sleep lasts until `pass_by`."""

    def __init__(self) -> None:
        self._woken: list[asyncio.Event] = []

    async def __call__(self, _: float) -> None:
        awake = asyncio.Event()
        self._woken.append(awake)
        await awake.wait()

    async def pass_by(self) -> None:
        """Wake all who sleep, and return when as many sleep again: their work is done."""
        async with asyncio.timeout(LIMIT_S):
            while len(self._woken) < 2:  # noqa: ASYNC110 - both loops have begun
                await asyncio.sleep(0)
            woken, self._woken = self._woken, []
            for awake in woken:
                awake.set()
            while len(self._woken) < len(woken):  # noqa: ASYNC110 - what they wait for is a store
                await asyncio.sleep(0.001)


class Watched:
    """A gate and the sleep of its two loops: `poll` lets each work once."""

    def __init__(self, store: ObjectStore, now: Now, *, container: str = "c0", **settings: Any) -> None:
        sleeper = Sleeper()
        self.poll = sleeper.pass_by
        self.gate = Gate(
            store,
            AccessOptions(**settings.pop("options", {})),
            container=container,
            boot_ns=now(),
            now_ns=now,
            is_loopback=settings.pop("is_loopback", True),
            insecure_no_auth=settings.pop("insecure_no_auth", False),
            sleep=sleeper,
        )
        assert not settings

    async def __aenter__(self) -> "Watched":
        await self.gate.__aenter__()
        return self

    async def __aexit__(self, *failure: Any) -> None:
        await self.gate.__aexit__(*failure)

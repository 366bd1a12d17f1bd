"""A process whose time, CPU and memory a test moves by hand, and a sleep that ends when the test's time has passed."""

import asyncio
from collections.abc import Callable

LIMIT_S = 60
"""Of real time, for a test that would wait for ever; no measurement, for a busy machine gives a process a tenth of a CPU."""


class ManualClock:
    """A `gateway.accounting.clock.Clock`. `sleep` stands in for `asyncio.sleep`."""

    def __init__(self, started_ns: int) -> None:
        self.started_ns = started_ns
        self.time_ns = started_ns
        self.process_cpu_ns = 0
        self.resident_bytes = 0
        self._sleepers: list[tuple[int, asyncio.Event]] = []

    epoch_ns = 0

    def now_ns(self) -> int:
        return self.time_ns

    steady_ns = now_ns

    def cpu_ns(self) -> int:
        return self.process_cpu_ns

    def thread_cpu_ns(self) -> int:
        return self.process_cpu_ns

    def rss_bytes(self) -> int:
        return self.resident_bytes

    def work(self, wall_ns: int, *, cpu_ns: int = 0) -> None:
        """Time passes and the process uses CPU; nobody is woken."""
        self.time_ns += wall_ns
        self.process_cpu_ns += cpu_ns

    async def sleep(self, seconds: float) -> None:
        sleeper = (self.time_ns + round(seconds * 1e9), asyncio.Event())
        self._sleepers.append(sleeper)
        try:
            async with asyncio.timeout(2 * LIMIT_S):  # a test that failed before it let time pass must end too
                await sleeper[1].wait()
        finally:
            self._sleepers.remove(sleeper)

    async def advance(self, seconds: float, *, cpu_ns: int = 0) -> None:
        """Time passes, and those whose sleep is over wake. `until` waits for what they do."""
        self.work(round(seconds * 1e9), cpu_ns=cpu_ns)
        for until_ns, awake in list(self._sleepers):
            if until_ns <= self.time_ns:
                awake.set()
        await asyncio.sleep(0)


async def until(claim: Callable[[], bool]) -> None:
    """Lets the others run until the claim is true; a test that waits `LIMIT_S` in vain fails."""
    async with asyncio.timeout(LIMIT_S):
        while not claim():  # noqa: ASYNC110 - what changes has no event to wait for
            await asyncio.sleep(0)

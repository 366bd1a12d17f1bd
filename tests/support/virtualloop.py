"""An event loop whose time is virtual and whose every step is counted: the same coroutines take the same steps, always.

Threads are not used: what would run in one runs in place. A test may stop the world before any step with `stop_at`.
"""

import asyncio
import heapq
from collections import deque
from collections.abc import Callable
from typing import Any


class Stopped(BaseException):
    """The step to stop at has come. Not an `Exception`: no coroutine under test may swallow it."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """`steps` are callbacks run so far, `seconds` the time since the world began. When nobody can ever run again: RuntimeError."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.steps = 0
        self.stop_at = -1
        super().__init__()

    def time(self) -> float:
        return self.seconds

    def run_in_executor(self, executor: Any, call: Callable[..., Any], *arguments: Any) -> Any:
        """In place, and its result a step later."""
        done = self.create_future()
        try:
            done.set_result(call(*arguments))
        except Exception as error:
            done.set_exception(error)
        return done

    def _run_once(self) -> None:
        """One callback, not all that are ready: a step is as fine as an await."""
        if self.steps == self.stop_at:
            raise Stopped
        self.steps += 1
        while self._scheduled and self._scheduled[0]._cancelled:
            heapq.heappop(self._scheduled)._scheduled = False
            self._timer_cancelled_count -= 1
        if not self._ready:
            if not self._scheduled:
                raise RuntimeError("everybody waits for nothing")
            self.seconds = max(self.seconds, self._scheduled[0]._when)
        first, rest = deque(list(self._ready)[:1]), list(self._ready)[1:]
        self._ready = first
        super()._run_once()
        self._ready.extendleft(reversed(rest))

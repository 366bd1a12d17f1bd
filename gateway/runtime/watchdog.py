"""Ends a run on the event loop that goes on for ever: nothing else can, for the loop itself is what it holds up.

One thread looks now and then whether the same run is still going. Workers' runs end by their callers' deadlines instead.
"""

import threading
from types import TracebackType

from gateway.runtime.session import Stop

LOOK_S = 0.25
"""A run on the loop was predicted to take less than `runtime.inline_us_max`: met twice it is a thousand times late."""


class Watchdog:
    """A context manager around serving. `begin` and `end` are the event loop's, around each of its runs."""

    def __init__(self) -> None:
        self._stop = Stop()
        self._turn = 0
        self._is_running = False
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> "Watchdog":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over.set()
        self._thread.join()

    def begin(self) -> Stop:
        """A run begins: what would end it."""
        if self._stop.is_called:
            self._stop = Stop()
        self._turn += 1
        self._is_running = True
        return self._stop

    def end(self) -> None:
        self._is_running = False

    def _watch(self) -> None:
        seen = 0
        while not self._is_over.wait(LOOK_S):
            if self._is_running and self._turn == seen:
                self._stop()
            seen = self._turn

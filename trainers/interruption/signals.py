"""Whether training was asked to stop, by whom, and until when. Signals and the spot notice set it; the training loop reads it.

The first SIGTERM or SIGINT asks: finish the step, save, exit with 143. The second one exits at once. Stops nothing itself.
"""

import asyncio
import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interruption:
    """Set once or more, from any thread and from signal handlers; never unset."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # reentrant: a handler may come while this thread holds it
        self._reasons: list[str] = []
        self._deadline_ns: int | None = None

    @property
    def is_requested(self) -> bool:
        """Cheap enough to ask after every step."""
        return bool(self._reasons)

    @property
    def reason(self) -> str:
        """All reasons so far, the first one first; empty when there is none."""
        return ", then ".join(self._reasons)

    @property
    def deadline_ns(self) -> int | None:
        """When the host will be gone (Unix time), the earliest that was told; None when nobody said."""
        return self._deadline_ns

    def request(self, reason: str, *, deadline_ns: int | None = None) -> None:
        with self._lock:
            if reason not in self._reasons:
                self._reasons.append(reason)
            known = [ns for ns in (self._deadline_ns, deadline_ns) if ns is not None]
            self._deadline_ns = min(known, default=None)


@contextlib.contextmanager
def handled(
    interruption: Interruption, loop: asyncio.AbstractEventLoop | None = None, *, grace_s: float | None = None
) -> Iterator[None]:
    """Let SIGTERM and SIGINT request the interruption until the end of the block; then the handlers from before are back.

    Only in the main thread. With `loop`, which runs in it, the event loop hears the signal and wakes up. `grace_s` is the time
    from SIGTERM until the platform kills, where it is known.
    """
    before = {number: signal.getsignal(number) for number in SIGNALS}
    heard = _Heard(interruption, grace_s)
    try:
        for number in SIGNALS:
            _install(number, heard, loop)
        yield
    finally:
        for number, handler in before.items():
            if loop is not None and not loop.is_closed():
                loop.remove_signal_handler(number)
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)


class _Heard:
    def __init__(self, interruption: Interruption, grace_s: float | None) -> None:
        self._interruption = interruption
        self._grace_s = grace_s
        self._count = 0

    def __call__(self, number: int) -> None:
        self._count += 1
        if self._count > 1:
            # Not SystemExit: it would wait for the threads that train and upload.
            os.write(2, b"second signal: exiting at once, without a checkpoint\n")
            os._exit(128 + number)
        deadline_ns = None if self._grace_s is None else time.time_ns() + round(self._grace_s * 1e9)
        self._interruption.request(signal.Signals(number).name, deadline_ns=deadline_ns)


def _install(number: signal.Signals, heard: Callable[[int], None], loop: asyncio.AbstractEventLoop | None) -> None:
    if loop is not None:
        loop.add_signal_handler(number, heard, int(number))
    else:
        signal.signal(number, lambda received, _: heard(received))

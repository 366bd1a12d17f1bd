"""CPU time of the threads that onnxruntime starts for one session, shared out among the runs that were inside it.

Only sessions with more than one thread have such threads; the caller's own thread takes part in every run and has its own clock.
"""

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from gateway.errors import SettingsError

_elsewhere = threading.local()
_TASKS = Path("/proc/self/task")
_numbers = count(1)


def thread_time_ns() -> int:
    """This thread's CPU clock, with what sessions' own threads computed for its runs."""
    return time.thread_time_ns() + getattr(_elsewhere, "cpu_ns", 0)


class Share:
    """One run's part, in nanoseconds."""

    __slots__ = ("cpu_ns",)

    def __init__(self) -> None:
        self.cpu_ns = 0


class PoolClock:
    """Every nanosecond the threads use while a run is inside is given to a run, once. Runs inside at the same time share equally:
    the threads do not say whose part of a graph they compute. Used from any thread.
    """

    def __init__(self, thread_ids: tuple[int, ...]) -> None:
        self._clocks = [
            (~thread_id << 3) | 6 for thread_id in thread_ids
        ]  # MAKE_THREAD_CPUCLOCK of the kernel's headers
        self._lock = threading.Lock()
        self._inside: list[Share] = []
        self._seen_ns = 0

    def enter(self) -> Share:
        """A run begins; `leave` must follow."""
        share = Share()
        with self._lock:
            self._apportion()
            self._inside.append(share)
        return share

    def leave(self, share: Share) -> None:
        """It ended, in the calling thread: what it used is from now on in this thread's `thread_time_ns`."""
        with self._lock:
            self._apportion()
            self._inside.remove(share)
        _elsewhere.cpu_ns = getattr(_elsewhere, "cpu_ns", 0) + share.cpu_ns

    def _apportion(self) -> None:
        now_ns = sum(map(time.clock_gettime_ns, self._clocks))
        used_ns, self._seen_ns = now_ns - self._seen_ns, now_ns
        if self._inside:
            part, rest = divmod(used_ns, len(self._inside))
            for share in self._inside:
                share.cpu_ns += part
            self._inside[0].cpu_ns += rest


@contextlib.contextmanager
def starting(threads: int) -> Iterator[list[PoolClock]]:
    """Watch this thread start `threads` others; the list then holds their clock. With 0 it stays empty.

    A thread inherits its creator's name, so ours bears one of its own meanwhile: other threads that start now are not mistaken for
    the pool's. Raises `SettingsError` where the kernel does not show that.
    """
    found: list[PoolClock] = []
    if not threads:
        yield found
        return
    own = _TASKS / str(threading.get_native_id()) / "comm"
    before, name = own.read_text(), f"ort-{os.getpid() % 100_000}-{next(_numbers) % 10_000}"
    own.write_text(name)
    try:
        yield found
    finally:
        own.write_text(before.strip())
    ids = tuple(int(task.name) for task in _TASKS.iterdir() if _name(task) == name)
    if len(ids) != threads:
        raise SettingsError(
            f"onnxruntime started {threads} threads and {len(ids)} can be seen: set runtime.threads_per_run to 1"
        )
    found.append(PoolClock(ids))


def _name(task: Path) -> str:
    """Empty for a thread that has just ended."""
    try:
        return (task / "comm").read_text().strip()
    except OSError:
        return ""

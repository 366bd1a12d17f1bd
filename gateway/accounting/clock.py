"""Where accounting reads time, CPU and memory of its own process. Linux only: memory and process start come from /proc.

`Clock` is what the meter and the ledger writer ask for; `SystemClock` answers with the real thing, tests with a manual one.
"""

import os
import time
from pathlib import Path
from typing import Protocol

_STAT_STARTTIME = 19
"""Field 22 of /proc/self/stat, counted after the command name (proc_pid_stat(5)): clock ticks since the machine booted."""


class Clock(Protocol):
    """Nanoseconds and bytes of this process. `now_ns` never goes back."""

    @property
    def started_ns(self) -> int:
        """When the process began, in the same time as `now_ns`."""
        ...

    @property
    def epoch_ns(self) -> int:
        """What `steady_ns` lacks to be `now_ns`; it never changes."""
        ...

    def steady_ns(self) -> int:
        """For where every request passes: as `now_ns`, but for `epoch_ns`."""
        ...

    def now_ns(self) -> int:
        """Nanoseconds since the Unix epoch."""
        ...

    def cpu_ns(self) -> int:
        """CPU that all threads of the process have used since it began."""
        ...

    def thread_cpu_ns(self) -> int:
        """CPU that the calling thread has used."""
        ...

    def rss_bytes(self) -> int:
        """Memory of the process that is resident now."""
        ...


class SystemClock:
    """Wall time when it was made, plus monotonic time since: a correction of the wall clock never makes a duration negative."""

    def __init__(self, proc: Path = Path("/proc/self")) -> None:
        # Open for the life of the process: reading must not fail when sockets have used up the file descriptors.
        self._statm = os.open(proc / "statm", os.O_RDONLY | os.O_CLOEXEC)
        self.epoch_ns = time.time_ns() - time.monotonic_ns()
        self.steady_ns = time.monotonic_ns  # no method around it: it would take three times as long
        self._page_bytes = os.sysconf("SC_PAGE_SIZE")
        self._started_ns = self.now_ns() - age_ns(proc)

    @property
    def started_ns(self) -> int:
        return self._started_ns

    def now_ns(self) -> int:
        return self.epoch_ns + time.monotonic_ns()

    def cpu_ns(self) -> int:
        return time.process_time_ns()

    def thread_cpu_ns(self) -> int:
        return time.thread_time_ns()

    def rss_bytes(self) -> int:
        return int(os.pread(self._statm, 128, 0).split()[1]) * self._page_bytes


def age_ns(proc: Path = Path("/proc/self")) -> int:
    """How long the process has existed, exact to a clock tick (10 ms): both count from the machine's boot, a moment that /proc/stat
    rounds to seconds.
    """
    fields = (proc / "stat").read_text().rpartition(")")[2].split()
    started_ns = int(fields[_STAT_STARTTIME]) * 1_000_000_000 // os.sysconf("SC_CLK_TCK")
    return max(0, time.clock_gettime_ns(time.CLOCK_BOOTTIME) - started_ns)

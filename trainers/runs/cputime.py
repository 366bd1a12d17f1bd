"""CPU time of all processes that train: this one, what it started, and those that torchrun started beside it.

From /proc, so in steps of a clock tick (10 ms); a process that nobody waited for is lost with what it used. `trainers.attempt`
makes a `CpuTime` when an attempt begins; `runs.progress` asks it.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

PROC = Path("/proc")
NS_PER_TICK = 10**9 // os.sysconf("SC_CLK_TCK")
TORCHRUN = "TORCHELASTIC_RUN_ID"
"""torchrun sets it for the processes that it starts: the others are then its children too."""


class CpuTime:
    """Nanoseconds since this was made; never less than before, whoever has ended since."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._root = os.getppid() if TORCHRUN in environ else os.getpid()
        self._begin_ns = of_tree(self._root)
        self._most_ns = 0

    def __call__(self) -> int:
        self._most_ns = max(self._most_ns, of_tree(self._root) - self._begin_ns)
        return self._most_ns


def of_tree(root: int, proc: Path = PROC) -> int:
    """Of a process, of all below it, and of those that ended and were waited for."""
    return sum(_ticks(proc / str(process)) for process in _tree(root, proc)) * NS_PER_TICK


def _tree(root: int, proc: Path) -> Iterator[int]:
    yield root
    for children in sorted((proc / str(root) / "task").glob("*/children")):  # a kernel may be built without it
        for child in _read(children).split():
            yield from _tree(int(child), proc)


def _ticks(process: Path) -> int:
    """utime, stime, cutime and cstime (proc_pid_stat(5)); nothing of one that is gone."""
    words = _read(process / "stat").rpartition(")")[2].split()  # a program's name may hold anything
    return sum(map(int, words[11:15]))


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # it ended meanwhile
        return ""

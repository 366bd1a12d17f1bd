"""A server under measurement and everything it spawned, on the first core: started, awaited, stopped, continued, weighed, killed.

Its members are found by a mark in their environment: some peers put workers into sessions of their own.
"""

import contextlib
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests.bench.cell import CORES

ROOT = Path(__file__).parents[3]
READY_S = 60  # the slowest peer needs 5 s on an idle machine
MARK = "STEELYARD_BENCH_SERVER"


class StartFailed(RuntimeError):
    """In one line, why there is nothing to measure."""


class Server:
    """One command's processes."""

    def __init__(self, command: Sequence[str], home: Path) -> None:
        self._mark = f"{MARK}={uuid.uuid4()}".encode()
        self._log = home / "log"
        name, _, value = self._mark.decode().partition("=")
        with self._log.open("wb") as output, _on_first_core():
            self._first = subprocess.Popen(
                command,
                cwd=home,  # some leave files behind
                env=os.environ | {"PYTHONPATH": str(ROOT), "HOME": str(home), name: value},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def await_answer(self, problem: Callable[[], str]) -> None:
        """Until `problem` has none. Raises StartFailed when the command ends before, or READY_S pass."""
        deadline = time.monotonic() + READY_S
        while found := problem():
            if self._first.poll() is not None:
                raise StartFailed(f"it ended with {self._first.returncode}: {self._last_line()}")
            if time.monotonic() > deadline:
                raise StartFailed(f"{found} after {READY_S} s: {self._last_line()}")
            time.sleep(0.1)

    def pause(self) -> None:
        """Nothing of it runs, no polling either, while another server is measured."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def resident_mb(self) -> float:
        """Of all processes together; a page that two of them share counts twice."""
        pages = 0
        for pid in self._pids():
            with contextlib.suppress(OSError):
                pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    def cpu_us(self) -> float:
        """Since each of its processes began; those that have ended count nothing."""
        ticks = 0
        for pid in self._pids():
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
                ticks += int(fields[11]) + int(fields[12])  # utime and stime, of all threads
        return ticks / os.sysconf("SC_CLK_TCK") * 1e6

    def kill(self) -> None:
        while self._pids():  # a supervisor may have spawned one more since the last look
            self._signal(signal.SIGKILL)
            self._first.poll()
            time.sleep(0.02)
        self._first.wait()

    def _signal(self, number: signal.Signals) -> None:
        for pid in self._pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def _pids(self) -> list[int]:
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdecimal() and self._mark in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
        return found

    def _last_line(self) -> str:
        lines = self._log.read_text(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "it logged nothing")


@contextlib.contextmanager
def _on_first_core() -> Iterator[None]:
    """What is started meanwhile inherits it."""
    os.sched_setaffinity(0, {CORES[0]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, CORES)


@contextlib.contextmanager
def running(command: Sequence[str], home: Path) -> Iterator[Server]:
    server = Server(command, home)
    try:
        yield server
    finally:
        server.kill()

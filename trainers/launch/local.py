"""Runs a job here: one subprocess per attempt, with the environment and the retry rules that it would have anywhere else.

A signal to stop is passed on to the attempt, which saves and ends, and no further attempt follows. Whatever outlives its limit gets
SIGTERM, and SIGKILL when saving takes longer than the spec says.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import FrameType

import click

from trainers import exits
from trainers.launch import environment, policy
from trainers.launch.environment import Launcher as Name
from trainers.launch.launcher import Order, Started
from trainers.launch.policy import RetryPolicy

COMMAND = (sys.executable, "-m", "trainers")
PAUSE_S_MAX = 60
"""Between attempts: 1 s, doubled each time up to this. What failed a minute ago may be back; nine pauses are six minutes."""

LOOK_S = 0.5
"""How soon a request to stop is noticed."""

Echo = Callable[[str], None]


def _to_stderr(text: str) -> None:
    click.echo(text, err=True)


class Local:
    """`command` is what runs one attempt; `pause` waits so many seconds, by default until a signal cuts it short."""

    name: Name = "local"

    def __init__(
        self,
        *,
        command: Sequence[str] = COMMAND,
        retry: RetryPolicy | None = None,
        echo: Echo = _to_stderr,
        pause: Callable[[float], object] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._command = tuple(command)
        self._retry = retry or RetryPolicy()
        self._echo = echo
        self._pause = pause
        self._clock = clock

    def start(self, order: Order) -> Started:
        """Blocks until the run has ended; `exit_code` is its last attempt's, as a shell would say it."""
        began = self._clock()
        with _passing_on_signals() as stop:
            for attempt in range(1, self._retry.attempts + 1):
                code = self._attempt(order, attempt, stop)
                if not self._goes_on(order, attempt, code, stop, self._clock() - began):
                    break
        return Started(
            run_id=order.run_id, job=f"process of run {order.run_id}", exit_code=code if code >= 0 else 128 - code
        )

    def _goes_on(self, order: Order, attempt: int, code: int, stop: "_Stop", elapsed_s: float) -> bool:
        if code == exits.DONE or stop.is_asked or not self._retry.is_worth_retrying(code):
            return False
        why = f"attempt {attempt} of run {order.run_id} ended with {code} ({exits.meaning(code)})"
        if attempt == self._retry.attempts:
            self._echo(f"{why}; that was the last of {attempt} attempts")
            return False
        if elapsed_s >= order.spec.limits.wall.seconds:
            self._echo(f"{why}; limits.wall = {order.spec.limits.wall} is over")
            return False
        self._echo(f"{why}; trying again")
        (self._pause or stop.asked.wait)(min(2.0 ** (attempt - 1), PAUSE_S_MAX))
        return not stop.is_asked

    def _attempt(self, order: Order, attempt: int, stop: "_Stop") -> int:
        given = environment.written(order.spec, launcher=self.name) | {
            environment.RUN_ID: order.run_id,
            environment.STORE: order.store,
            environment.ATTEMPT: str(attempt),
            environment.JOB: order.run_id,
        }
        environ = environment.without_ours(os.environ) | given
        limit_s = policy.killed_after_s(order.spec.limits.attempt.seconds)
        popen = subprocess.Popen(self._command, env=environ, start_new_session=True)  # noqa: S603  # our own command
        with popen as process, stop.passed_to(process):
            code = self._waited(process, stop, limit_s)
            if code is None and not stop.is_asked:
                self._echo(f"attempt {attempt} of run {order.run_id} is still there after {limit_s}s; stopping it")
                process.terminate()
            return code if code is not None else _ended(process, order.spec.checkpoint.grace.seconds)

    def _waited(self, process: subprocess.Popen[bytes], stop: "_Stop", limit_s: float) -> int | None:
        """None when it still runs at its limit, or when somebody asked it to stop."""
        deadline = self._clock() + limit_s
        while (left_s := deadline - self._clock()) > 0 and not stop.is_asked:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.wait(min(left_s, LOOK_S))
        return process.poll()


def _ended(process: subprocess.Popen[bytes], grace_s: float) -> int:
    """What it ends with after SIGTERM; it and all that it started get SIGKILL when saving takes longer than it may."""
    try:
        return process.wait(grace_s)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        return process.wait()


class _Stop:
    """Whether somebody asked this process to stop, and the attempt to tell."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def is_asked(self) -> bool:
        return self.asked.is_set()

    def ask(self, _signal: int, _frame: FrameType | None) -> None:
        self.asked.set()
        if self._process is not None:
            self._process.terminate()

    @contextlib.contextmanager
    def passed_to(self, process: subprocess.Popen[bytes]) -> Iterator[None]:
        self._process = process
        if self.is_asked:
            process.terminate()
        try:
            yield
        finally:
            self._process = None


@contextlib.contextmanager
def _passing_on_signals() -> Iterator[_Stop]:
    stop = _Stop()
    before = {number: signal.signal(number, stop.ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

"""`SmallTraining` as a process of its own that saves all the time, resumes, and can be killed; and the handle that a test has.

After every step it waits for the test's word, so that a test chooses the step at which the signal comes; the upload of a
checkpoint, in another thread, is wherever it happens to be. Processes come from a fork server that has imported torch already.
"""

import asyncio
import contextlib
import multiprocessing
import sys
import threading
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from gateway.contract.checkpoint import Origin
from gateway.objectstore.local import LocalStore
from tests.support.smalltraining import STEPS, SmallTraining
from trainers.checkpoint import state
from trainers.checkpoint.interval import Interval
from trainers.checkpoint.saver import Saver
from trainers.checkpoint.store import open_run
from trainers.errors import DataError, Fenced
from trainers.interruption import signals
from trainers.interruption.signals import Interruption

RUN = "killed"
ALWAYS = Interval(min_s=0, max_s=0)
WAIT_S = 60  # for a message of a process on a busy machine

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["tests.support.interruptible", "torch._dynamo"])  # an optimizer imports the latter


class Attempt:
    """A running process and what it says."""

    def __init__(self, store: Path) -> None:
        self._pipe, other = _context.Pipe()
        self.process = _context.Process(target=_main, args=(store, other), daemon=True)
        self.process.start()
        other.close()
        self.resumed_at, self.skipped = 0, ()

    def hear_any(self) -> tuple[Any, ...]:
        """The next message, whatever it is."""
        assert self._pipe.poll(WAIT_S), "it says nothing"
        return tuple(self._pipe.recv())

    def hear(self, kind: str) -> tuple[Any, ...]:
        """What comes with the next message, which must be of this kind."""
        found, *content = self.hear_any()
        assert found == kind, content
        return tuple(content)

    def go_on(self) -> None:
        self._pipe.send("go on")

    def train_to(self, step: int) -> None:
        """At least one step, and then until this one is done; the process waits there."""
        self.go_on()
        while self.hear("step")[0] < step:
            self.go_on()

    def finish(self) -> str:
        """Train to the end; the hash of the weights."""
        while True:
            self.go_on()
            if self.hear("step")[0] == STEPS:
                self.go_on()
                return str(self.hear("done")[0])

    def end(self) -> int:
        """The exit code; negative for a signal that was not handled."""
        self.process.join(WAIT_S)
        assert self.process.exitcode is not None, "it did not end"
        return self.process.exitcode


@contextlib.contextmanager
def starting(store: Path) -> Iterator[Attempt]:
    """One attempt at the run in this folder; killed at the end of the block if it has not ended."""
    running = Attempt(store)
    try:
        yield running
    finally:
        running.process.kill()
        running.process.join()


@contextlib.contextmanager
def attempt(store: Path) -> Iterator[Attempt]:
    """One that has resumed and is held before its first step."""
    with starting(store) as running:
        running.resumed_at, running.skipped = running.hear("resumed")
        yield running


def origin() -> Origin:
    return Origin("a" * 64, {"data": "b" * 64}, state.fingerprint(torch.device("cpu")))


class _Telling:
    """The process's end of the pipe, for its two threads."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._lock = threading.Lock()

    def say(self, *message: Any) -> None:
        with self._lock:
            self._pipe.send(message)

    def wait(self) -> None:
        self._pipe.recv()


class _ToldInterruption(Interruption):
    """Says that it was requested, so that the test knows when the signal has arrived."""

    def __init__(self, test: _Telling) -> None:
        super().__init__()
        self._test = test

    def request(self, reason: str, *, deadline_ns: int | None = None) -> None:
        super().request(reason, deadline_ns=deadline_ns)
        self._test.say("asked", reason)


def _main(store: Path, pipe: Connection) -> None:
    torch.set_num_threads(1)
    sys.exit(asyncio.run(_attempt(LocalStore(store), _Telling(pipe))))


async def _attempt(store: LocalStore, test: _Telling) -> int:
    interruption = _ToldInterruption(test)
    loop = asyncio.get_running_loop()
    with signals.handled(interruption, loop):
        try:
            checkpoints = await open_run(store, RUN, origin())
            resumed = await checkpoints.latest()
            training = SmallTraining()
            if resumed:
                training.resume(resumed.snapshot)
            test.say("resumed", training.steps, resumed.skipped if resumed else ())
            saver = Saver(checkpoints, loop, lambda text: test.say("warning", text), now=0, interval=ALWAYS)
            return await asyncio.to_thread(_train, training, saver, interruption, test)
        except Fenced as error:
            test.say("fenced", str(error))
            return 1
        except DataError as error:
            test.say("refused", str(error))
            return 65


def _train(training: SmallTraining, saver: Saver, interruption: Interruption, test: _Telling) -> int:
    test.wait()
    while training.steps < STEPS:
        training.step()
        test.say("step", training.steps)
        test.wait()
        if interruption.is_requested:
            saver.save_now(training.snapshot(), time.monotonic())
            return 143
        if saver.due(time.monotonic()):
            saver.offer(training.snapshot(), time.monotonic())
    saver.save_now(training.snapshot(), time.monotonic())
    test.say("done", training.weight_hash())
    return 0

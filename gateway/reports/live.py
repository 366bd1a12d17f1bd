"""The live cost page's answers, as bytes: made by a process of its own, shared by who asks meanwhile, kept for a minute.

A report may take seconds of CPU and hundreds of megabytes, and an interpreter has one lock: in this process it would make
predictions wait. `gateway.http.costs` asks, `gateway.bootstrap` opens and closes it. That process runs in the container that is
billed, so what it used is told to the meter, which posts it to `ledger`: without that it would look idle.
"""

import asyncio
import contextlib
import logging
import resource
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec

from gateway import errors
from gateway.errors import GatewayError, Overloaded, Unavailable
from gateway.reports.once import REFUSED, Form, Order, Refusal
from gateway.reports.query import Query

logger = logging.getLogger(__name__)

KEPT_S = 60.0  # a segment is written every few seconds to a minute: asking more often shows little more
TIME_MAX_S = 60.0  # 100 million requests take some ten seconds; a store that hangs must not hold the place
ANSWERS_MAX = 16  # kept or being made, of at most `once.BYTES_MAX` each; browsing a few groupings needs no more
WAITING_MAX = 4  # made or waiting to be made: one at a time, so that the fourth still answers within minutes


def _nobody_asks(cpu_ns: int) -> None:
    """Where nothing is billed."""


def _children_cpu_ns() -> int:
    """CPU of all processes that this one has waited for, however they ended, exact to a microsecond."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return round((used.ru_utime + used.ru_stime) * 1e6) * 1000


class LivePage:
    """All methods run on the event loop. `now_s` is a clock that never goes back; `note_cpu` is told what each report used.

    `energy_book` is a file of coefficients; empty: those shipped.
    """

    def __init__(
        self,
        store: str,
        folder: Path,
        now_s: Callable[[], float],
        *,
        energy_book: str = "",
        command: tuple[str, ...] = (),
        note_cpu: Callable[[int], None] = _nobody_asks,
    ) -> None:
        self.started = 0
        self._store = store
        self._folder = folder
        self._energy_book = energy_book
        self._now_s = now_s
        self._note_cpu = note_cpu
        self._command = command or (sys.executable, "-m", "gateway.reports.once")
        self._one = asyncio.Semaphore(1)
        self._answers: dict[tuple[Query, Form], tuple[float, asyncio.Task[bytes]]] = {}

    async def answer(self, query: Query, form: Form) -> bytes:
        """Raises `Overloaded`, `Unavailable`, and what `breakdown.read` raises. A reader who leaves stops nobody else's report."""
        self._forget_old()
        key = (query, form)
        if key not in self._answers:
            making = sum(not task.done() for _, task in self._answers.values())
            if making >= WAITING_MAX:
                raise Overloaded("other cost reports are being made; ask again", retry_after_ms=5000)
            task = asyncio.create_task(self._made(query, form), name="cost report")
            self._answers[key] = (self._now_s(), task)
        return await asyncio.shield(self._answers[key][1])

    async def aclose(self) -> None:
        """Stop what is being made."""
        tasks = [task for _, task in self._answers.values()]
        self._answers.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _forget_old(self) -> None:
        """What is too old, what failed, and the oldest of too many. What is being made stays."""
        now_s = self._now_s()
        for key, (made_s, task) in list(self._answers.items()):
            if task.done() and (now_s - made_s >= KEPT_S or task.cancelled() or task.exception() is not None):
                del self._answers[key]
        done = [key for key, (_, task) in self._answers.items() if task.done()]
        for key in done[: max(0, len(self._answers) - ANSWERS_MAX + 1)]:
            del self._answers[key]

    async def _made(self, query: Query, form: Form) -> bytes:
        order = msgspec.json.encode(Order(self._store, str(self._folder), query, form, self._energy_book))
        async with self._one:
            self.started += 1
            return await self._run(order)

    async def _run(self, order: bytes) -> bytes:
        pipe = asyncio.subprocess.PIPE
        before_ns = _children_cpu_ns()
        process = await asyncio.create_subprocess_exec(*self._command, stdin=pipe, stdout=pipe, stderr=pipe)
        try:
            async with asyncio.timeout(TIME_MAX_S):
                data, said = await process.communicate(order)
        except TimeoutError:
            raise Unavailable(f"the report took longer than {TIME_MAX_S:g} s; ask for a shorter period") from None
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
            self._note_cpu(_children_cpu_ns() - before_ns)  # one report at a time, and no other children
        if process.returncode == 0:
            return data
        raise _refused(said) if process.returncode == REFUSED else _failed(process.returncode, said)


def _refused(said: bytes) -> GatewayError:
    refusal = msgspec.json.decode(said[said.rfind(b'{"kind"') :], type=Refusal)
    kind: type[GatewayError] = getattr(errors, refusal.kind)
    return kind(refusal.message)


def _failed(code: int | None, said: bytes) -> Unavailable:
    logger.error("a cost report ended with %d: %s", code, said[-2000:].decode(errors="replace"))
    return Unavailable("the cost report could not be made; the gateway's log says why")

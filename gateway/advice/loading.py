"""Asks a gateway as its traffic would, Poisson and in open loop, and measures when each request left and was answered.

Not one after the other: what a request takes depends on how long the gateway was idle before it, and on whether others waited. A
small model's took twice as long asked with pauses of its own length as under load (tests/bench/advise.py). `trial` does this to the
gateway that it starts.
"""

import contextlib
import random
import select
import time
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from statistics import median

import msgspec

from gateway.advice import asking
from gateway.advice.service import Burst, Trial, queued_ns

SIZES = (1, 2, 4)
"""Of bursts: what one more costs, alone or in a batch, and what its reading costs those before it."""

BURSTS_MIN, BURSTS_MAX = 2, 100
"""Of each size."""

BETWEEN_S = 0.001
"""Bursts: what an answer leaves to be done is done by then."""

BURSTS_SHARE = 0.25
"""Of the time."""

PAUSE_NS_MAX = 50_000_000
"""On average: longer ones empty no more caches, and the measurement has to end."""

REQUESTS_MIN, REQUESTS_MAX = 30, 20_000
WARM_UP_SHARE = 0.2
"""Of the open loop, which is not counted: it warms up, and tells how many requests are the load that is wanted."""

BEGIN_NS = 20_000_000
"""Until the first request of an open loop may leave."""


class Asker:
    """Of a gateway that runs as process `pid`, about one model with one body."""

    def __init__(self, pid: int, port: int, model: str, body: bytes) -> None:
        self._pid, self._port = pid, port
        self.request = asking.request(f"/v2/models/{model}/infer", body)

    def ask(self, *, load: float, rps_max: float, seconds: float, seed: int) -> Trial:
        """At so much of a worker's capacity, but at no more than `rps_max`. A slow model gets its minimum past the time."""
        rng = random.Random(seed)  # noqa: S311  a measurement, repeatable on purpose
        bursts = self._bursts(seconds * BURSTS_SHARE, rng)
        rest_s = seconds * (1 - BURSTS_SHARE)
        first = self._arrivals(burst_queued_ns(bursts) / load, rps_max, rest_s * WARM_UP_SHARE, rng)
        gap_ns = (queued_ns(first) or burst_queued_ns(bursts)) / load
        then = self._arrivals(gap_ns, rps_max, rest_s * (1 - WARM_UP_SHARE), rng)
        return msgspec.structs.replace(then, bursts=bursts)

    def _arrivals(self, gap_ns: float, rps_max: float, seconds: float, rng: random.Random) -> Trial:
        gap_ns = min(PAUSE_NS_MAX, max(gap_ns, 1e9 / rps_max))
        count = min(REQUESTS_MAX, max(REQUESTS_MIN, int(seconds * 1e9 / gap_ns)))
        cpu_ns = process_cpu_ns(self._pid)
        due = accumulate(round(rng.expovariate(1 / gap_ns)) for _ in range(count))
        sent_ns, answered_ns = open_loop(self._port, self.request, list(due))
        return Trial((), tuple(sent_ns), tuple(answered_ns), process_cpu_ns(self._pid) - cpu_ns)

    def _bursts(self, seconds: float, rng: random.Random) -> tuple[Burst, ...]:
        bursts: list[Burst] = []
        until_ns = time.perf_counter_ns() + int(seconds * 1e9)
        with contextlib.ExitStack() as stack:
            opened = [stack.enter_context(contextlib.closing(asking.Connection(self._port))) for _ in range(max(SIZES))]
            for size in SIZES:
                self._burst(opened[:size])
            while len(bursts) < BURSTS_MIN * len(SIZES) or (
                len(bursts) < BURSTS_MAX * len(SIZES) and time.perf_counter_ns() < until_ns
            ):
                bursts += [self._burst(opened[:size]) for size in rng.sample(SIZES, len(SIZES))]
        return tuple(bursts)

    def _burst(self, opened: list[asking.Connection]) -> Burst:
        time.sleep(BETWEEN_S)
        sent_ns = [connection.send(self.request) for connection in opened]
        return Burst(tuple(sorted(connection.answer().arrived_ns - sent_ns[0] for connection in opened)))


def burst_queued_ns(bursts: Sequence[Burst]) -> float:
    """Roughly what a request takes that waited for others: in so short a burst more than under load."""
    one, most = min(SIZES), max(SIZES)
    ends_ns = [median(b.answered_ns[-1] for b in bursts if len(b.answered_ns) == size) for size in (one, most)]
    return max(1.0, (ends_ns[1] - ends_ns[0]) / (most - one))


def open_loop(port: int, request: bytes, due_ns: Sequence[int]) -> tuple[list[int], list[int]]:
    """When each request really left and when its answer arrived, in nanoseconds from one moment. They leave when they are due,
    whether or not earlier ones were answered.

    One thread, no event loop: `select` wakes it to some microseconds, where timers of event loops have milliseconds.
    """
    with contextlib.ExitStack() as stack:
        idle: list[asking.Connection] = []
        opened: dict[int, asking.Connection] = {}
        poll = stack.enter_context(select.epoll())

        def connection() -> asking.Connection:
            if idle:
                return idle.pop()
            made = stack.enter_context(contextlib.closing(asking.Connection(port)))
            opened[made.socket.fileno()] = made
            poll.register(made.socket.fileno(), select.EPOLLIN)
            return made

        idle += [connection() for _ in range(min(len(due_ns), CONNECTIONS))]
        number_of: dict[int, int] = {}
        sent, answered = [0] * len(due_ns), [0] * len(due_ns)
        began_ns = asking.now_ns() + BEGIN_NS
        begun = ended = 0
        while ended < len(due_ns):
            left_ns = due_ns[begun] - (asking.now_ns() - began_ns) if begun < len(due_ns) else asking.ANSWER_S * 10**9
            if left_ns <= 0:
                free = connection()
                number_of[free.socket.fileno()] = begun
                sent[begun] = free.send(request) - began_ns
                begun += 1
            elif select.select([poll], [], [], left_ns / 1e9)[0]:
                for descriptor, _ in poll.poll(0):
                    if (answer := opened[descriptor].receive()) is not None:
                        answered[number_of.pop(descriptor)] = answer.arrived_ns - began_ns
                        idle.append(opened[descriptor])
                        ended += 1
        return sent, answered


CONNECTIONS = 64
"""Opened before; more are opened as they are needed."""


def process_cpu_ns(pid: int) -> int:
    """CPU time of all threads, in nanoseconds (docs.kernel.org/scheduler/sched-stats.html); the process's ticks are of 10 ms."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):  # a thread may end meanwhile
            total += int((task / "schedstat").read_text().split()[0])
    return total

"""A function's sandboxes, simulated: each runs one call at a time, so a call that finds none idle starts one and waits. Pure.

Which idle one is taken nobody documents: here the one used last, so that the others end soonest. What the platform does before our
process begins and how long it keeps an idle sandbox are assumptions with ranges; the process's own start is measured.
"""

import heapq
from collections import deque
from collections.abc import Sequence
from math import exp

import msgspec

SECOND_NS = 10**9

START_NS, START_LOW_NS, START_HIGH_NS = SECOND_NS // 2, SECOND_NS // 10, 7 * SECOND_NS // 10
"""Until our process begins: assumed. Published breakdowns add up to 0.15 to 0.5 s and to 0.1 to 0.7 s (refactix.com 2026-04-19,
stripesys.com/blog/aws-lambda-cold-starts)."""

KEEP_ALIVE_NS = 600 * SECOND_NS
"""Of an idle sandbox: assumed, AWS promises nothing. 10 minutes were measured
(mikhail.io/2019/08/aws-lambda-cold-starts-after-10-minutes)."""

KEEP_ALIVE_LOW_NS, KEEP_ALIVE_HIGH_NS = 300 * SECOND_NS, 2700 * SECOND_NS
"""5 minutes in the first years (theburningmonk.com 2017-06), up to 45 in later ones (pelotech.com/post/aws-lambda-cold-starts)."""


class Invoked(msgspec.Struct, frozen=True):
    """`latency_ns` in the order of arrival; `peak`: sandboxes that were there at once, idle ones too."""

    latency_ns: tuple[int, ...]
    cold_starts: int
    peak: int


def invoke(
    arrivals_ns: Sequence[int], run_ns: Sequence[int], *, cold_ns: int, keep_alive_ns: int, warm: int = 0
) -> Invoked:
    """Call i arrives at `arrivals_ns[i]`, ascending, and takes `run_ns[i]` in a warm sandbox, `cold_ns` in all where none is idle.
    `warm` are idle at the first arrival.
    """
    idle: deque[int] = deque([arrivals_ns[0]] * warm if arrivals_ns else [])
    busy: list[int] = []
    latencies: list[int] = []
    cold_starts = peak = 0
    for at_ns, warm_ns in zip(arrivals_ns, run_ns, strict=True):
        while busy and busy[0] <= at_ns:
            idle.append(heapq.heappop(busy))
        while idle and idle[0] < at_ns - keep_alive_ns:
            idle.popleft()
        is_cold = not idle
        if idle:
            idle.pop()
        cold_starts += is_cold
        takes_ns = cold_ns if is_cold else warm_ns
        heapq.heappush(busy, at_ns + takes_ns)
        latencies.append(takes_ns)
        peak = max(peak, len(busy) + len(idle))
    return Invoked(tuple(latencies), cold_starts, peak)


def cold_share_at(rps: float) -> float:
    """Of calls that come one by one at a constant rate: as often is the gap before one longer than an idle sandbox is kept."""
    return exp(-rps * KEEP_ALIVE_NS / SECOND_NS)

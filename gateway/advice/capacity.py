"""How many requests a second one worker answers at a latency objective, by simulation of what was measured. Pure and seeded."""

import random
from collections.abc import Sequence

import msgspec

from gateway.advice.simulation import Fleet, simulate

REQUESTS = 8000
"""Of one probe: 80 beyond the 99th percentile."""

PROBES = 12
"""Halvings of the interval from nothing to saturation: to 0.02 % of it."""


class Capacity(msgspec.Struct, frozen=True):
    """Of one worker. `saturated_rps`: never idle, whatever the wait. `objective_rps`: with 99 of 100 answers within the objective;
    0 when even a lone request is not. `usable_rps`: what a scaler should leave on it, at most `target` of saturation.
    """

    saturated_rps: float
    objective_rps: float
    usable_rps: float
    alone_p99_ns: int


def of_worker(
    service_ns: Sequence[int], *, floor_ns: int, objective_ns: int, target: float = 0.6, workers: int = 1, seed: int = 0
) -> Capacity:
    """From measured service times. `floor_ns`: what every answer takes besides (network). `workers` share one queue."""
    rng = random.Random(seed)  # noqa: S311  a simulation, repeatable on purpose
    drawn = rng.choices(service_ns, k=REQUESTS)
    gaps = [rng.expovariate(1.0) for _ in range(REQUESTS)]
    saturated = 1e9 * len(service_ns) / sum(service_ns)

    def p99_ns(rps: float) -> int:
        at, arrivals = 0.0, []
        for gap in gaps:
            at += gap / (rps * workers)
            arrivals.append(round(at * 1e9))
        return floor_ns + simulate(arrivals, drawn, Fleet(workers=workers)).latency_ns(0.99)

    alone_ns = floor_ns + sorted(service_ns)[max(0, -(-99 * len(service_ns) // 100) - 1)]
    low, high = 0.0, saturated
    for _ in range(PROBES if alone_ns <= objective_ns else 0):
        middle = (low + high) / 2
        low, high = (middle, high) if p99_ns(middle) <= objective_ns else (low, middle)
    return Capacity(saturated, low, min(low, target * saturated), alone_ns)

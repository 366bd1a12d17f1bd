"""How many requests a second one worker answers at a latency objective, by simulation of what was measured. Pure and seeded."""

import random
from itertools import accumulate

import msgspec

from gateway.advice.service import Service, foresee
from gateway.advice.simulation import Fleet

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


def of_worker(service: Service, *, objective_ns: int, target: float = 0.6, seed: int = 0) -> Capacity:
    """From what was measured, under Poisson arrivals."""
    rng = random.Random(seed)  # noqa: S311  a simulation, repeatable on purpose
    gaps = [rng.expovariate(1.0) for _ in range(REQUESTS)]
    saturated = service.saturated_rps

    def p99_ns(rps: float) -> int:
        arrivals = [round(at * 1e9 / rps) for at in accumulate(gaps)]
        return foresee(arrivals, service, Fleet(), seed + 1).quantile_ns(0.99)

    alone_ns = sorted(service.lone_ns)[max(0, -(-99 * len(service.lone_ns) // 100) - 1)]
    low, high = 0.0, saturated
    for _ in range(PROBES if alone_ns <= objective_ns else 0):
        middle = (low + high) / 2
        low, high = (middle, high) if p99_ns(middle) <= objective_ns else (low, middle)
    return Capacity(saturated, low, min(low, target * saturated), alone_ns)

"""What callers of one offer would wait around its traffic's busiest time, simulated: replicas under the scaler, a function's
sandboxes, or GPUs as the training job measured their batches. And who keeps the objective where that offer does not.

Pure and seeded; `judging` calls it.
"""

import random
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from math import ceil
from statistics import mean

import msgspec

from gateway.advice import costing, functions
from gateway.advice.advised import KeepAlive, Load, Promise, Wish
from gateway.advice.measured import Measured
from gateway.advice.service import Service, foresee
from gateway.advice.simulation import Fleet
from gateway.advice.traffic import Traffic
from gateway.advice.units import Unit

REPLICAS_MAX = 1000
"""Of a simulated fleet: more would say nothing that this does not."""

REQUESTS_MIN = 300
"""Of a simulation, so that the 99th percentile is not its slowest request: traffic with fewer is taken to repeat."""

SPAN_S_MAX = 30 * 24 * 3600
"""Of repeated traffic: a scaler that looks every 15 s does so 170,000 times."""

SHARES = (0.3, 0.6, 0.8)
LOAD_REQUESTS = 8000
"""Of each load: 80 beyond the 99th percentile."""


def promise(unit: Unit, measured: Measured, traffic: Traffic, wish: Wish, floor: int) -> Promise | None:
    """Of `unit`, `floor` replicas of it kept always. None of a GPU whose batches nobody measured."""
    costed = costing.cost(traffic, unit, floor=floor, cold_start_ns=cold_start_ns(unit, measured, wish))
    bare = Promise(
        offer=unit.offer.name,
        floor=0 if unit.offer.kind == "function" else floor,
        month_picousd=costed.month_picousd,
        cold_start_ns=cold_start_ns(unit, measured, wish),
    )
    if unit.offer.kind == "function":
        return _of_function(bare, measured, traffic, wish)
    service = service_of(unit, measured)
    return None if service is None else _of_fleet(bare, unit, service, traffic, wish)


def with_cold_shares(every: Sequence[Unit], measured: Measured, traffic: Traffic, wish: Wish) -> tuple[Unit, ...]:
    """Functions that this traffic finds cold more often than AWS says pay for that, and say so. All of them answer alike."""
    called = [unit for unit in every if unit.rps and unit.offer.kind == "function"]
    if not called:
        return tuple(every)
    cold_ns = cold_start_ns(called[0], measured, wish)
    found = _invoked(traffic, measured, cold_ns, functions.KEEP_ALIVE_NS, wish.seed)
    share = found.cold_starts / len(found.latency_ns)
    return tuple(_with_cold_share(unit, share) if unit in called else unit for unit in every)


def _with_cold_share(unit: Unit, share: float) -> Unit:
    if share <= unit.cold_share:
        return msgspec.structs.replace(unit, note=f"{unit.note}; one call in a hundred taken to find it cold")
    note = f"{unit.note}; {share:.0%} of calls find it cold, simulated"
    return msgspec.structs.replace(unit, cold_share=share, note=note)


def cold_start_ns(unit: Unit, measured: Measured, wish: Wish) -> int:
    """Until the first answer: what the platform takes is assumed, for a container as the operator says."""
    assumed_ns = functions.START_NS if unit.offer.kind == "function" else wish.provision_ns
    return measured.served.cold_start_ns + assumed_ns


def service_of(unit: Unit, measured: Measured) -> Service | None:
    """Of one worker: a vCPU as measured here, or a GPU, held by each row for its share of a full batch."""
    if unit.offer.kind != "gpu":
        return measured.served.service
    if unit.figure is None:
        return None
    row_ns = max(1, round(unit.offer.gpus * 1e9 / unit.saturated_rps))
    return Service((row_ns,), (row_ns,))


def _of_fleet(bare: Promise, unit: Unit, service: Service, traffic: Traffic, wish: Wish) -> Promise:
    """The fleet begins as large as its first arrivals need: a cold fleet in the middle of a busy day would be nobody's."""
    arrivals = _arrivals(traffic, wish.seed)
    fleet = Fleet(
        replicas_min=bare.floor,
        replicas_max=REPLICAS_MAX,
        replicas_start=min(REPLICAS_MAX, max(1, int(-(-_rps(arrivals) // unit.rps)))),
        workers=_workers(unit),
        target=wish.target,
        cold_start_ns=bare.cold_start_ns,
        objective_ns=wish.objective_ns,
    )
    foreseen = foresee(arrivals, service, fleet, wish.seed + 1)
    batches_ns = _batches_ns(unit)
    seen = foreseen.fleet
    held = _with_latencies(bare, [one + batches_ns for one in foreseen.latency_ns], wish)
    return msgspec.structs.replace(
        held,
        replicas_peak=seen.replicas_peak,
        cold_starts=seen.cold_starts,
        cold_share=seen.cold_starts / len(arrivals),
        utilisation=seen.utilisation,
    )


def _batches_ns(unit: Unit) -> int:
    """What a caller of a GPU waits besides queueing, at most: the batch under way, the own one, reading and writing. Of a CPU
    all of it is in its service times.
    """
    return 0 if unit.figure is None else 2 * unit.figure.p99_ns + unit.request_cpu_ns


def _of_function(bare: Promise, measured: Measured, traffic: Traffic, wish: Wish) -> Promise:
    found, rare, often = (
        _invoked(traffic, measured, bare.cold_start_ns, keep_alive_ns, wish.seed)
        for keep_alive_ns in (functions.KEEP_ALIVE_NS, functions.KEEP_ALIVE_HIGH_NS, functions.KEEP_ALIVE_LOW_NS)
    )
    count = len(found.latency_ns)
    return msgspec.structs.replace(
        _with_latencies(bare, found.latency_ns, wish),
        replicas_peak=found.peak,
        cold_starts=found.cold_starts,
        cold_share=found.cold_starts / count,
        keep_alive=KeepAlive(
            assumed_ns=functions.KEEP_ALIVE_NS,
            low_ns=functions.KEEP_ALIVE_LOW_NS,
            high_ns=functions.KEEP_ALIVE_HIGH_NS,
            cold_share_low=rare.cold_starts / count,
            cold_share_high=often.cold_starts / count,
            p99_low_ns=_quantile(rare.latency_ns, 0.99),
            p99_high_ns=_quantile(often.latency_ns, 0.99),
        ),
    )


def _invoked(traffic: Traffic, measured: Measured, cold_ns: int, keep_alive_ns: int, seed: int) -> functions.Invoked:
    """As many sandboxes are warm at first as its calls keep busy; none where they come too rarely to keep one."""
    arrivals = _arrivals(traffic, seed)
    lone_ns = measured.served.service.lone_ns
    rng = random.Random(seed + 1)  # noqa: S311  a simulation, repeatable on purpose
    rps = _rps(arrivals)
    warm = ceil(rps * mean(lone_ns) / 1e9) if rps * keep_alive_ns >= 1e9 else 0
    runs = rng.choices(lone_ns, k=len(arrivals))
    return functions.invoke(arrivals, runs, cold_ns=cold_ns, keep_alive_ns=keep_alive_ns, warm=warm)


def _with_latencies(bare: Promise, latency_ns: Sequence[int], wish: Wish) -> Promise:
    p50_ns, p95_ns, p99_ns = (_quantile(latency_ns, quantile) for quantile in (0.5, 0.95, 0.99))
    return msgspec.structs.replace(
        bare,
        requests=len(latency_ns),
        p50_ns=p50_ns,
        p95_ns=p95_ns,
        p99_ns=p99_ns,
        holds=p99_ns <= wish.objective_ns,
    )


def keeper(
    candidates: Sequence[Unit], missed: Promise, measured: Measured, traffic: Traffic, wish: Wish
) -> Promise | None:
    """The cheapest of these that keeps the objective, with more replicas kept if need be; None where none does."""
    tried: list[tuple[int, int, Unit]] = []
    for unit in candidates:
        cold_ns = cold_start_ns(unit, measured, wish)
        for floor in _floors(unit, traffic, wish, cold_ns):
            cost = costing.cost(traffic, unit, floor=floor, cold_start_ns=cold_ns).cost_picousd
            tried.append((cost, floor, unit))
    for _, floor, unit in sorted(tried, key=lambda one: one[:2]):
        if (unit.offer.name, floor) != (missed.offer, missed.floor):
            found = promise(unit, measured, traffic, wish, floor)
            if found is not None and found.holds:
                return found
    return None


def _floors(unit: Unit, traffic: Traffic, wish: Wish, cold_ns: int) -> list[int]:
    if unit.offer.kind == "function":
        return [0]
    kept = max(1, wish.floor)
    peak = costing.cost(traffic, unit, floor=kept, cold_start_ns=cold_ns).replicas_peak
    return sorted({min(REPLICAS_MAX, floor) for floor in (kept, kept + 1, peak, peak + 1, 2 * peak)})


def loads(unit: Unit | None, measured: Measured, seed: int) -> tuple[Load, ...]:
    """One worker, and one replica of `unit` where it has more of them, at shares of what they could answer at most."""
    service = measured.served.service
    found = [_load(service, 1, share, seed) for share in SHARES]
    if unit is not None and unit.offer.kind in {"task", "machine"} and unit.offer.vcpus > 1:
        found += [_load(service, unit.offer.vcpus, share, seed) for share in SHARES]
    return tuple(found)


def _load(service: Service, workers: int, share: float, seed: int) -> Load:
    rng = random.Random(seed)  # noqa: S311  a simulation, repeatable on purpose
    rps = share * workers * service.saturated_rps
    arrivals = [round(at * 1e9) for at in accumulate(rng.expovariate(rps) for _ in range(LOAD_REQUESTS))]
    seen = foresee(arrivals, service, Fleet(workers=workers), seed + 1)
    return Load(workers, share, rps, *(seen.quantile_ns(quantile) for quantile in (0.5, 0.95, 0.99)))


def _workers(unit: Unit) -> int:
    return unit.offer.gpus if unit.offer.kind == "gpu" else unit.offer.vcpus


@lru_cache(maxsize=1)
def _arrivals(traffic: Traffic, seed: int) -> tuple[int, ...]:
    """Around the busiest time, repeated where that is too little; of what is rarer still, two that are as far apart as may be.

    Kept for the next one who asks: one advice simulates the same arrivals on several offers.
    """
    every, times = traffic.simulated_s, traffic.arrivals_ns(seed)
    repeats = 1
    while len(times) < REQUESTS_MIN and (repeats + 1) * every <= SPAN_S_MAX:
        times += [at + repeats * every * 10**9 for at in traffic.arrivals_ns(seed + repeats)]
        repeats += 1
    return tuple(times) if len(times) > 1 else (0, SPAN_S_MAX * 10**9)


def _rps(arrivals_ns: Sequence[int]) -> float:
    return len(arrivals_ns) / max(1.0, (arrivals_ns[-1] - arrivals_ns[0]) / 1e9)


def _quantile(latency_ns: Sequence[int], quantile: float) -> int:
    """Nearest rank."""
    ordered = sorted(latency_ns)
    return ordered[max(0, ceil(quantile * len(ordered)) - 1)]

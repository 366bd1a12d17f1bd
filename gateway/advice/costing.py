"""What this traffic costs on one kind of replica: money in whole pico-dollars, energy and carbon in nanojoules and nanograms. Pure.

Cost over the bins of the traffic, not over its mean: `max(floor, ceil(rate / rps)) * price` for as long as each lasts. With a floor
of 0 a silent bin is free, and each return of traffic pays one cold start.
"""

from fractions import Fraction
from math import ceil
from typing import Literal

import msgspec

from gateway.advice.traffic import Traffic
from gateway.advice.units import Unit
from gateway.contract import energy, offers
from gateway.contract.energy import Coefficients, Footprint, Use
from gateway.contract.prices import PICO_PER_USD
from gateway.errors import SettingsError

MONTH_S = 730 * 3600
PLAN_FACTOR = Fraction(73, 100)
"""Of the list price, with a year's commitment, where no source states one: assumed, others say 0.63 to 0.83."""

Market = Literal["list", "spot", "plan"]


class Costed(msgspec.Struct, frozen=True):
    """All of the traffic. `replica_s`: seconds of replicas paid for; of a function, of its runs."""

    requests: float
    seconds: int
    cost_picousd: int
    replica_s: float
    replicas_min: int
    replicas_peak: int

    @property
    def million_picousd(self) -> int:
        return round(Fraction(self.cost_picousd) * 1_000_000 / Fraction(self.requests))

    @property
    def month_picousd(self) -> int:
        return round(Fraction(self.cost_picousd) * MONTH_S / self.seconds)


def price_usd(unit: Unit, market: Market) -> Fraction:
    """Per hour, of a function per GB-second. Spot is the list price where there is no spot price."""
    offer = unit.offer
    if market == "spot":
        return Fraction(offer.spot_usd or offer.usd)
    if market == "plan":
        return Fraction(offer.plan_usd) if offer.plan_usd else Fraction(offer.usd) * PLAN_FACTOR
    return Fraction(offer.usd)


def cost(traffic: Traffic, unit: Unit, *, floor: int, cold_start_ns: int, market: Market = "list") -> Costed:
    """`unit.rps` must be above 0. `floor`: replicas that are always there."""
    if unit.offer.kind == "function":
        return _function(traffic, unit, market)
    counts = [_replicas(count / traffic.bin_s, unit.rps, floor) for count in traffic.counts]
    replica_s = Fraction(sum(counts) * traffic.bin_s)
    if not floor:
        replica_s += traffic.wakes * Fraction(cold_start_ns, 10**9)
    usd = replica_s / 3600 * price_usd(unit, market)
    return Costed(
        requests=traffic.requests,
        seconds=traffic.seconds,
        cost_picousd=round(usd * PICO_PER_USD),
        replica_s=float(replica_s),
        replicas_min=min(counts),
        replicas_peak=max(counts),
    )


def _replicas(rate: float, rps: float, floor: int) -> int:
    """However rare requests are, while any come there is one."""
    return max(floor, bool(rate), ceil(rate / rps - 1e-9))


def _function(traffic: Traffic, unit: Unit, market: Market) -> Costed:
    """Billed by the millisecond and per call; so is our process's start (since 2025-08-01), but not the platform's before it."""
    run_s = Fraction(ceil(Fraction(unit.request_cpu_ns, 10**6)), 1000) + Fraction(unit.cold_share).limit_denominator(
        10**6
    ) * Fraction(unit.init_ns, 10**9)
    call_usd = run_s * Fraction(unit.offer.memory_gb) * price_usd(unit, market) + Fraction(unit.offer.request_usd)
    peak = ceil(traffic.peak_rps * float(run_s))
    return Costed(
        requests=traffic.requests,
        seconds=traffic.seconds,
        cost_picousd=round(call_usd * Fraction(traffic.requests) * PICO_PER_USD),
        replica_s=float(run_s) * traffic.requests,
        replicas_min=0,
        replicas_peak=max(1, peak),
    )


def busy_million_picousd(unit: Unit) -> int:
    """A million on replicas that are always as full as the scaler lets them be; a function's price does not depend on it."""
    if unit.offer.kind == "function":
        return 0
    return round(price_usd(unit, "list") / 3600 / Fraction(unit.rps) * 1_000_000 * PICO_PER_USD)


def break_even_rps(cpu: Unit, gpu: Unit, *, floor: int) -> float | None:
    """The rate from which GPUs are cheaper than these CPUs; None when they are not at any rate, even at their range's upper end.

    Below what `floor` GPUs answer: where as many CPU replicas as these cost are full. If that is more than the GPUs answer, no rate
    is high enough, since both then grow in proportion.
    """
    return offers.break_even_rps(cpu.offer, cpu.rps, gpu.offer, gpu.rps_high, replicas=max(1, floor))


def million_ng(costed: Costed, unit: Unit, coefficients: Coefficients) -> int:
    """Nanograms of a million requests, the middle of what is modelled; 0 where nothing is known."""
    found = footprint(costed, unit, coefficients)
    if found is None:
        return 0
    return round(Fraction(found.operational_ng.value + found.embodied_ng.value) * 10**6 / Fraction(costed.requests))


def footprint(costed: Costed, unit: Unit, coefficients: Coefficients) -> Footprint | None:
    """Of all of the traffic; None where there are no coefficients for the GPU."""
    offer = unit.offer
    try:
        use = Use(
            processor=offer.architecture,
            vcpu_milli=1000 * offer.vcpus,
            memory_bytes=round(Fraction(offer.memory_gb) * 2**30),
            held_ns=round(costed.replica_s * 1e9),
            cpu_ns=round(costed.requests * unit.request_cpu_ns),
            gpu=offer.gpu,
            gpus=offer.gpus,
            gpu_busy_ns=round(costed.requests / unit.saturated_rps * offer.gpus * 1e9) if offer.gpus else 0,
        )
        return energy.idle(use, coefficients) + energy.working(use, coefficients)
    except SettingsError:
        return None

"""Whether the verdict holds if something is not as measured: other throughput, spot prices, a year's commitment. Pure.

Each scenario compares the cheapest CPU offer with the cheapest GPU offer over the same traffic, the GPU at both ends of its range.
"""

from typing import Literal

import msgspec

from gateway.advice import costing, units
from gateway.advice.costing import Market
from gateway.advice.traffic import Traffic
from gateway.advice.units import Unit

Winner = Literal["cpu", "gpu", "undecided", ""]
"""`undecided`: it depends on where in its range the GPU's throughput lies; "" when neither can serve."""

CASES: tuple[tuple[str, float, Market], ...] = (
    ("as measured", 1.0, "list"),
    ("CPU throughput 30 % lower", 0.7, "list"),
    ("CPU throughput 30 % higher", 1.3, "list"),
    ("spot prices", 1.0, "spot"),
    ("a year's commitment", 1.0, "plan"),
)


class Scenario(msgspec.Struct, frozen=True):
    """Costs in pico-dollars per million requests; the GPU's at its assumed middle. Names are "" and costs None without an offer."""

    what: str
    winner: Winner
    cpu: str
    cpu_million_picousd: int | None
    gpu: str
    gpu_million_picousd: int | None


def scenarios(every: tuple[Unit, ...], traffic: Traffic, *, floor: int, cold_start_ns: int) -> tuple[Scenario, ...]:
    """The first is the one as measured."""
    return tuple(_scenario(*case, every, traffic, floor, cold_start_ns) for case in CASES)


def _scenario(
    what: str, factor: float, market: Market, every: tuple[Unit, ...], traffic: Traffic, floor: int, cold_start_ns: int
) -> Scenario:
    def million(unit: Unit, rps: float) -> int:
        at = msgspec.structs.replace(unit, rps=rps)
        return costing.cost(traffic, at, floor=floor, cold_start_ns=cold_start_ns, market=market).million_picousd

    cpus = [unit.scaled(factor) for unit in units.usable(every, gpu=False)]
    gpus = list(units.usable(every, gpu=True))
    cpu = min(((million(unit, unit.rps), unit.offer.name) for unit in cpus), default=(None, ""))
    middle = min(((million(unit, unit.rps), unit.offer.name) for unit in gpus), default=(None, ""))
    best = min((million(unit, unit.rps_high) for unit in gpus), default=None)
    worst = min((million(unit, unit.rps_low) for unit in gpus), default=None)
    return Scenario(what, _winner(cpu[0], best, worst), cpu[1], cpu[0], middle[1], middle[0])


def _winner(cpu: int | None, gpu_best: int | None, gpu_worst: int | None) -> Winner:
    if cpu is None and gpu_best is None:
        return ""
    if gpu_best is None or (cpu is not None and cpu <= gpu_best):
        return "cpu"
    if cpu is None or (gpu_worst is not None and gpu_worst < cpu):
        return "gpu"
    return "undecided"

"""What champion and candidate cost on this machine right now: time per call at the target's mix, loading, memory, dollars.

Stored figures are of another machine or another hour, so the champion is measured again, in turns with the candidate. What is over
its budget is measured again too: the middle of `PASSES` says more than one unlucky moment of a shared machine.
"""

from collections.abc import Callable, Mapping, Sequence
from statistics import median

import msgspec
import numpy as np

from gateway.contract.manifest import Latency
from gateway.contract.prices import PICO_PER_USD, PriceBook
from trainers.arrays import Array
from trainers.errors import ExportError, SpecError
from trainers.evaluate import coldload, pricing, resident, timing
from trainers.job import Report, Split, Target
from trainers.promotion.sides import Side, opener, opening

PASSES = 3
ROWS_MAX = 1024
"""To run the largest batches with; batches are cut out of them."""

ALLOWANCES = {"latency_p50": 20e3, "latency_p99": 100e3, "load": 20e6, "resident": 4 << 20, "cost_1k": 0.0}
"""Nanoseconds, bytes: less than that more counts as nothing. An answer's HTTP alone takes 50 us, a container's start a second."""

UNITS = {"latency_p50": (1e3, "us"), "latency_p99": (1e3, "us"), "load": (1e6, "ms"), "resident": (2**20, "MiB")}


class Cost(msgspec.Struct, frozen=True):
    """One quantity of both; None where it cannot be measured."""

    name: str
    champion: float | None
    candidate: float | None

    @property
    def ratio(self) -> float | None:
        if self.champion is None or self.candidate is None:
            return None
        ratio = self.candidate / max(self.champion, 1e-12)
        return min(ratio, 1.0) if self.candidate - self.champion <= ALLOWANCES[self.name] else ratio

    @property
    def words(self) -> str:
        if self.champion is None or self.candidate is None:
            return "it could not be measured"
        if self.name == "cost_1k":
            return f"${self.candidate:.3g} for the CPU of 1,000 rows, against ${self.champion:.3g}"
        size, unit = UNITS[self.name]
        return f"{self.candidate / size:,.2f} {unit}, against {self.champion / size:,.2f} {unit}"


def measure(
    champion: Side,
    candidate: Side,
    split: Split,
    target: Target,
    limits: Mapping[str, float],
    book: PriceBook,
    report: Report,
) -> dict[str, Cost]:
    """Everything that has a limit, by name."""
    if not limits:
        return {}
    passes: list[dict[str, Cost]] = []
    while len(passes) < PASSES:
        passes.append(_measured(champion, candidate, split, target, limits, book, report))
        if not any((cost.ratio or 0.0) > limits[name] for name, cost in passes[-1].items()):
            return passes[-1]
    return {name: _middle([one[name] for one in passes]) for name in limits}


def _middle(costs: list[Cost]) -> Cost:
    """The pass with the middle ratio; one that could not be measured stays that."""
    ratios = [cost.ratio for cost in costs if cost.ratio is not None]
    if len(ratios) < len(costs):
        return next(cost for cost in costs if cost.ratio is None)
    return next(cost for cost in costs if cost.ratio == median(ratios))


def _measured(
    champion: Side,
    candidate: Side,
    split: Split,
    target: Target,
    limits: Mapping[str, float],
    book: PriceBook,
    report: Report,
) -> dict[str, Cost]:
    sides = {"champion": champion, "candidate": candidate}
    rows = split.thinned(ROWS_MAX)
    found: dict[str, Mapping[str, float | None]] = {}
    if limits.keys() & {"latency_p50", "latency_p99", "cost_1k"}:
        sessions = {name: opener(side)() for name, side in sides.items()}
        taken = timing.measure(sessions, rows.inputs, candidate.manifest.signature, target.mix, report)
        for quantity, ns in (("latency_p50", _p50_ns), ("latency_p99", _p99_ns)):
            found[quantity] = {name: _call_ns(one.latency, target, ns) for name, one in taken.items()}
        found["cost_1k"] = {name: _thousand_usd(book, target, one.row_cpu_ns) for name, one in taken.items()}
    if "load" in limits:
        found["load"] = coldload.measure({name: opening(side) for name, side in sides.items()})
    if "resident" in limits:
        found["resident"] = {name: _resident(side, rows.inputs, target) for name, side in sides.items()}
    return {name: Cost(name, found[name]["champion"], found[name]["candidate"]) for name in limits}


def _call_ns(latency: Sequence[Latency], target: Target, ns: Callable[[Latency], int]) -> float:
    """Of one call, the mean over the batch sizes by their weight, at the length the data has."""
    longest = max(cell.length for cell in latency)
    cells = [cell for cell in latency if cell.length == longest]
    return float(np.average([ns(cell) for cell in cells], weights=[target.mix[cell.batch_rows] for cell in cells]))


def _p50_ns(cell: Latency) -> int:
    return cell.p50_ns


def _p99_ns(cell: Latency) -> int:
    return cell.p99_ns


def _thousand_usd(book: PriceBook, target: Target, row_cpu_ns: float) -> float | None:
    """None where the price book has no such platform."""
    try:
        picousd = pricing.thousand_picousd(book, target.platform, row_cpu_ns)
    except SpecError:
        return None
    return None if picousd is None else picousd / PICO_PER_USD


def _resident(side: Side, inputs: Mapping[str, Array], target: Target) -> float | None:
    """After runs of the largest batch; never less than the file, as weights are read from it whole."""
    largest = {name: np.resize(values, (target.batch_max, *values.shape[1:])) for name, values in inputs.items()}
    graph = side.graph.read_bytes()
    try:
        measured = resident.measure(graph, largest, optimized_by=side.served.optimized_by or "")
    except ExportError:
        return None
    return float(max(measured, len(graph)))

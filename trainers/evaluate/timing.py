"""What a graph costs to run, measured as the gateway would run it: one thread, no spinning, real rows.

Candidates take turns, run by run, so that whatever else the machine does hits all of them alike. They are compared by CPU time,
which is what is billed and what neighbours on the machine disturb least; latencies are of the wall clock. All are of this machine:
compare them with each other, or measure on the CPU that will serve. The gateway corrects the cost by what its own runs take.
"""

import time
from collections.abc import Iterator, Mapping, Sequence

import msgspec
import numpy as np
import onnxruntime as ort

from gateway.contract.manifest import BatchCost, Latency, Ratio, Signature
from trainers.arrays import Array
from trainers.job import Report

LENGTHS = (4, 2, 1)
"""Where rows have a length: at a quarter and a half of what the data has, and at all of it."""

PASSES = 2
"""Everything is measured twice, one pass after the other: what only holds for a moment shows in their difference."""

WARMUPS = 30
RUNS = 150
CELL_NS_MAX = 500_000_000
RUNS_MIN = 15
"""Per pass. Even a slow graph gets this many, past `CELL_NS_MAX`."""

NOISY_ABOVE = 0.1
"""Where the passes put a graph's cost further apart than this, as shares of fp32's, neither is believed."""

RESAMPLES = 500
CONFIDENCE = (2.5, 97.5)


class Cell(msgspec.Struct, frozen=True):
    """Runs of one graph with one batch, in turns: run i of every graph happened next to run i of the others. [passes x runs]"""

    batch_rows: int
    length: int
    wall_ns: tuple[Array, ...]
    cpu_ns: tuple[Array, ...]


class Timing(msgspec.Struct, frozen=True):
    """One graph at the target's mix: its cells, nanoseconds per row and of CPU per row, and both passes against the reference."""

    latency: tuple[Latency, ...]
    row_ns: float
    row_cpu_ns: float
    ratio: Ratio
    is_noisy: bool


def measure(
    sessions: Mapping[str, ort.InferenceSession],
    inputs: Mapping[str, Array],
    signature: Signature,
    mix: Mapping[int, float],
    report: Report,
) -> dict[str, Timing]:
    """By session; the first one is the reference. `mix` says how often batches of which size are expected.

    One cell per batch size, and per length where an axis but the rows varies: the longest length first.
    """
    feeds = list(_distinct(inputs, signature, sorted(mix)))
    samples: dict[tuple[str, int], list[tuple[Array, Array]]] = {}
    for turn in range(PASSES):
        for number, (rows, _, feed) in enumerate(feeds):
            report("time", turn * len(feeds) + number, PASSES * len(feeds), f"batch {rows}")
            for name, taken in _take_turns(sessions, feed).items():
                samples.setdefault((name, number), []).append(taken)
    report("time", PASSES * len(feeds), PASSES * len(feeds))
    cells = {
        name: [
            Cell(rows, length, *zip(*samples[name, number], strict=True))
            for number, (rows, length, _) in enumerate(feeds)
        ]
        for name in sessions
    }
    reference = cells[next(iter(sessions))]
    return {name: timed(own, reference, mix) for name, own in cells.items()}


def timed(own: Sequence[Cell], reference: Sequence[Cell], mix: Mapping[int, float]) -> Timing:
    """The same cells of both, in the same order. Bootstrap: pairs of neighbouring runs are drawn again, cell by cell."""
    is_reference = own is reference
    rng = np.random.default_rng(0)
    drawn = [_medians(cell, other, rng) for cell, other in zip(own, reference, strict=True)]
    latency = tuple(
        _latency(cell, None if is_reference else _interval(*medians)) for cell, medians in zip(own, drawn, strict=True)
    )
    by_pass = [
        _row_ns([(c.batch_rows, c.length, np.median(c.cpu_ns[turn])) for c in own], mix)
        / _row_ns([(c.batch_rows, c.length, np.median(c.cpu_ns[turn])) for c in reference], mix)
        for turn in range(len(own[0].cpu_ns))
    ]
    costs = [
        np.asarray(_row_ns([(c.batch_rows, c.length, m[side]) for c, m in zip(own, drawn, strict=True)], mix))
        for side in (0, 1)
    ]
    cpu = [(cell.batch_rows, cell.length, medians[0][0]) for cell, medians in zip(own, drawn, strict=True)]
    return Timing(
        latency=latency,
        row_ns=row_cost_ns(latency, mix),
        row_cpu_ns=float(_row_ns(cpu, mix)),
        ratio=Ratio(1.0, 1.0, 1.0) if is_reference else _interval(*costs),
        is_noisy=bool(max(by_pass) / min(by_pass) - 1 > NOISY_ABOVE),
    )


def row_cost_ns(latency: Sequence[Latency], mix: Mapping[int, float]) -> float:
    """Nanoseconds per row, the mean over the batch sizes by their weight in `mix`, at the length the data has."""
    return float(_row_ns([(cell.batch_rows, cell.length, cell.p50_ns) for cell in latency], mix))


def _row_ns(cells: Sequence[tuple[int, int, Array | float]], mix: Mapping[int, float]) -> Array | float:
    """Of (rows, length, nanoseconds) per cell; nanoseconds may be an array, and so is what is returned."""
    longest = max(length for _, length, _ in cells)
    per_row = [(mix[rows], ns / rows) for rows, length, ns in cells if length == longest]
    total: Array | float = sum(weight * ns for weight, ns in per_row) / sum(weight for weight, _ in per_row)
    return total


def _latency(cell: Cell, ratio: Ratio | None) -> Latency:
    wall = np.concatenate(cell.wall_ns)
    p50, p99 = np.percentile(wall, (50, 99)).astype(int).tolist()
    return Latency(batch_rows=cell.batch_rows, p50_ns=p50, p99_ns=p99, runs=len(wall), length=cell.length, ratio=ratio)


def _medians(own: Cell, reference: Cell, rng: np.random.Generator) -> tuple[Array, Array]:
    """Of both, as measured (first) and in every resample."""
    runs = np.stack([np.concatenate(own.cpu_ns), np.concatenate(reference.cpu_ns)])
    count = runs.shape[1]
    picked = rng.integers(0, count, (RESAMPLES, count))
    picked[0] = np.arange(count)
    medians = np.median(runs[:, picked], axis=2)
    return medians[0], medians[1]


def _interval(own: Array, reference: Array) -> Ratio:
    ratios = own / np.maximum(reference, 1)
    low, high = np.percentile(ratios, CONFIDENCE)
    return Ratio(median=float(ratios[0]), low=float(low), high=float(high))


def _distinct(
    inputs: Mapping[str, Array], signature: Signature, batches: Sequence[int]
) -> Iterator[tuple[int, int, dict[str, Array]]]:
    """Rows, length and feed of every cell. Where nothing varies, or the data is too short to be cut, lengths fall together."""
    seen: set[tuple[int, int]] = set()
    for part in reversed(LENGTHS):
        for feed in _feeds(inputs, signature, batches, part):
            rows = len(next(iter(feed.values())))
            length = signature.length({name: values.shape for name, values in feed.items()})
            if (rows, length) not in seen:
                seen.add((rows, length))
                yield rows, length, feed


def _feeds(
    inputs: Mapping[str, Array], signature: Signature, batches: Sequence[int], part: int
) -> Iterator[dict[str, Array]]:
    """Per batch size, real rows; every axis that varies is cut to one `part`th, but to no less than 1."""
    cut: dict[str, Array] = {}
    for tensor in signature.inputs:
        values = inputs[tensor.name]
        wanted = [slice(None)]
        for axis, size in zip(tensor.shape[1:], values.shape[1:], strict=True):
            wanted.append(slice(max(1, -(-size // part))) if isinstance(axis, str) else slice(None))
        cut[tensor.name] = values[tuple(wanted)]
    for rows in batches:
        yield {name: np.resize(values, (rows, *values.shape[1:])) for name, values in cut.items()}


def _take_turns(sessions: Mapping[str, ort.InferenceSession], feed: dict[str, Array]) -> dict[str, tuple[Array, Array]]:
    """Nanoseconds of wall and of CPU time per run."""
    samples: dict[str, list[tuple[int, int]]] = {name: [] for name in sessions}
    warm_until = time.perf_counter_ns() + CELL_NS_MAX
    for turn in range(WARMUPS):
        if turn >= RUNS_MIN // 5 and time.perf_counter_ns() > warm_until:
            break
        for session in sessions.values():
            session.run(None, feed)
    deadline = time.perf_counter_ns() + CELL_NS_MAX * len(sessions)
    for turn in range(RUNS):
        if turn >= RUNS_MIN and time.perf_counter_ns() > deadline:
            break
        for name, session in sessions.items():
            cpu, wall = time.thread_time_ns(), time.perf_counter_ns()
            session.run(None, feed)
            samples[name].append((time.perf_counter_ns() - wall, time.thread_time_ns() - cpu))
    return {
        name: (np.array([w for w, _ in taken], np.int64), np.array([c for _, c in taken], np.int64))
        for name, taken in samples.items()
    }


def fit_cost(latency: Sequence[Latency]) -> BatchCost:
    """Least squares of the relative error, so that a batch of one counts as much as one of 128; no part is below zero.

    The part of the length is fitted where lengths differ. Without a part that came out negative the others are fitted again.
    """
    rows = np.array([cell.batch_rows for cell in latency], np.float64)
    lengths = np.array([cell.length for cell in latency], np.float64)
    times = np.array([max(cell.p50_ns, 1) for cell in latency], np.float64)
    parts = [np.ones_like(rows), rows, rows * lengths]
    kept = [0, 1, 2] if len(set(lengths.tolist())) > 1 else [0, 1]
    fitted = np.zeros(3)
    while kept:
        solution, *_ = np.linalg.lstsq(np.stack([parts[part] / times for part in kept], axis=1), np.ones(len(times)))
        worst = int(np.argmin(solution))
        if solution[worst] >= 0:
            fitted[kept] = solution
            break
        del kept[worst]
    base, row, row_length = fitted.tolist()
    return BatchCost(base_ns=round(base), row_ns=round(row), row_length_ps=round(row_length * 1000))

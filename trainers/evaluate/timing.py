"""What a graph costs to run and to load, measured as the gateway would run it: one thread, no spinning, real rows.

Candidates take turns, run by run, so that whatever else the machine does hits all of them alike. The figures are of this machine:
compare them with each other, or measure on the CPU that will serve. The gateway corrects the cost by what its own runs take.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import median_low

import numpy as np
import onnxruntime as ort

from gateway.contract.manifest import BatchCost, Latency, Signature
from trainers.arrays import Array
from trainers.job import Report

LENGTHS = (4, 2, 1)
"""Where rows have a length: at a quarter and a half of what the data has, and at all of it."""

WARMUPS = 30
RUNS = 300
CELL_NS_MAX = 1_000_000_000
RUNS_MIN = 30
"""Even a slow graph gets this many, past `CELL_NS_MAX`."""

LOADS = 5


def latencies(
    sessions: Mapping[str, ort.InferenceSession],
    inputs: Mapping[str, Array],
    signature: Signature,
    batches: Sequence[int],
    report: Report,
) -> dict[str, tuple[Latency, ...]]:
    """By session, one `Latency` per batch size, and per length where an axis but the rows varies: the longest length first."""
    feeds = [feed for part in reversed(LENGTHS) for feed in _feeds(inputs, signature, batches, part)]
    cells: dict[str, list[Latency]] = {name: [] for name in sessions}
    seen: set[tuple[int, int]] = set()
    for done, feed in enumerate(feeds):
        rows = len(next(iter(feed.values())))
        length = signature.length({name: values.shape for name, values in feed.items()})
        report("time", done, len(feeds), f"batch {rows}")
        if (rows, length) in seen:
            continue  # nothing varies, or the data is too short to be cut
        seen.add((rows, length))
        for name, samples in _take_turns(sessions, feed).items():
            p50, p99 = np.percentile(samples, (50, 99)).astype(int).tolist()
            cells[name].append(Latency(batch_rows=rows, p50_ns=p50, p99_ns=p99, runs=len(samples), length=length))
    report("time", len(feeds), len(feeds))
    return {name: tuple(cell) for name, cell in cells.items()}


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


def load_times(openers: Mapping[str, Callable[[], ort.InferenceSession]]) -> dict[str, int]:
    """Nanoseconds from a file in the page cache to a session, the median of `LOADS`."""
    samples: dict[str, list[int]] = {name: [] for name in openers}
    for _ in range(LOADS):
        for name, opens in openers.items():
            began = time.perf_counter_ns()
            opens()
            samples[name].append(time.perf_counter_ns() - began)
    return {name: median_low(taken) for name, taken in samples.items()}


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


def row_cost_ns(latency: Sequence[Latency], mix: Mapping[int, float]) -> float:
    """Nanoseconds per row, the mean over the batch sizes by their weight in `mix`, at the length the data has."""
    longest = max(cell.length for cell in latency)
    cells = [cell for cell in latency if cell.length == longest]
    return float(np.average([c.p50_ns / c.batch_rows for c in cells], weights=[mix[c.batch_rows] for c in cells]))


def _take_turns(sessions: Mapping[str, ort.InferenceSession], feed: dict[str, Array]) -> dict[str, list[int]]:
    samples: dict[str, list[int]] = {name: [] for name in sessions}
    for _ in range(WARMUPS):
        for session in sessions.values():
            session.run(None, feed)
    deadline = time.perf_counter_ns() + CELL_NS_MAX * len(sessions)
    for turn in range(RUNS):
        if turn >= RUNS_MIN and time.perf_counter_ns() > deadline:
            break
        for name, session in sessions.items():
            began = time.perf_counter_ns()
            session.run(None, feed)
            samples[name].append(time.perf_counter_ns() - began)
    return samples

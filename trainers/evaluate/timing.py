"""What a graph costs to run and to load, measured as the gateway would run it: one thread, no spinning, real rows.

Candidates take turns, run by run, so that whatever else the machine does hits all of them alike. The figures are of this machine:
compare them with each other, or measure on the CPU that will serve.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median_low

import numpy as np
import onnxruntime as ort

from gateway.contract.manifest import BatchCost, Latency
from trainers.job import Array, Report

BATCHES = (1, 8, 32, 128)
WARMUPS = 30
RUNS = 300
CELL_NS_MAX = 1_000_000_000
RUNS_MIN = 30
"""Even a slow graph gets this many, past `CELL_NS_MAX`."""

LOADS = 5


def open_session(path: Path) -> ort.InferenceSession:
    """The serving configuration; keep it equal to that of `gateway.runtime.session`."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def latencies(
    sessions: Mapping[str, ort.InferenceSession], inputs: Mapping[str, Array], report: Report
) -> dict[str, tuple[Latency, ...]]:
    """By session, one `Latency` per batch size."""
    cells: dict[str, list[Latency]] = {name: [] for name in sessions}
    for done, rows in enumerate(BATCHES):
        report("time", done, len(BATCHES), f"batch {rows}")
        feed = {name: np.resize(values, (rows, *values.shape[1:])) for name, values in inputs.items()}
        for name, samples in _take_turns(sessions, feed).items():
            p50, p99 = np.percentile(samples, (50, 99)).astype(int).tolist()
            cells[name].append(Latency(batch_rows=rows, p50_ns=p50, p99_ns=p99, runs=len(samples)))
    report("time", len(BATCHES), len(BATCHES))
    return {name: tuple(cell) for name, cell in cells.items()}


def load_times(paths: Mapping[str, Path]) -> dict[str, int]:
    """Nanoseconds from a file in the page cache to a session, the median of `LOADS`."""
    samples: dict[str, list[int]] = {name: [] for name in paths}
    for _ in range(LOADS):
        for name, path in paths.items():
            began = time.perf_counter_ns()
            open_session(path)
            samples[name].append(time.perf_counter_ns() - began)
    return {name: median_low(taken) for name, taken in samples.items()}


def fit_cost(latency: Sequence[Latency]) -> BatchCost:
    """Least squares of the relative error, so that a batch of one counts as much as one of 128; neither part is below zero."""
    rows = np.array([cell.batch_rows for cell in latency], np.float64)
    times = np.array([max(cell.p50_ns, 1) for cell in latency], np.float64)
    per_base, per_row = 1 / times, rows / times
    (base, row), *_ = np.linalg.lstsq(np.stack([per_base, per_row], axis=1), np.ones(len(times)))
    if base < 0:
        base, row = 0.0, per_row.sum() / (per_row @ per_row)
    if row < 0:
        base, row = per_base.sum() / (per_base @ per_base), 0.0
    return BatchCost(base_ns=round(base), row_ns=round(row))


def row_cost_ns(latency: Sequence[Latency]) -> float:
    """Nanoseconds per row, the mean over the batch sizes."""
    return float(np.mean([cell.p50_ns / cell.batch_rows for cell in latency]))


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

"""Real runs of a gateway under an open-loop load, as `tests.bench.advise` makes and keeps them, and what is foreseen of each.

Kept to the microsecond, as gaps and latencies, which compress.
"""

import gzip
from collections.abc import Sequence
from itertools import accumulate, pairwise
from pathlib import Path

import msgspec
import numpy as np

from gateway.advice.service import Burst, Rules, Trial, foresee, of_trial
from gateway.advice.simulation import Fleet

KEPT_NS = 1000
LATER_NS = 10**9


class Seen(msgspec.Struct, frozen=True):
    """Requests, in nanoseconds: each after the one before it, and how long its answer took."""

    gaps_ns: tuple[int, ...]
    latency_ns: tuple[int, ...]

    @property
    def sent_ns(self) -> tuple[int, ...]:
        return tuple(accumulate(self.gaps_ns))


class Recorded(msgspec.Struct, frozen=True):
    """One real run, and what was asked just before and after it: bursts and an open loop, with the CPU of the gateway's process."""

    model: str
    load: float
    rps: float
    rules: Rules
    real: Seen
    bursts: tuple[tuple[int, ...], ...]
    asked: Seen
    asked_cpu_ns: int

    def foreseen_ns(self) -> tuple[int, ...]:
        """Of the same arrivals, from the trial alone."""
        sent = self.asked.sent_ns
        answered = tuple(at + took for at, took in zip(sent, self.asked.latency_ns, strict=True))
        trial = Trial(tuple(map(Burst, self.bursts)), sent, answered, self.asked_cpu_ns)
        return foresee(self.real.sent_ns, of_trial(trial, self.rules), Fleet(), seed=1).latency_ns


class Recording(msgspec.Struct, frozen=True):
    """`load_average` of the machine, all its work included, as the recording ended."""

    date: str
    cpu: str
    load_average: float
    runs: tuple[Recorded, ...]


def seen(sent_ns: Sequence[int], answered_ns: Sequence[int]) -> Seen:
    gaps = [after - before for before, after in pairwise((0, *sent_ns))]
    latencies = [answered - sent for sent, answered in zip(sent_ns, answered_ns, strict=True)]
    return Seen(*(tuple(round(one / KEPT_NS) * KEPT_NS for one in values) for values in (gaps, latencies)))


def joined(trials: Sequence[Trial]) -> Seen:
    """As if each had begun a while after the one before it."""
    parts = [seen(trial.sent_ns, trial.answered_ns) for trial in trials]
    gaps = (gap + LATER_NS * (not place) for part in parts for place, gap in enumerate(part.gaps_ns))
    return Seen(tuple(gaps), tuple(latency for part in parts for latency in part.latency_ns))


def figures(latency_ns: Sequence[int]) -> tuple[float, float, float, float]:
    """Mean, median, 95th and 99th percentile."""
    p50, p95, p99 = np.percentile(latency_ns, (50, 95, 99)).tolist()
    return float(np.mean(latency_ns)), p50, p95, p99


def write(path: Path, recording: Recording) -> None:
    path.write_bytes(gzip.compress(msgspec.json.encode(recording), mtime=0))


def read(path: Path) -> Recording:
    return msgspec.json.decode(gzip.decompress(path.read_bytes()), type=Recording)

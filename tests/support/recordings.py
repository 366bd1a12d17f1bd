"""Real runs of a gateway under an open-loop load, as `tests.bench.advise` makes and keeps them, and what is foreseen of each."""

import msgspec
import numpy as np

from gateway.advice.service import Trial, foresee, of_trial
from gateway.advice.simulation import Fleet


class Recorded(msgspec.Struct, frozen=True):
    """One run: when requests left and how long each took, in nanoseconds, and the trial just before and after it."""

    model: str
    load: float
    rps: float
    batch_max: int
    sent_ns: tuple[int, ...]
    latency_ns: tuple[int, ...]
    trial: Trial

    def foreseen_ns(self) -> tuple[int, ...]:
        """Of the same arrivals, from the trial alone."""
        service = of_trial(self.trial, batch_max=self.batch_max)
        return foresee(self.sent_ns, service, Fleet(), seed=1).latency_ns


class Recording(msgspec.Struct, frozen=True):
    """`load_average` of the machine, all its work included, as the recording ended."""

    date: str
    cpu: str
    load_average: float
    runs: tuple[Recorded, ...]


def joined(first: Trial, second: Trial) -> Trial:
    """As if the second had begun a while after the first."""
    later_ns = max(*first.sent_ns, *first.answered_ns) + 10**9
    return Trial(
        first.bursts + second.bursts,
        first.sent_ns + tuple(at + later_ns for at in second.sent_ns),
        first.answered_ns + tuple(at + later_ns for at in second.answered_ns),
        first.cpu_ns + second.cpu_ns,
    )


def figures(latency_ns: tuple[int, ...]) -> tuple[float, float, float, float]:
    """Mean, median, 95th and 99th percentile."""
    p50, p95, p99 = np.percentile(latency_ns, (50, 95, 99)).tolist()
    return float(np.mean(latency_ns)), p50, p95, p99

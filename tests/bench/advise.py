"""`python -m tests.bench.advise`: what `steelyard advise` foresees against a real gateway under an open-loop load, within 15 %.

One gateway on the first core, Poisson arrivals from the last. What is foreseen has the arrivals of the real run and, of service
times, what `gateway.advice.loading` measured just before and after it, as `advise` does; nothing of the real run itself. All
rounds of a load have the same arrivals, so that `apart` tells how far real runs are from each other: largest over smallest.

Where the kernel lets us (root), gateway and generator run in real time (SCHED_FIFO): as if the cores were theirs, whatever else the
machine does, but for caches; the event loop before the workers, as the scheduler wakes it. Exits 1 when mean, median or 95th
percentile are off by more than 15 % in the median of the rounds. BENCH_ROUNDS, BENCH_SECONDS, BENCH_MODELS, BENCH_LOADS;
BENCH_RECORD=FILE keeps a part of it for `tests/unit/test_advice_recorded.py`.
"""

import asyncio
import datetime
import os
import random
import sys
import tempfile
from itertools import accumulate
from pathlib import Path

import msgspec
import numpy as np

from gateway.advice.loading import WARM_UP_SHARE, Asker, open_loop
from gateway.advice.measuring import cpu_name, rules
from gateway.advice.service import Rules, of_trial
from gateway.contract import layout
from gateway.contract.manifest import Manifest
from gateway.objectstore.local import LocalStore
from gateway.registry.reading import Registry
from tests.bench.advisemodels import MODELS, Subject
from tests.bench.cell import CORES
from tests.support import gateways
from tests.support.recordings import Recorded, Recording, figures, joined, seen, write

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
SECONDS = float(os.environ.get("BENCH_SECONDS", "3"))
NAMES = os.environ.get("BENCH_MODELS", ",".join(MODELS)).split(",")
LOADS = tuple(map(float, os.environ.get("BENCH_LOADS", "0.3,0.6,0.8").split(",")))
RECORD = os.environ.get("BENCH_RECORD", "")
RECORDED_S, RECORDED_MIN, RECORDED_MAX = 0.3, 500, 2500
"""Of a run that is kept, in seconds and in requests; its trials have some twice as many."""

ASKED_S = 2.0
UNBOUND = 0.95
"""Of the load at which it is asked: the real run's rate decides."""

WITHIN = 0.15
COMPARED = ("mean", "p50", "p95")
WORKERS, LOOP, GENERATOR = 10, 20, 30
"""Real-time priorities."""


def main() -> None:
    print(f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC, {len(CORES)} cores of {cpu_name()}")
    os.sched_setaffinity(0, {CORES[-1]})
    is_ours = _in_real_time(0, GENERATOR)
    print("in real time" if is_ours else "NOT in real time (needs root): neighbours' work is in these figures")
    print(f"{'':<8} {'load':>5} {'req/s':>7} {'':<9} {'mean':>8} {'p50':>8} {'p95':>8} {'p99':>8}  us; foreseen / real")
    kept: list[Recorded] = []
    worst = max(_compare(name, MODELS[name], kept) for name in NAMES)
    if RECORD:
        recording = Recording(
            f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}", cpu_name(), os.getloadavg()[0], tuple(kept)
        )
        write(Path(RECORD), recording)
    print(f"largest difference in {', '.join(COMPARED)}: {worst:.1%}, at most {WITHIN:.0%} is right")
    sys.exit(worst > WITHIN)


def _compare(name: str, subject: Subject, kept: list[Recorded]) -> float:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "store"
        root.mkdir()
        manifest = asyncio.run(_published(LocalStore(root), name, subject))
        how = rules(manifest, manifest.variants[0])
        start = (
            "taskset",
            "-c",
            str(CORES[0]),
            "chrt",
            "--fifo" if _may() else "--other",
            str(WORKERS if _may() else 0),
        )
        with gateways.running(root, Path(folder), "--preload", manifest.model, prefix=start) as gateway:
            asker = Asker(gateway.process.pid, gateway.port, manifest.model, subject.body)
            _in_real_time(gateway.process.pid, LOOP)
            trial = asker.ask(load=max(LOADS), rps_max=1e9, seconds=ASKED_S, seed=0)
            capacity = of_trial(trial, Rules()).saturated_rps
            rounds = {
                load: [_round(gateway, asker, load * capacity, load, how, k) for k in range(ROUNDS)] for load in LOADS
            }
    for found in rounds.values():
        kept += [msgspec.structs.replace(one, model=name) for one in found[:3]]
    return max(_row(name, load, found) for load, found in rounds.items())


async def _published(store: LocalStore, name: str, subject: Subject) -> Manifest:
    await subject.publish(store)
    registry = Registry(store)
    return await registry.manifest(name, (await registry.resolve(name, layout.CHAMPION))[1])


def _round(gateway: gateways.Gateway, asker: Asker, rps: float, load: float, how: Rules, number: int) -> Recorded:
    rng = random.Random(1)
    count = max(RECORDED_MIN, min(RECORDED_MAX, int(rps * RECORDED_S))) if RECORD else int(rps * SECONDS)
    due = list(accumulate(round(rng.expovariate(rps) * 1e9) for _ in range(count)))
    asked_s = min(ASKED_S, 2 * count / rps) if RECORD else ASKED_S
    before = asker.ask(load=UNBOUND, rps_max=rps, seconds=asked_s, seed=2 * number + 2)
    open_loop(gateway.port, asker.request, due[: int(len(due) * WARM_UP_SHARE)])
    sent, answered = open_loop(gateway.port, asker.request, due)
    after = asker.ask(load=UNBOUND, rps_max=rps, seconds=asked_s, seed=2 * number + 3)
    bursts = tuple(burst.answered_ns for burst in (*before.bursts, *after.bursts))
    asked, cpu_ns = joined((before, after)), before.cpu_ns + after.cpu_ns
    return Recorded("", load, rps, how, seen(sent, answered), bursts, asked, cpu_ns)


def _row(name: str, load: float, rounds: list[Recorded]) -> float:
    real = np.array([figures(one.real.latency_ns) for one in rounds])
    foreseen = np.array([figures(one.foreseen_ns()) for one in rounds])
    head = f"{name:<8} {load:>5} {rounds[0].rps:>7.0f} {'real':<9}"
    print(f"{head} {_numbers(np.median(real, axis=0) / 1e3, 0)}  load {os.getloadavg()[0]:.0f}")
    print(f"{'':<22} {'foreseen':<9} {_numbers(np.median(foreseen, axis=0) / 1e3, 0)}")
    ratios = np.median(foreseen / real, axis=0)
    print(f"{'':<22} {'ratio':<9} {_numbers(ratios, 2)}")
    print(f"{'':<22} {'apart':<9} {_numbers(real.max(axis=0) / real.min(axis=0), 2)}", flush=True)
    return float(np.abs(ratios[: len(COMPARED)] - 1).max())


def _numbers(values: "np.typing.NDArray[np.float64]", digits: int) -> str:
    return " ".join(f"{value:>8,.{digits}f}" for value in values)


def _may() -> bool:
    return os.geteuid() == 0


def _in_real_time(pid: int, priority: int) -> bool:
    """The main thread of a process only."""
    if _may():
        os.sched_setscheduler(pid, os.SCHED_FIFO, os.sched_param(priority))
    return _may()


if __name__ == "__main__":
    main()

"""How many rows a second something answers in batches, and what one row takes: warm-up, runs, p99, energy. Knows no device.

All of it is over within its budget, give or take one run: a GPU that is rented by the second must not be kept for a benchmark.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, Protocol

import msgspec
import numpy as np

from gateway.contract.manifest import GpuFigure

BATCHES = (1, 8, 32, 128)
BUDGET_S = 60.0
"""60 s of a g5.xlarge are two cents."""

WARM_SHARE = 0.2
WARM_MAX = 500
RUNS_MIN = 5
RUNS_MAX = 5000
"""Of one batch size: a p99 of 5000 runs rests on fifty."""


class TooLarge(Exception):
    """This batch does not fit into the device's memory."""


class Runner(Protocol):
    """`run` answers so many rows and returns when the answers are on the host. Raises `TooLarge`."""

    @property
    def datatype(self) -> Literal["fp32", "fp16"]: ...

    @property
    def runtime(self) -> str: ...

    def run(self, rows: int) -> None: ...


class Timed(msgspec.Struct, frozen=True):
    """Each run's nanoseconds, all together from the first to the last, and the energy of that; None where nobody counts it."""

    run_ns: tuple[int, ...]
    elapsed_ns: int
    energy_nj: int | None


def figures(
    gpu: str,
    runners: Sequence[Runner],
    *,
    energy_nj: Callable[[], int | None] = lambda: None,
    batches: Sequence[int] = BATCHES,
    budget_s: float = BUDGET_S,
    clock_ns: Callable[[], int] = time.perf_counter_ns,
    told: Callable[[int, int], None] = lambda *_: None,
) -> tuple[GpuFigure, ...]:
    """By runner and batch size, the smallest first. `energy_nj` is a counter that only grows; `told` hears how far it is.

    A batch that does not fit, and larger ones, are left out; so is what the budget leaves no time for.
    """
    begin_ns, budget_ns = clock_ns(), round(budget_s * 1e9)
    made: list[GpuFigure] = []
    cells = [(runner, rows) for runner in runners for rows in sorted(batches)]
    full: set[int] = set()
    for number, (runner, rows) in enumerate(cells):
        told(number, len(cells))
        left_ns = begin_ns + budget_ns - clock_ns()
        if left_ns <= 0 or id(runner) in full:
            continue
        try:
            timed = timing(partial(runner.run, rows), left_ns // (len(cells) - number), energy_nj, clock_ns)
        except TooLarge:
            full.add(id(runner))
            continue
        made.append(figure(gpu, runner, rows, timed))
    return tuple(made)


def timing(
    run: Callable[[], None], budget_ns: int, energy_nj: Callable[[], int | None], clock_ns: Callable[[], int]
) -> Timed:
    """Runs until the budget is used up, at least `RUNS_MIN`; the first fifth of it warms up, with one run at least."""
    began_ns = clock_ns()
    for _ in range(WARM_MAX):
        run()
        if clock_ns() - began_ns >= WARM_SHARE * budget_ns:
            break
    used_before, from_ns = energy_nj(), clock_ns()
    runs: list[int] = []
    last_ns = from_ns
    while len(runs) < RUNS_MAX and (len(runs) < RUNS_MIN or last_ns - began_ns < budget_ns):
        run()
        now_ns = clock_ns()
        runs.append(now_ns - last_ns)
        last_ns = now_ns
    used_after = energy_nj()
    used = None if used_before is None or used_after is None else used_after - used_before
    return Timed(tuple(runs), last_ns - from_ns, used)


def figure(gpu: str, runner: Runner, rows: int, timed: Timed) -> GpuFigure:
    """Energy is None where the counter did not move: it is read in steps, and nothing is no answer."""
    count = rows * len(timed.run_ns)
    return GpuFigure(
        gpu=gpu,
        datatype=runner.datatype,
        batch_rows=rows,
        rows_per_s=count * 1e9 / max(1, timed.elapsed_ns),
        p99_ns=int(np.percentile(timed.run_ns, 99, method="higher")),
        runs=len(timed.run_ns),
        energy_nj=round(timed.energy_nj / count) if timed.energy_nj else None,
        runtime=runner.runtime,
    )


def short_name(title: str) -> str:
    """As offers call it: `NVIDIA A10G` is A10G, `Tesla T4` T4, `NVIDIA A100-SXM4-40GB` A100."""
    words = [
        word for word in title.replace("-", " ").split() if word.lower() not in {"nvidia", "tesla", "quadro", "geforce"}
    ]
    return words[0] if words else title

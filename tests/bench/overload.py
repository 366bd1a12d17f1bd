"""`python -m tests.bench.overload`: twice as many requests as the workers can serve, each with a deadline, open loop.

Real ONNX graphs, the real loader, batcher and workers, without HTTP. Capacity is measured with the same parts, before and after,
by callers that wait for their answers. Arrivals are Poisson and wait for nobody; a deadline counts from when one should arrive.
"""

import asyncio
import os
import random
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
import uvloop

from gateway.contract.manifest import BatchCost, Manifest, Signature, Tensor
from gateway.errors import DeadlineExceeded, Overloaded
from gateway.runtime.model import LoadedModel, Loader, RuntimeOptions
from gateway.runtime.session import Stop
from gateway.runtime.spent import Spent
from gateway.runtime.tensors import Tensors
from gateway.runtime.workers import Workers
from tests.support import models

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
SECONDS = float(os.environ.get("BENCH_SECONDS", "3"))
OVERLOAD = float(os.environ.get("BENCH_OVERLOAD", "2"))
DEADLINE_MS = 250
CALLERS = 32
FAR_NS = 10**12
OPTIONS = RuntimeOptions(workers=1)


class Subject(msgspec.Struct, frozen=True):
    """A graph to overload: what its rows look like and what its manifest says of their cost."""

    name: str
    graph: Callable[[], bytes]
    input_name: str
    row: tuple[int, ...]
    cost: BatchCost
    max_batch: int
    priorities: tuple[int, ...] = (0,)


CNN = Subject(
    name="CNN, 3x96x96, cost of rows",
    graph=models.cnn_graph,
    input_name="image",
    row=(3, models.CNN_PIXELS, models.CNN_PIXELS),
    cost=BatchCost(base_ns=20_000, row_ns=models.CNN_ROW_NS),
    max_batch=32,
)
MLP = Subject(
    name="MLP, 67 MB of weights to read for each run, cost of a base",
    graph=lambda: models.mlp_graph(features=256, hidden=65_536),
    input_name="features",
    row=(256,),
    cost=BatchCost(base_ns=8_000_000, row_ns=500_000),
    max_batch=32,
)
SUBJECTS = (
    CNN,
    MLP,
    msgspec.structs.replace(CNN, name="CNN, a fifth urgent, a fifth with time", priorities=(1, 0, 0, 0, 8)),
)


class Asked(msgspec.Struct):
    """One request: nanoseconds from when it should have arrived to its end, and from the call to its end."""

    priority: int
    outcome: str = ""
    took_ns: int = 0
    call_ns: int = 0


class Phase(msgspec.Struct, frozen=True):
    """Some seconds of load: requests answered in time, the share of the time in which the graph ran, and the CPU it was given."""

    rows_per_s: float
    run_share: float
    cpu_share: float


class Watched:
    """The graph's own run, with the time and the thread's CPU that it takes."""

    def __init__(self, run: Callable[[Tensors, Stop], Tensors]) -> None:
        self._run = run
        self.run_ns = self.cpu_ns = 0

    def __call__(self, inputs: Tensors, stop: Stop) -> Tensors:
        began_ns, cpu_ns = time.perf_counter_ns(), time.thread_time_ns()
        try:
            return self._run(inputs, stop)
        finally:
            self.run_ns += time.perf_counter_ns() - began_ns
            self.cpu_ns += time.thread_time_ns() - cpu_ns

    def phase(self, rows: int, began_ns: int) -> Phase:
        """Since `began_ns`, when this was made or a phase last ended."""
        took_ns = time.perf_counter_ns() - began_ns
        phase = Phase(rows / took_ns * 1e9, self.run_ns / took_ns, self.cpu_ns / took_ns)
        self.run_ns = self.cpu_ns = 0
        return phase


def main() -> None:
    for subject in SUBJECTS:
        uvloop.run(_overload(subject))


async def _overload(subject: Subject) -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        ThreadPoolExecutor(1) as builder,
        Workers(OPTIONS.workers, levels=OPTIONS.priority_levels, ageing_ns=OPTIONS.ageing_ms * 1_000_000) as workers,
    ):
        model = await _loaded(subject, Path(folder), builder, workers)
        inputs = {subject.input_name: np.random.default_rng(0).normal(size=(1, *subject.row)).astype(np.float32)}
        watched = model.lanes.run = Watched(model.lanes.run)
        await _capacity(model, inputs, watched)
        capacities, overloads, asked = [await _capacity(model, inputs, watched)], [], []
        for _ in range(ROUNDS):
            rate, began_ns = OVERLOAD * capacities[-1].rows_per_s, time.perf_counter_ns()
            begun = await _open_loop(model, inputs, subject.priorities, rate=rate)
            in_time = [one for one in begun if one.outcome == "answered" and one.took_ns <= DEADLINE_MS * 1_000_000]
            overloads.append(watched.phase(len(in_time), began_ns))
            asked += begun
            capacities.append(await _capacity(model, inputs, watched))
    _print(subject, asked, capacities, overloads)
    print(f"  capacities          {', '.join(f'{phase.rows_per_s:.0f}' for phase in capacities)} rows/s")
    print(f"  believed at last    {_belief(model)}\n", flush=True)


async def _loaded(subject: Subject, folder: Path, builder: ThreadPoolExecutor, workers: Workers) -> LoadedModel:
    signature = Signature(
        inputs=(Tensor(name=subject.input_name, datatype="FP32", shape=("batch", *subject.row)),),
        outputs=(Tensor(name="scores", datatype="FP32", shape=("batch", 10)),),
    )
    manifest, contents = models.manifest_of("overload", signature, {"fp32": subject.graph()})
    [variant] = manifest.variants
    variant = msgspec.structs.replace(variant, max_batch=subject.max_batch, batch_cost=subject.cost)
    manifest = msgspec.structs.replace(manifest, variants=(variant,))
    assert isinstance(manifest, Manifest)
    (folder / variant.file).write_bytes(contents[variant.file])
    loader = Loader(workers, builder, OPTIONS, cpu_flags=frozenset())
    model, _ = await loader.load(manifest, variant, folder / variant.file)
    assert not model.is_inline(1), "the graph is too small to be given to a worker"
    return model


async def _capacity(model: LoadedModel, inputs: Tensors, watched: Watched) -> Phase:
    """When `CALLERS` callers ask, wait and ask again."""
    until_ns = time.perf_counter_ns() + round(SECONDS / 2 * 1e9)
    done = 0

    async def caller() -> None:
        nonlocal done
        while time.perf_counter_ns() < until_ns:
            await model.run(inputs, 1, deadline_ns=time.perf_counter_ns() + FAR_NS, spent=Spent())
            done += 1

    began_ns = time.perf_counter_ns()
    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    return watched.phase(done, began_ns)


async def _open_loop(model: LoadedModel, inputs: Tensors, priorities: tuple[int, ...], *, rate: float) -> list[Asked]:
    """Requests at their Poisson times, whatever has become of those before them; ends when the last one has its end."""
    rng = random.Random(0)
    began_ns = due_ns = time.perf_counter_ns()
    asked: list[Asked] = []
    async with asyncio.TaskGroup() as tasks:
        while due_ns < began_ns + SECONDS * 1e9:
            await asyncio.sleep(max(0.0, (due_ns - time.perf_counter_ns()) / 1e9))
            while due_ns <= time.perf_counter_ns():
                asked.append(Asked(rng.choice(priorities)))
                tasks.create_task(_ask(model, inputs, due_ns, asked[-1]))
                due_ns += round(rng.expovariate(rate) * 1e9)
    return asked


async def _ask(model: LoadedModel, inputs: Tensors, due_ns: int, asked: Asked) -> None:
    began_ns, spent = time.perf_counter_ns(), Spent()
    deadline_ns = due_ns + DEADLINE_MS * 1_000_000
    try:
        await model.run(inputs, 1, deadline_ns=deadline_ns, priority=asked.priority, spent=spent)
        asked.outcome = "answered"
    except DeadlineExceeded:
        asked.outcome = "refused later" if spent.queue_ns or spent.run_ns else "refused at once"
    except Overloaded:
        asked.outcome = "queue full"
    ended_ns = time.perf_counter_ns()
    asked.took_ns, asked.call_ns = ended_ns - due_ns, ended_ns - began_ns


def _print(subject: Subject, asked: list[Asked], capacities: list[Phase], overloads: list[Phase]) -> None:
    goodput, at_same_cpu = [], []
    for phase, (before, after) in zip(overloads, pairwise(capacities), strict=True):
        goodput.append(2 * phase.rows_per_s / (before.rows_per_s + after.rows_per_s))
        at_same_cpu.append(goodput[-1] * (before.cpu_share + after.cpu_share) / (2 * phase.cpu_share))
    took_ms = [one.took_ns / 1e6 for one in asked if one.outcome == "answered"]
    refused_us = [one.call_ns / 1e3 for one in asked if one.outcome in {"refused at once", "queue full"}]
    late = sum(ms > DEADLINE_MS for ms in took_ms)
    print(f"{subject.name}: {ROUNDS} rounds of {SECONDS:g} s, arrivals {OVERLOAD:g}x the capacity just before")
    print(f"  goodput / capacity  {_listed(goodput)}: median {statistics.median(goodput):.2f} (target 0.9)")
    print(f"  at the same CPU     {_listed(at_same_cpu)}: without what neighbours took of the core")
    print(f"  the graph ran       {_listed([phase.run_share for phase in overloads])} of the time")
    print(f"  answered            p50 {_quantile(took_ms, 50)} ms, p99 {_quantile(took_ms, 99)} ms", end="")
    print(f" of {DEADLINE_MS}; {late} seen after that")
    print(f"  refused at once     p50 {_quantile(refused_us, 50)} us, p99 {_quantile(refused_us, 99)} us (target 1000)")
    print("  outcomes            " + _counted(asked))
    for priority in sorted(set(subject.priorities)) if len(subject.priorities) > 1 else ():
        print(f"    of priority {priority}     " + _counted([one for one in asked if one.priority == priority]))


def _counted(asked: list[Asked]) -> str:
    counts = Counter(one.outcome for one in asked)
    return ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items()))


def _listed(shares: list[float]) -> str:
    return ", ".join(f"{share:.2f}" for share in shares)


def _quantile(values: list[float], percent: float) -> int:
    return round(float(np.percentile(values, percent))) if values else 0


def _belief(model: LoadedModel) -> str:
    cost = model.cost
    return f"{cost.base_ns / 1e3:.0f} us + {cost.row_ns / 1e3:.0f} us per row, +-{cost.caution / 2:.0%}"


if __name__ == "__main__":
    main()

"""`python -m tests.bench.overload`: twice as many requests as the workers can serve, each with a deadline, open loop.

Real ONNX graphs, the real loader, batcher and workers, without HTTP. Capacity is measured with the same parts, before and after,
by callers that wait for their answers. Arrivals are Poisson and wait for nobody; a deadline counts from when one should arrive.
"""

import asyncio
import os
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import numpy as np
import uvloop

from gateway.contract.manifest import BatchCost, Manifest, Signature, Tensor
from gateway.errors import DeadlineExceeded, Overloaded
from gateway.runtime.model import LoadedModel, Loader, RuntimeOptions
from gateway.runtime.spent import Spent
from gateway.runtime.tensors import Tensors
from gateway.runtime.workers import Workers
from tests.support import models

SECONDS = float(os.environ.get("BENCH_SECONDS", "4"))
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


SUBJECTS = (
    Subject(
        name="CNN, 3x96x96, cost of rows",
        graph=models.cnn_graph,
        input_name="image",
        row=(3, models.CNN_PIXELS, models.CNN_PIXELS),
        cost=BatchCost(base_ns=20_000, row_ns=models.CNN_ROW_NS),
        max_batch=32,
    ),
    Subject(
        name="MLP, 67 MB of weights to read for each run, cost of a base",
        graph=lambda: models.mlp_graph(features=256, hidden=65_536),
        input_name="features",
        row=(256,),
        cost=BatchCost(base_ns=8_000_000, row_ns=500_000),
        max_batch=32,
    ),
)


class Asked(msgspec.Struct):
    """One request: nanoseconds from when it should have arrived to its end, and from the call to its end."""

    outcome: str = ""
    took_ns: int = 0
    call_ns: int = 0


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
        row = np.random.default_rng(0).normal(size=(1, *subject.row)).astype(np.float32)
        inputs = {subject.input_name: row}
        await _capacity(model, inputs, seconds=1)
        before = await _capacity(model, inputs, seconds=SECONDS / 2)
        rate = OVERLOAD * before
        asked = await _open_loop(model, inputs, rate=rate)
        after = await _capacity(model, inputs, seconds=SECONDS / 2)
    _print(subject, asked, capacity=(before + after) / 2, rate=rate)
    print(f"  capacity before {before:.0f}, after {after:.0f} rows/s; believed now: {_belief(model)}\n", flush=True)


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


async def _capacity(model: LoadedModel, inputs: Tensors, *, seconds: float) -> float:
    """Rows per second when `CALLERS` callers ask, wait and ask again."""
    until_ns = time.perf_counter_ns() + round(seconds * 1e9)
    done = 0

    async def caller() -> None:
        nonlocal done
        while time.perf_counter_ns() < until_ns:
            await model.run(inputs, 1, deadline_ns=time.perf_counter_ns() + FAR_NS, spent=Spent())
            done += 1

    began_ns = time.perf_counter_ns()
    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    return done / (time.perf_counter_ns() - began_ns) * 1e9


async def _open_loop(model: LoadedModel, inputs: Tensors, *, rate: float) -> list[Asked]:
    """Requests at their Poisson times, whatever has become of those before them."""
    rng = random.Random(0)
    due_ns, until_ns = time.perf_counter_ns(), time.perf_counter_ns() + round(SECONDS * 1e9)
    asked: list[Asked] = []
    async with asyncio.TaskGroup() as tasks:
        while due_ns < until_ns:
            wait_s = (due_ns - time.perf_counter_ns()) / 1e9
            await asyncio.sleep(max(0.0, wait_s))
            while due_ns <= time.perf_counter_ns():
                asked.append(Asked())
                tasks.create_task(_ask(model, inputs, due_ns, asked[-1]))
                due_ns += round(rng.expovariate(rate) * 1e9)
    return asked


async def _ask(model: LoadedModel, inputs: Tensors, due_ns: int, asked: Asked) -> None:
    began_ns, spent = time.perf_counter_ns(), Spent()
    try:
        await model.run(inputs, 1, deadline_ns=due_ns + DEADLINE_MS * 1_000_000, spent=spent)
        asked.outcome = "answered"
    except DeadlineExceeded:
        asked.outcome = "refused later" if spent.queue_ns or spent.run_ns else "refused at once"
    except Overloaded:
        asked.outcome = "queue full"
    ended_ns = time.perf_counter_ns()
    asked.took_ns, asked.call_ns = ended_ns - due_ns, ended_ns - began_ns


def _print(subject: Subject, asked: list[Asked], *, capacity: float, rate: float) -> None:
    counts = Counter(one.outcome for one in asked)
    answered_ms = [one.took_ns / 1e6 for one in asked if one.outcome == "answered"]
    refused_us = [one.call_ns / 1e3 for one in asked if one.outcome in {"refused at once", "queue full"}]
    late = sum(took_ms > DEADLINE_MS for took_ms in answered_ms)
    print(f"{subject.name}: {rate:.0f} requests/s for {SECONDS:g} s, {rate / capacity:.1f}x of {capacity:.0f} rows/s")
    print(f"  goodput / capacity  {(len(answered_ms) - late) / SECONDS / capacity:6.2f}   target 0.9")
    print(
        f"  answered            p50 {_quantile(answered_ms, 50):.0f} ms, p99 {_quantile(answered_ms, 99):.0f} ms,",
        end="",
    )
    print(f" after the deadline of {DEADLINE_MS} ms: {late}")
    print(
        f"  refusal             p50 {_quantile(refused_us, 50):.0f} us, p99 {_quantile(refused_us, 99):.0f} us   target 1000 us"
    )
    print("  outcomes            " + ", ".join(f"{count} {outcome}" for outcome, count in counts.most_common()))


def _quantile(values: list[float], percent: float) -> float:
    return float(np.percentile(values, percent)) if values else 0.0


def _belief(model: LoadedModel) -> str:
    cost = model.cost
    return f"{cost.base_ns / 1e3:.0f} us + {cost.row_ns / 1e3:.0f} us per row, +-{cost.caution / 2:.0%}"


if __name__ == "__main__":
    main()

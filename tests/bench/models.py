"""`python -m tests.bench.models`: many models in a small memory: hit rate, memory over load and unload cycles, what idle ones cost.

Real graphs, real sessions, real store; no HTTP, which `make bench` measures. Memory is the process's resident set.
"""

import asyncio
import contextlib
import os
import random
import sys
import tempfile
import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from gateway import allocator
from gateway.objectstore.local import LocalStore
from gateway.objectstore.protocol import StoredObject
from gateway.repository import unloading
from gateway.repository.residents import Repository, RepositoryOptions
from gateway.runtime.model import LoadedModel, Loader, RuntimeOptions
from gateway.runtime.workers import Workers
from tests.support import models

MODELS = int(os.environ.get("BENCH_MODELS", "200"))
IN_MEMORY = 20
REQUESTS = int(os.environ.get("BENCH_REQUESTS", "20000"))
CYCLES = int(os.environ.get("BENCH_CYCLES", "1000"))
IDLE_S = float(os.environ.get("BENCH_SECONDS", "10"))
FEATURES, HIDDEN, OUTPUTS = 64, 1024, 64  # 0.5 MB of weights


class Nobody:
    """Residency is not billed here."""

    def loaded(self, resident: Any, cpu_ns: int, spent: Any) -> None: ...

    def unloaded(self, resident: Any) -> None: ...


class Counted(LocalStore):
    """Counts the looks at aliases, which are what a bucket charges for."""

    looks = 0

    async def get_if_changed(self, key: str, etag: str) -> StoredObject | None:
        self.looks += 1
        return await super().get_if_changed(key, etag)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_bench(Path(folder)))


async def _bench(folder: Path) -> None:
    root = folder / "store"
    root.mkdir()
    names = [f"model-{number:03d}" for number in range(MODELS)]
    for seed, name in enumerate(names):
        await models.publish_mlp(LocalStore(root), name, features=FEATURES, hidden=HIDDEN, outputs=OUTPUTS, seed=seed)
    async with _opened(root, folder) as (repository, _):
        one_bytes = (await repository.ready(names[0])).model.resident_bytes
    print(f"{MODELS} models, {one_bytes / 1e6:.2f} MB resident each as the runtime says, budget of {IN_MEMORY}")
    await _mix(root, folder, names, int(one_bytes * (IN_MEMORY + 0.5)))
    await _cycles(root, folder, names)
    await _given_back(folder)
    await _idle(root, folder, names)


async def _mix(root: Path, folder: Path, names: list[str], budget_bytes: int) -> None:
    """Requests by Zipf's law: the k-th most popular model is asked 1/k as often as the first."""
    weights = [1 / rank for rank in range(1, len(names) + 1)]
    asked = random.Random(0).choices(names, weights, k=REQUESTS)
    inputs = {"features": np.zeros((1, FEATURES), np.float32)}
    async with _opened(root, folder, memory_bytes_max=budget_bytes) as (repository, _):
        before_mb = _rss_mb()
        hits = 0
        began = time.perf_counter()
        for name in asked:
            resident = repository.resident(name)
            if resident is not None:
                hits += 1
            else:
                resident = await repository.ready(name)
            resident.model.run_inline(inputs)
        seconds = time.perf_counter() - began
        counts, lru = repository.counts, _lru_hits(asked)
        print(
            f"Zipf mix of {REQUESTS:,} requests in {seconds:.1f} s: hit rate {hits / REQUESTS:.3f} (LRU {lru / REQUESTS:.3f}, "
            f"the {IN_MEMORY} most popular kept for ever {sum(weights[:IN_MEMORY]) / sum(weights):.3f}), loads {counts.loads:,}, "
            f"evictions {counts.evictions:,}"
        )
        began_ns = time.perf_counter_ns()
        for _ in range(100_000):
            repository.resident(name)
        print(f"  a look-up in a tight loop takes {(time.perf_counter_ns() - began_ns) / 100_000:.0f} ns")
        print(
            f"  resident memory {before_mb:.0f} MB before, {_rss_mb():.0f} MB after, budget {budget_bytes / 1e6:.0f} MB"
        )


async def _cycles(root: Path, folder: Path, names: list[str]) -> None:
    async with _opened(root, folder) as (repository, _):
        marks = []
        for cycle in range(CYCLES + 1):
            if cycle % (CYCLES // 4) == 0 or cycle == CYCLES // 20:
                await asyncio.sleep(0.2)  # the last one is being freed
                marks.append(f"{_rss_mb():.1f} MB at {cycle}")
            await repository.ready(names[cycle % len(names)])
            repository.unload(names[cycle % len(names)])
    print(f"{CYCLES:,} load and unload cycles: {', '.join(marks)}")


async def _given_back(folder: Path) -> None:
    """Models of many sizes, all loaded, all unloaded: what the process keeps of their memory."""
    root = folder / "sizes"
    root.mkdir()
    names = [f"size-{number}" for number in range(30)]
    for number, name in enumerate(names):
        hidden = (256, 1024, 4096, 8192)[number % 4]
        await models.publish_mlp(LocalStore(root), name, features=FEATURES, hidden=hidden, outputs=OUTPUTS)
    untrimmed = SimpleNamespace(trim=lambda: None)
    for how in ("without", "with", "without", "with"):
        unloading.allocator = allocator if how == "with" else untrimmed
        async with _opened(root, folder) as (repository, _):
            before_mb = _rss_mb()
            for name in names:
                await repository.ready(name)
            loaded_mb = _rss_mb()
            for name in names:
                repository.unload(name)
            await asyncio.sleep(0.3)
            print(
                f"30 models of 0.1 to 4 MB, {how} malloc_trim: {before_mb:.0f} MB before, {loaded_mb:.0f} MB loaded, "
                f"{_rss_mb():.0f} MB after"
            )


async def _idle(root: Path, folder: Path, names: list[str]) -> None:
    """All models in memory, nobody calls: first while they count as busy, then asleep."""
    for what, idle_s in (("looked at every 5 s", 3600.0), ("asleep, looked at every minute", 0.0)):
        async with _opened(root, folder, idle_s=idle_s or 60.0) as (repository, store):
            for name in names:
                await repository.ready(name)
            if not idle_s:
                for number, serving in enumerate(repository._roster.following.values()):
                    repository._roster.sleep(serving)
                    serving.used_s -= 60
                    serving.looked_s -= 60 * number / len(names)  # as after hours of it: some are always due
            store.looks = 0
            follow = asyncio.create_task(repository.follow())
            cpu_s, began, lag_s = time.process_time(), time.perf_counter(), 0.0
            while time.perf_counter() - began < IDLE_S:
                slept = time.perf_counter()
                await asyncio.sleep(0.01)
                lag_s = max(lag_s, time.perf_counter() - slept - 0.01)
            busy = (time.process_time() - cpu_s) / (time.perf_counter() - began)
            follow.cancel()
            await asyncio.gather(follow, return_exceptions=True)
            per_month = store.looks / IDLE_S * 30 * 86400 * 0.40 / 1e6
            print(
                f"{len(names)} idle models {what}: {store.looks / IDLE_S:.1f} looks/s (${per_month:.2f} a month on S3), "
                f"{busy:.2%} of a core with this probe, event loop at most {lag_s * 1e3:.1f} ms late"
            )


def _lru_hits(asked: list[str]) -> int:
    held: OrderedDict[str, None] = OrderedDict()
    hits = 0
    for name in asked:
        hits += name in held
        held.pop(name, None)
        held[name] = None
        if len(held) > IN_MEMORY:
            held.popitem(last=False)
    return hits


@contextlib.asynccontextmanager
async def _opened(root: Path, folder: Path, **options: Any) -> AsyncIterator[tuple[Repository[LoadedModel], Counted]]:
    store = Counted(root)
    runtime = RuntimeOptions()
    with Workers(1, levels=runtime.priority_levels, ageing_ns=0) as workers, ThreadPoolExecutor(1) as builder:
        loader = Loader(workers, builder, runtime, cpu_flags=frozenset())
        repository = Repository(store, loader, Nobody(), RepositoryOptions(**options), cache_dir=folder / "cache")
        try:
            yield repository, store
        finally:
            await repository.aclose()


def _rss_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


if __name__ == "__main__":
    sys.exit(main())

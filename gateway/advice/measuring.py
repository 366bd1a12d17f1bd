"""Measures a published artifact on this host as the gateway runs it: the session alone by batch and length, then a whole gateway.

The artifact is copied, verified, into a temporary store, so that nothing of this reaches the ledger of the real one. Takes ten to
twenty seconds. `steelyard advise` calls it.
"""

import asyncio
import contextlib
import os
import platform
import tempfile
import time
from pathlib import Path

import numpy as np

from gateway.advice import inputs, trial
from gateway.advice.measured import Cell, Measured
from gateway.advice.service import Rules
from gateway.contract import codec, layout
from gateway.contract.golden import Golden
from gateway.contract.manifest import Manifest, Variant
from gateway.objectstore.local import LocalStore
from gateway.objectstore.protocol import ObjectStore
from gateway.registry import fetching, releasing
from gateway.registry.reading import Registry
from gateway.runtime import memory
from gateway.runtime.costmodel import HOP_NS, CostModel, rows_worth
from gateway.runtime.model import RuntimeOptions
from gateway.runtime.session import Session, cpu_flags, pick_variant
from gateway.runtime.tensors import Tensors

BATCHES = (1, 8, 32)
"""What one caller sends, what forms under load, and where rows stop getting cheaper; larger than the variant takes is left out."""

RUNS_MIN, RUNS_MAX = 5, 200
CELL_NS_MAX = 400_000_000
"""Of one cell; a slow graph gets its `RUNS_MIN` past it."""


async def measure(
    store: ObjectStore, model: str, version: str = layout.CHAMPION, *, rps_max: float
) -> tuple[Measured, Manifest]:
    """`rps_max` is the most that its traffic brings: a model that is rarely asked is measured with longer pauses.

    Raises `ModelNotFound`, an `ArtifactError` when this host cannot run it, a store error, `CacheUnusable`.
    """
    registry = Registry(store)
    number, sha256 = await registry.resolve(model, version)
    with tempfile.TemporaryDirectory(prefix="steelyard-advise-") as scratch:
        folder = Path(scratch)
        manifest = await fetching.fetch(store, model, sha256, folder / "artifact")
        copy = await _published_again(registry, manifest, number, sha256, folder)
        return await asyncio.to_thread(_measure, manifest, number, folder / "artifact", copy, rps_max), manifest


async def _published_again(registry: Registry, manifest: Manifest, number: int, sha256: str, folder: Path) -> Path:
    """A store of its own with this one version, promoted."""
    root = folder / "store"
    root.mkdir()
    copy = LocalStore(root)
    for file in manifest.files:
        body = await asyncio.to_thread((folder / "artifact" / file.name).read_bytes)
        await copy.put_if_absent(layout.blob(manifest.model, file.sha256), body)
    body = await asyncio.to_thread((folder / "artifact" / layout.MANIFEST).read_bytes)
    await copy.put_if_absent(layout.manifest(manifest.model, sha256), body)
    record = await registry.version(manifest.model, number)
    await copy.put_if_absent(layout.version(manifest.model, number), codec.encode(record))
    author = releasing.Author("advise", "to be measured", time.time_ns())
    await releasing.promote(copy, model=manifest.model, alias=layout.CHAMPION, version=number, author=author)
    return root


def _measure(manifest: Manifest, number: int, artifact: Path, store: Path, rps_max: float) -> Measured:
    variant = pick_variant(manifest, cpu_flags())
    golden = _golden(manifest, artifact)
    given = inputs.real_or_zeros(manifest, golden)
    memory.open_arena()
    memory.trim()
    before_bytes, began_ns = _resident_bytes(), time.perf_counter_ns()
    session = Session(artifact / variant.file, manifest, optimized_by=variant.optimized_by or "")
    build_ns = time.perf_counter_ns() - began_ns
    session.warm_up()
    memory.trim()
    resident_bytes = max(0, _resident_bytes() - before_bytes)
    batches = tuple(rows for rows in BATCHES if rows <= variant.max_batch)
    cells = tuple(
        _cell(session, rows, length, feed) for rows, length, feed in inputs.feeds(given, manifest.signature, batches)
    )
    one = {name: values[:1] for name, values in given.items()}
    return Measured(
        model=manifest.model,
        version=number,
        variant=variant.id,
        cpu=cpu_name(),
        cells=cells,
        build_ns=build_ns,
        resident_bytes=resident_bytes,
        is_real=golden is not None,
        served=trial.serve(store, manifest, one, rps_max=rps_max, rules=rules(manifest, variant)),
    )


def rules(manifest: Manifest, variant: Variant) -> Rules:
    """As a gateway with the default settings decides."""
    cost = CostModel(variant.batch_cost, has_length=manifest.signature.has_length)
    if cost.is_within(1, RuntimeOptions().inline_us_max * 1000):
        return Rules(is_inline=True)
    if not variant.batch_invariant:
        return Rules()
    longest = max((cell.length for cell in variant.latency), default=1)
    return Rules(batch_max=min(variant.max_batch, rows_worth(variant.latency), cost.rows_enough(longest, HOP_NS)))


def _cell(session: Session, rows: int, length: int, feed: Tensors) -> Cell:
    """Medians: a neighbour on the machine disturbs single runs."""
    for _ in range(RUNS_MIN):
        session.run(feed)
    until_ns = time.perf_counter_ns() + CELL_NS_MAX
    taken: list[tuple[int, int]] = []
    while len(taken) < RUNS_MIN or (len(taken) < RUNS_MAX and time.perf_counter_ns() < until_ns):
        result = session.measured_run(feed)
        taken.append((result.cpu_ns, result.run_ns))
    cpu, wall = np.array(taken).T
    p50, p99 = np.percentile(wall, (50, 99)).astype(int).tolist()
    return Cell(batch_rows=rows, length=length, cpu_ns=int(np.median(cpu)), p50_ns=p50, p99_ns=p99, runs=len(taken))


def _golden(manifest: Manifest, artifact: Path) -> Golden | None:
    file = next((file for file in manifest.files if file.role == "golden"), None)
    return None if file is None else codec.decode((artifact / file.name).read_bytes(), Golden)


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def cpu_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """As the kernel tells it, else the architecture (arm kernels tell no name)."""
    with contextlib.suppress(OSError):
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()

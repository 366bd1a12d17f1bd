"""`python -m tests.bench.features`: what counting rows for drift costs. None, the default share, and all of them, in one run.

First by itself: CPU of choosing and counting per request, by the clocks of its threads. Then whole gateways: CPU of the process per
request, as a ratio to the one that counts nothing; medians over the rounds, with the spread of the baseline beside them, because
on a busy machine that is wider than what is measured. The model has two texts, three numbers and a probability.
"""

import asyncio
import contextlib
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from gateway.features.counting import Plan, Rows
from gateway.features.options import FeatureOptions
from gateway.features.recorder import BATCH_ROWS, Recorder
from gateway.objectstore.local import LocalStore
from tests.bench.cell import CORES, ROUNDS, cpu_us, measure
from tests.support import drifting, gateways, models
from tests.support.manualclock import ManualClock, until
from tests.support.memorystore import MemoryStore

SHARES = (FeatureOptions().sample, 1.0)
REQUESTS = 50_000
CONNECTIONS = 8
ROWS = (1, 64)


def main() -> None:
    asyncio.run(_alone())
    with tempfile.TemporaryDirectory() as folder:
        _served(Path(folder))


async def _alone() -> None:
    count_us = _count_us()
    print(f"{'by itself, CPU us per request':<30} {'choose':>8} {'count':>8} {'both':>8}")
    for rows in ROWS:
        for share in SHARES:
            offer_us = statistics.median([await _offer_us(share, rows) for _ in range(3)])
            counted_us = share * rows * count_us
            name = f"{rows} rows, sample {share:g}"
            print(f"{name:<30} {offer_us:>8.2f} {counted_us:>8.2f} {offer_us + counted_us:>8.2f}")


async def _offer_us(share: float, rows: int) -> float:
    """With its queue emptied by hand, so that only the event loop's part is timed."""
    recorder = Recorder(
        MemoryStore(), ManualClock(1), FeatureOptions(sample=share, queue_rows_max=REQUESTS * rows, queue_bytes_max=1 << 40),
        container="c0", boot_ns=1, seed=1,
    )  # fmt: skip
    manifest, contents = drifting.with_profile()
    store = recorder._store
    for file in manifest.files:
        await store.put_if_absent(f"models/tiny/blobs/sha256/{file.sha256}", contents[file.name])
    recorder.loaded("tiny", 1, manifest)
    await until(lambda: recorder.profiles == 1)
    inputs, outputs = drifting.reference_rows(rows), {"probability": np.zeros((rows, 1), np.float32)}
    began_ns = time.thread_time_ns()
    for _ in range(REQUESTS):
        recorder.offer("tiny", 1, inputs, outputs, rows, 150 * rows)
    return (time.thread_time_ns() - began_ns) / REQUESTS / 1000


def _count_us() -> float:
    """Per counted row, in batches as the recorder makes them."""
    plan = Plan(drifting.tiny_profile(), models.TINY_SIGNATURE)
    rows = drifting.reference_rows(BATCH_ROWS)
    arrays = [rows[name] for name in plan.inputs] + [np.zeros((BATCH_ROWS, 1), np.float32)]
    batch = [Rows(tuple(array[at : at + 1] for array in arrays), 1) for at in range(BATCH_ROWS)]
    counts, times = plan.empty(), []
    for _ in range(50):
        began_ns = time.thread_time_ns()
        plan.add(counts, batch)
        times.append((time.thread_time_ns() - began_ns) / BATCH_ROWS / 1000)
    return statistics.median(times)


def _served(folder: Path) -> None:
    root = folder / "store"
    root.mkdir()
    asyncio.run(models.publish_files(LocalStore(root), *drifting.with_profile()))
    settings = {"off": {"STEELYARD_FEATURES__ENABLED": "false"}} | {
        f"sample {share:g}": {"STEELYARD_FEATURES__SAMPLE": f"{share:g}"} for share in SHARES
    }
    print(f"\n{'served, CPU us per request':<30} {'median':>8} {'spread':>16} {'ratio to off':>13}")
    with contextlib.ExitStack() as stack:
        servers = {}
        for name, environment in settings.items():
            context = gateways.running(
                root, folder, "--preload", "tiny", prefix=("taskset", "-c", str(CORES[0])), **environment
            )
            servers[name] = stack.enter_context(context)
        for rows in ROWS:
            body = json.dumps({"rows": [dict(models.TINY_EXAMPLES.rows[0])] * rows})
            spent: dict[str, list[float]] = {name: [] for name in servers}
            for _ in range(ROUNDS):
                for name, server in servers.items():
                    before_us = cpu_us(server.process.pid)
                    figures = measure(server.port, "/v1/predict/tiny", body, CONNECTIONS)
                    spent[name].append((cpu_us(server.process.pid) - before_us) / figures.answers)
            off_us = statistics.median(spent["off"])
            for name, each in spent.items():
                spread = f"{min(each):.1f} to {max(each):.1f}"
                ratio = statistics.median(each) / off_us
                print(
                    f"{f'{rows} rows, {name}':<30} {statistics.median(each):>8.1f} {spread:>16} {ratio:>13.3f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()

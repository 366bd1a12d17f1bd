"""A gateway that loads and unloads models all day: after a thousand loads more it holds what it held before them."""

import asyncio
import os
from pathlib import Path

import pytest

from gateway.objectstore.local import LocalStore
from tests.support import footprints, gateways, models
from tests.support.gateways import Gateway

pytestmark = pytest.mark.e2e

NAMES = [f"m{number}" for number in range(12)]
TENSORS = {"inputs": [{"name": "features", "shape": [1, 32], "datatype": "FP32", "data": [0.5] * 32}]}
FIRST, ALL = 400, 1800
"""Calls. One in twelve found its model: whoever leaves is chosen by cost, not by age alone."""
GROWTH_BYTES_MAX = 4 << 20
"""5 kB a load. Measured was 0.9 MB in all; sessions that stay would come to a hundred."""

THREADS_MORE = min(32, (os.cpu_count() or 1) + 4)
"""The event loop's own pool of threads grows to this many when it is needed, and stays."""


def test_a_thousand_loads_and_unloads_leave_memory_descriptors_and_threads_as_they_were(tmp_path: Path) -> None:
    root = tmp_path / "store"
    root.mkdir()
    for seed, name in enumerate(NAMES):
        asyncio.run(models.publish_mlp(LocalStore(root), name, seed=seed))
    with gateways.running(root, tmp_path) as gateway:
        ask(gateway, NAMES[0])
        weight = gateway.get("/v1/loaded").json[0]["resident_bytes"]
    room = {"STEELYARD_REPOSITORY__MEMORY_BYTES_MAX": str(weight * 7 // 2), "STEELYARD_RUNTIME__TRIM_S": "0.2"}
    with gateways.running(root, tmp_path, **room) as gateway:
        for number in range(FIRST):
            ask(gateway, NAMES[number % len(NAMES)])
        base, before = footprints.settled(gateway.process.pid), counted(gateway, "loads")
        for number in range(FIRST, ALL):
            ask(gateway, NAMES[number % len(NAMES)])
        footprints.comes_within(gateway.process.pid, base, bytes_more=GROWTH_BYTES_MAX, threads_more=THREADS_MORE)
        assert counted(gateway, "loads") - before >= 1000
        assert counted(gateway, "evictions") >= 1000
        assert gateway.terminate() == 0
    assert "Traceback" not in gateway.log.read_text()


def ask(gateway: Gateway, name: str) -> None:
    answer = gateway.post(f"/v2/models/{name}/infer", TENSORS)
    assert answer.status == 200, answer.body


def counted(gateway: Gateway, what: str) -> int:
    page = gateway.get("/metrics").body.decode()
    found = [line for line in page.splitlines() if line.startswith(f"steelyard_{what}_total ")]
    return int(float(found[0].rpartition(" ")[2]))

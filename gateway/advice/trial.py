"""One real gateway process on this host, asked over HTTP, one request after the other with pauses: what an answer costs, all of it.

A process of its own, because its start, its memory and its CPU are what is measured. It serves a temporary store, its ledger too.
"""

import contextlib
import http.client
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any  # Any: elements of tensors, on the way to JSON

from gateway.advice.measured import Served
from gateway.contract.manifest import Manifest
from gateway.errors import StoreUnavailable, UnsupportedModel
from gateway.runtime.tensors import Tensors

READY_S = 120
"""What `runtime.first_run_s` allows a model twice: the gateway refuses slower ones itself."""

STOP_S = 40
ANSWER_S = 90
WARM_UP = 20
ANSWERS_MIN, ANSWERS_MAX = 20, 2000
LOAD = 0.6
"""At which it is asked: as full as the scaler lets a replica be. Back to back, weights would stay in caches that pauses empty:
answers were a quarter faster than under real load (tests/bench/advise.py)."""
SECONDS = 6.0
"""Of asking, pauses included; a slow model gets its `ANSWERS_MIN` past it, and then its CPU is exact to a few percent."""


def serve(store: Path, manifest: Manifest, one: Tensors) -> Served:
    """`one` has one row. Raises `UnsupportedModel` with what the gateway said when it does not start or refuses the inputs."""
    began_ns = time.perf_counter_ns()
    with _gateway(store, manifest.model) as (process, port), _connected(port) as connection:
        path = f"/v2/models/{manifest.model}/infer"
        body = _body(manifest, one)
        ask(connection, path, body)
        cold_start_ns = time.perf_counter_ns() - began_ns
        for _ in range(WARM_UP):
            ask(connection, path, body)
        cpu_ns = process_cpu_ns(process.pid)
        answers: list[int] = []
        until_ns = time.perf_counter_ns() + int(SECONDS * 1e9)
        while len(answers) < ANSWERS_MIN or (len(answers) < ANSWERS_MAX and time.perf_counter_ns() < until_ns):
            answers.append(ask(connection, path, body))
            time.sleep(answers[-1] / 1e9 * (1 / LOAD - 1))
        cpu_ns = process_cpu_ns(process.pid) - cpu_ns
        return Served(
            request_cpu_ns=max(1, cpu_ns // len(answers)),
            answer_ns=tuple(answers),
            resident_bytes=_resident_bytes(process.pid),
            cold_start_ns=cold_start_ns,
        )


@contextlib.contextmanager
def _gateway(store: Path, model: str) -> Iterator[tuple["subprocess.Popen[bytes]", int]]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("STEELYARD_")}
    environment |= {
        "STEELYARD_REPOSITORY__CACHE_DIR": str(store.parent / "cache"),
        "STEELYARD_ACCESS__REQUIRED": "never",  # on loopback, and the copy holds no key
        "STEELYARD_LOG__FORMAT": "json",
    }
    log = store.parent / "gateway.log"
    command = [sys.executable, "-m", "gateway", "serve", "--store", str(store), "--port", "0", "--preload", model]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
    try:
        yield process, _port(process, log)
    finally:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_S)
        process.kill()
        process.wait()


def _port(process: "subprocess.Popen[bytes]", log: Path) -> int:
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline and process.poll() is None:
        if found := re.search(rb"listening on http://127\.0\.0\.1:(\d+)", log.read_bytes()):
            return int(found[1])
        time.sleep(0.005)
    said = log.read_text(errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
    raise UnsupportedModel(f"the gateway that was to be measured did not start: {said[0][:300]}")


@contextlib.contextmanager
def _connected(port: int) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_S)
    with contextlib.closing(connection):
        yield connection


def ask(connection: http.client.HTTPConnection, path: str, body: bytes) -> int:
    """How long the answer took, in nanoseconds."""
    began_ns = time.perf_counter_ns()
    try:
        connection.request("POST", path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        said = answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise StoreUnavailable(f"the gateway that was being measured went away: {error}") from error
    took_ns = time.perf_counter_ns() - began_ns
    if answer.status != 200:
        raise UnsupportedModel(f"the gateway refuses the inputs to measure with: {said[:300].decode(errors='replace')}")
    return took_ns


def _body(manifest: Manifest, one: Tensors) -> bytes:
    tensors: list[dict[str, Any]] = [
        {
            "name": tensor.name,
            "datatype": tensor.datatype,
            "shape": list(one[tensor.name].shape),
            "data": [_finite(element) for element in one[tensor.name].ravel().tolist()],
        }
        for tensor in manifest.signature.inputs
    ]
    return json.dumps({"inputs": tensors}).encode()


def _finite(element: Any) -> Any:
    """JSON knows no NaN: a missing number is measured as 0."""
    return 0 if isinstance(element, float) and not math.isfinite(element) else element


def process_cpu_ns(pid: int) -> int:
    """CPU time of all threads, in nanoseconds (docs.kernel.org/scheduler/sched-stats.html); the process's ticks are of 10 ms."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):  # a thread may end meanwhile
            total += int((task / "schedstat").read_text().split()[0])
    return total


def _resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

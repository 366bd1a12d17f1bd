"""One real gateway process on this host, asked over HTTP, under load: what an answer costs, all of it. It has one core, as each
process of a fleet has, and its caller another one where there is one.

A process of its own, because its start, its memory and its CPU are what is measured. It serves a temporary store, its ledger too.
"""

import contextlib
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

from gateway.advice.loading import Asker, open_loop
from gateway.advice.measured import Served
from gateway.advice.service import Rules, of_trial
from gateway.contract.manifest import Manifest
from gateway.errors import UnsupportedModel
from gateway.runtime.tensors import Tensors

READY_S = 120
"""What `runtime.first_run_s` allows a model twice: the gateway refuses slower ones itself."""

STOP_S = 40
LOAD = 0.6
"""At which it is asked, at most: as full as the scaler lets a replica be."""

SECONDS = 6.0


def serve(store: Path, manifest: Manifest, one: Tensors, *, rps_max: float, rules: Rules) -> Served:
    """`one` has one row; `rps_max` is the most that its traffic brings.

    Raises `UnsupportedModel` with what the gateway said when it does not start or refuses the inputs.
    """
    began_ns = time.perf_counter_ns()
    with _gateway(store, manifest.model) as (process, port):
        asker = Asker(process.pid, port, manifest.model, _body(manifest, one))
        open_loop(port, asker.request, [0])
        cold_start_ns = time.perf_counter_ns() - began_ns
        trial = asker.ask(load=LOAD, rps_max=rps_max, seconds=SECONDS, seed=0)
        return Served(
            request_cpu_ns=trial.request_cpu_ns,
            service=of_trial(trial, rules),
            resident_bytes=_resident_bytes(process.pid),
            cold_start_ns=cold_start_ns,
            own_share=trial.own_share,
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
    cores = sorted(os.sched_getaffinity(0))
    try:
        os.sched_setaffinity(0, cores[:1])  # of this thread; a process inherits it
        with log.open("wb") as output:
            process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
    finally:
        os.sched_setaffinity(0, cores[1:] or cores)
    try:
        yield process, _port(process, log)
    finally:
        os.sched_setaffinity(0, cores)
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


def _resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

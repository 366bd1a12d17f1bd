"""Where a cold start goes: `python -m tests.bench.coldstart` starts real gateways and prints their phases.

Each run is a process of its own over a local store with one small MLP and an empty cache, from spawn to the first correct answer.
"""

import asyncio
import contextlib
import http.client
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from gateway.objectstore.local import LocalStore
from tests.support import models

RUNS = int(os.environ.get("BENCH_RUNS", "7"))
FEATURES = 32
BODY = json.dumps(
    {"inputs": [{"name": "features", "shape": [1, FEATURES], "datatype": "FP32", "data": [0.1] * FEATURES}]}
)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "store"
        root.mkdir()
        asyncio.run(models.publish_mlp(LocalStore(root), features=FEATURES))
        for arguments in ((), ("--preload", "mlp")):
            _report(" ".join(arguments) or "no preload", [_run(root, Path(folder), i, arguments) for i in range(RUNS)])


def _report(what: str, runs: list[dict[str, float]]) -> None:
    """Medians over the runs, in the order in which a start goes through its phases; the first run also warms the page cache."""
    print(f"\n{what}: {len(runs)} runs, milliseconds")
    print(f"{'phase':<22} {'median':>8} {'best':>8} {'worst':>8}")
    for phase in runs[-1]:
        values = [run[phase] for run in runs]
        print(f"{phase:<22} {statistics.median(values):>8.1f} {min(values):>8.1f} {max(values):>8.1f}")


def _run(root: Path, folder: Path, number: int, arguments: tuple[str, ...]) -> dict[str, float]:
    log = folder / f"log-{number}"
    env = os.environ | {"STEELYARD_REPOSITORY__CACHE_DIR": str(folder / f"cache-{time.monotonic_ns()}")}
    command = [sys.executable, "-m", "gateway", "serve", "--store", str(root), "--port", "0", *arguments]
    began = time.perf_counter()
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output, env=env) as process:
        try:
            port = _port(log, process)
            listening = time.perf_counter()
            answer = _ask(port)
            answered = time.perf_counter()
            assert len(answer["outputs"][0]["data"]) == 10, answer
            process.terminate()
            process.wait(30)
        finally:
            process.kill()
    found = {"spawn to listening": (listening - began) * 1e3, "spawn to first answer": (answered - began) * 1e3}
    return _phases(log) | found


def _phases(log: Path) -> dict[str, float]:
    """What the gateway itself says in its "cold start" record."""
    for line in log.read_text().splitlines():
        with contextlib.suppress(json.JSONDecodeError):
            record = json.loads(line)
            if record.get("message") == "cold start":
                return {name.removesuffix("_ns"): ns / 1e6 for name, ns in record["phases"].items()}
    return {}


def _port(log: Path, process: "subprocess.Popen[bytes]") -> int:
    while process.poll() is None:
        if found := re.search(r"listening on http://127\.0\.0\.1:(\d+)", log.read_text()):
            return int(found[1])
        time.sleep(0.002)
    raise SystemExit(log.read_text())


def _ask(port: int) -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    with contextlib.closing(connection):
        connection.request("POST", "/v2/models/mlp/infer", BODY)
        response = connection.getresponse()
        body = response.read()
        if response.status != 200:
            raise SystemExit(body.decode())
        return json.loads(body)


if __name__ == "__main__":
    main()

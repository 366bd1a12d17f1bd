"""What the saturation gauge says from idle to overload: `python -m tests.bench.saturation`.

A gateway that admits 48 waiting requests is loaded by ever more connections, each of which always has one request under way. The
gauge must be 0 before and after, and near 1 before the first request is refused.
"""

import asyncio
import base64
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from gateway.objectstore.local import LocalStore
from tests.support import gateways, models

CONNECTIONS = (0, 1, 8, 32, 64, 0)
WINDOW_S = 3
PARTS = ("cpu", "loop", "wait", "requests")
SETTINGS = {
    "STEELYARD_TELEMETRY__WINDOW_S": str(WINDOW_S),
    "STEELYARD_ADMISSION__REQUESTS_MAX": "48",
    "STEELYARD_RUNTIME__INLINE_US_MAX": "0",
}
BODY = json.dumps({"inputs": [{"name": "features", "shape": [64, 32], "datatype": "FP32", "data": [0.1] * 64 * 32}]})


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "store"
        root.mkdir()
        asyncio.run(models.publish_mlp(LocalStore(root), features=32))
        with gateways.running(root, Path(folder), "--preload", "mlp", **SETTINGS) as gateway:
            print(f"{'connections':>11} {'saturation':>10} " + " ".join(f"{part:>8}" for part in PARTS) + "  refused")
            for connections in CONNECTIONS:
                _show(gateway, connections)


def _show(gateway: gateways.Gateway, connections: int) -> None:
    before = _samples(gateway)["steelyard_refusals_total overloaded"]
    with tempfile.TemporaryFile("w+") as plan:
        json.dump(
            {
                "port": gateway.port,
                "path": "/v2/models/mlp/infer",
                "body": base64.b64encode(BODY.encode()).decode(),
                "headers": "",
                "connections": connections,
                "seconds": WINDOW_S + 3,
            },
            plan,
        )
        plan.seek(0)
        command = [sys.executable, "-m", "tests.bench.load"]
        load = (
            subprocess.Popen(command, stdin=plan, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            if connections
            else None
        )
        time.sleep(WINDOW_S + 2)
        found = _samples(gateway)
        if load is not None:
            load.wait()
    parts = " ".join(f"{found[f'steelyard_saturation_part_ratio {part}']:>8.3f}" for part in PARTS)
    refused = found["steelyard_refusals_total overloaded"] - before
    print(f"{connections:>11} {found['steelyard_saturation_ratio']:>10.3f} {parts} {refused:>8.0f}", flush=True)


def _samples(gateway: gateways.Gateway) -> dict[str, float]:
    return {
        " ".join([sample.name, *sample.labels.values()]): sample.value
        for family in text_string_to_metric_families(gateway.get("/metrics").body.decode())
        for sample in family.samples
    }


if __name__ == "__main__":
    main()

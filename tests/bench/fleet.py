"""`python -m tests.bench.fleet`: what callers notice when one of three gateways behind Envoy is killed, or told to stop.

Latencies are beside those of the same run's quiet phase: a busy machine makes all of them longer. That nothing fails is proven by
tests/e2e/test_envoy_fleet.py; here it is counted besides.
"""

import asyncio
import contextlib
import os
import signal
import statistics
import tempfile
import time
from pathlib import Path

from gateway.objectstore.local import LocalStore
from tests.support import edges, gateways, models
from tests.support.clusters import Callers
from tests.support.gateways import Gateway

MODELS = 24
CLIENTS = int(os.environ.get("BENCH_CLIENTS", "4"))
REQUESTS = int(os.environ.get("BENCH_REQUESTS", "4000"))
BODY = b'{"rows": [{"carrier": "AA", "origin": "JFK", "hour": 7, "distance": 733.0, "wind": null}]}'
SETTINGS = {"STEELYARD_SERVER__LINGER_S": "2"}


def main() -> None:
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        root = folder / "store"
        root.mkdir()
        names = [f"m{number}" for number in range(MODELS)]
        for seed, name in enumerate(names):
            asyncio.run(models.publish_tiny(LocalStore(root), name, seed=seed))
        three = [stack.enter_context(gateways.running(root, folder, **SETTINGS)) for _ in range(3)]
        edge = stack.enter_context(edges.running(folder, three))
        with Callers(edge, names, BODY, CLIENTS) as callers:
            callers.await_more(1000)  # every model is loaded where it belongs
            quiet_ms = _phase(callers, "quiet")
            three.pop().kill()
            _phase(callers, "one of three killed", quiet_ms)
            ready_ms, gone_s = _stopped(three.pop())
            _phase(callers, "one of two told to stop", quiet_ms)
    print(f"told to stop: not ready after {ready_ms:.0f} ms (target 100), gone after {gone_s:.1f} s (target 30)")
    print(f"{len(callers.answers):,} answers, {len(callers.failures)} failed (target 0)")


def _phase(callers: Callers, name: str, quiet_ms: float | None = None) -> float:
    """Prints a line; the 99th percentile."""
    begun = len(callers.took_s)
    callers.await_more(REQUESTS)
    took_ms = [1000 * took for took in callers.took_s[begun:]]
    p50, p99 = statistics.median(took_ms), statistics.quantiles(took_ms, n=100)[98]
    line = f"{name:<24} p50 {p50:>7.1f} ms, p99 {p99:>7.1f} ms, worst {max(took_ms):>7.1f} ms"
    more = "" if quiet_ms is None else f": {max(took_ms) - quiet_ms:+.0f} ms beside the quiet p99 (target +100)"
    print(line + more, flush=True)
    return p99


def _stopped(gateway: Gateway) -> tuple[float, float]:
    """Milliseconds from SIGTERM until readiness says so, and seconds until it is gone; it lingers for two."""
    begun = time.perf_counter()
    gateway.process.send_signal(signal.SIGTERM)
    while gateway.get("/v2/health/ready").status == 200:
        pass
    not_ready = time.perf_counter()
    gateway.process.wait(timeout=60)
    return 1000 * (not_ready - begun), time.perf_counter() - begun


if __name__ == "__main__":
    main()

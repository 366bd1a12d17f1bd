"""`python -m tests.bench.envoy`: what Envoy with the shipped file costs before a gateway, against the same gateway without it.

Gateway and Envoy share the first core, the load generator has the last: with one core for both, throughput through Envoy shows
its CPU and not its waiting. The ratios are of this run; that of CPU per answer is the one that a busy machine leaves true.
"""

import asyncio
import os
import tempfile
from pathlib import Path

from gateway.objectstore.local import LocalStore
from tests.bench.cell import CORES, ROUNDS, Figures, cpu_us, measure
from tests.support import edges, gateways, models

CONNECTIONS = (1, 16)
PATH = "/v2/models/mlp/infer"
FEATURES = ",".join(["0.5"] * 32)
BODY = f'{{"inputs":[{{"name":"features","datatype":"FP32","shape":[1,32],"data":[{FEATURES}]}}]}}'


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        root = folder / "store"
        root.mkdir()
        asyncio.run(models.publish_mlp(LocalStore(root)))
        os.sched_setaffinity(0, {CORES[0]})
        with gateways.running(root, folder, "--preload", "mlp") as gateway, edges.running(folder, [gateway]) as edge:
            print(f"cores {CORES[0]} (gateway, Envoy) and {CORES[-1]} (load); best of {ROUNDS} rounds, in turn")
            head = f"{'connections':>11} {'':>9} {'req/s':>8} {'p50 us':>8} {'p99 us':>8} {'CPU us':>8}"
            print(head)
            for connections in CONNECTIONS:
                _row(connections, gateway, edge)


def _row(connections: int, gateway: gateways.Gateway, edge: edges.Edge) -> None:
    bare: list[Figures] = []
    front: list[Figures] = []
    own_us: list[float] = []  # CPU of the gateway for an answer, without Envoy
    all_us: list[float] = []  # of both
    for _ in range(ROUNDS):
        before = cpu_us(gateway.process.pid)
        bare.append(measure(gateway.port, PATH, BODY, connections))
        own_us.append((cpu_us(gateway.process.pid) - before) / bare[-1].answers)
        before = cpu_us(edge.process.pid) + cpu_us(gateway.process.pid)
        front.append(measure(edge.port, PATH, BODY, connections))
        all_us.append((cpu_us(edge.process.pid) + cpu_us(gateway.process.pid) - before) / front[-1].answers)
    one, two = max(bare, key=lambda figures: figures.rps), max(front, key=lambda figures: figures.rps)
    print(
        f"{connections:>11} {'gateway':>9} {one.rps:>8,.0f} {one.p50_us:>8,.0f} {one.p99_us:>8,.0f} {min(own_us):>8.0f}"
    )
    print(f"{'':>11} {'+ Envoy':>9} {two.rps:>8,.0f} {two.p50_us:>8,.0f} {two.p99_us:>8,.0f} {min(all_us):>8.0f}")
    ratios = (two.rps / one.rps, two.p50_us / one.p50_us, two.p99_us / one.p99_us, min(all_us) / min(own_us))
    print(f"{'':>11} {'ratio':>9} " + " ".join(f"{ratio:>8.2f}" for ratio in ratios), flush=True)


if __name__ == "__main__":
    main()

"""`python -m tests.bench.envoy`: what Envoy with the shipped file costs before a gateway, against the same gateway without it.

Gateway and Envoy share the first core, the load generator has the last: with one core for both, throughput through Envoy shows
its CPU and not its waiting. The ratio is of this run.
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
            head = f"{'connections':>11} {'':>9} {'req/s':>8} {'p50 us':>8} {'p99 us':>8} {'Envoy CPU us':>13}"
            print(head)
            for connections in CONNECTIONS:
                _row(connections, gateway, edge)


def _row(connections: int, gateway: gateways.Gateway, edge: edges.Edge) -> None:
    bare: list[Figures] = []
    front: list[Figures] = []
    spent_us: list[float] = []
    for _ in range(ROUNDS):
        bare.append(measure(gateway.port, PATH, BODY, connections))
        before = cpu_us(edge.process.pid)
        front.append(measure(edge.port, PATH, BODY, connections))
        spent_us.append((cpu_us(edge.process.pid) - before) / front[-1].answers)
    one, two = max(bare, key=lambda figures: figures.rps), max(front, key=lambda figures: figures.rps)
    print(f"{connections:>11} {'gateway':>9} {one.rps:>8,.0f} {one.p50_us:>8,.0f} {one.p99_us:>8,.0f}")
    print(f"{'':>11} {'+ Envoy':>9} {two.rps:>8,.0f} {two.p50_us:>8,.0f} {two.p99_us:>8,.0f} {min(spent_us):>13.0f}")
    print(
        f"{'':>11} {'ratio':>9} {two.rps / one.rps:>8.2f} {two.p50_us / one.p50_us:>8.2f} {two.p99_us / one.p99_us:>8.2f}",
        flush=True,
    )


if __name__ == "__main__":
    main()

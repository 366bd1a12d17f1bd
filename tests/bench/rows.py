"""`python -m tests.bench.rows`: how much of a bare `session.run` is left when models that take milliseconds are served.

A small CNN (3x96x96 floats) and an int8 text encoder of MiniLM's shape at 64 tokens, one row per request, with JSON and with binary
tensors. The gateway runs on one core with everything on, the load generator on the other; the bare loop runs on the gateway's core,
in turns with it. Each figure is the median of its rounds. The ratio of CPU time is the one that survives a busy machine: it is what
the row itself takes of all the CPU that the gateway's process used for it.
"""

import asyncio
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from gateway.contract.manifest import BatchCost, Signature, Tensor
from gateway.objectstore.local import LocalStore
from tests.bench.cell import CORES, ROUNDS, SECONDS, cpu_us, measure
from tests.bench.session import session
from tests.support import encoders, gateways, models
from trainers.quantize import candidates, rowwise

TOKENS = 64
CONNECTIONS = 4
Inputs = Mapping[str, NDArray[Any]]  # Any: floats or token ids


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "store"
        root.mkdir()
        graphs = {"cnn": models.cnn_graph(), "encoder": _encoder()}
        paths = {name: Path(folder) / f"{name}.onnx" for name in graphs}
        for name, path in paths.items():
            path.write_bytes(graphs[name])
        asyncio.run(_publish(LocalStore(root), graphs, paths))
        inputs = {"cnn": _image(), "encoder": _tokens()}
        print(
            f"{'':<16} {'rows per second':>27} {'':>6} {'CPU us per row':>27}   (one core, {CONNECTIONS} connections)"
        )
        print(
            f"{'model':<8} {'form':<7} {'bare':>12} {'served':>14} {'ratio':>6} {'bare':>12} {'served':>14} {'ratio':>6}"
        )
        with gateways.running(
            root, Path(folder), "--preload", "cnn", "--preload", "encoder", prefix=("taskset", "-c", str(CORES[0]))
        ) as gateway:
            for name, feed in inputs.items():
                for form in ("binary", "json"):
                    _compare(name, form, paths[name], feed, gateway)


def _compare(name: str, form: str, path: Path, feed: Inputs, gateway: gateways.Gateway) -> None:
    body, headers = _binary(feed) if form == "binary" else (_json(feed), {})
    bare, served = [], []
    for _ in range(ROUNDS):
        bare.append(_bare(path, feed))
        before_us = cpu_us(gateway.process.pid)
        figures = measure(gateway.port, f"/v2/models/{name}/infer", body, CONNECTIONS, **headers)
        served.append((figures.rps, (cpu_us(gateway.process.pid) - before_us) / figures.answers))
    base, base_us = (statistics.median(column) for column in zip(*bare, strict=True))
    rows, rows_us = (statistics.median(column) for column in zip(*served, strict=True))
    seen = f"{base:>12.1f} {rows:>14.1f} {rows / base:>6.2f}"
    print(f"{name:<8} {form:<7} {seen} {base_us:>12.0f} {rows_us:>14.0f} {base_us / rows_us:>6.2f}", flush=True)


def _bare(path: Path, feed: Inputs) -> tuple[float, float]:
    """Rows per second and CPU microseconds per row, in a process of its own on the gateway's core."""
    context = multiprocessing.get_context("spawn")
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=_run_bare, args=(str(path), dict(feed), sending))
    process.start()
    figures: tuple[float, float] = receiving.recv()
    process.join()
    return figures


def _run_bare(path: str, feed: dict[str, NDArray[Any]], sending: Any) -> None:  # Any: a pipe's end
    os.sched_setaffinity(0, {CORES[0]})
    run = session(path).run
    for _ in range(5):
        run(None, feed)
    runs, began, cpu_began = 0, time.perf_counter(), time.process_time()
    while (elapsed := time.perf_counter() - began) < SECONDS:
        run(None, feed)
        runs += 1
    sending.send((runs / elapsed, (time.process_time() - cpu_began) * 1e6 / runs))


def _image() -> Inputs:
    return {"image": np.random.default_rng(0).random((1, 3, 96, 96), np.float32)}


def _tokens() -> Inputs:
    ids = np.random.default_rng(0).integers(0, 30_000, (1, TOKENS))
    return {"input_ids": ids, "attention_mask": np.ones((1, TOKENS), np.int64)}


def _encoder() -> bytes:
    quantized = rowwise.rewrite(encoders.encoder_graph())
    assert quantized is not None
    return candidates.optimize(quantized, "int8-rowwise")


async def _publish(store: LocalStore, graphs: Mapping[str, bytes], paths: Mapping[str, Path]) -> None:
    await models.publish_cnn(store)
    signature = Signature(
        inputs=tuple(Tensor(name, "INT64", ("batch", "tokens")) for name in ("input_ids", "attention_mask")),
        outputs=(Tensor("embedding", "FP32", ("batch", 384)),),
    )
    manifest, contents = models.manifest_of("encoder", signature, {"int8-rowwise": graphs["encoder"]})
    [variant] = manifest.variants
    cost = BatchCost(base_ns=0, row_ns=_row_ns(paths["encoder"]))
    variant = msgspec.structs.replace(variant, max_batch=8, batch_cost=cost)
    await models.publish_files(store, msgspec.structs.replace(manifest, variants=(variant,)), contents)


def _row_ns(path: Path) -> int:
    run, feed = session(path=str(path)).run, _tokens()
    run(None, feed)
    began_ns = time.perf_counter_ns()
    for _ in range(10):
        run(None, feed)
    return (time.perf_counter_ns() - began_ns) // 10


def _json(feed: Inputs) -> str:
    """Six digits after the point, as images are sent: 250 KB."""
    inputs = [
        {
            "name": name,
            "shape": list(x.shape),
            "datatype": _datatype(x),
            "data": [round(v, 6) for v in x.ravel().tolist()],
        }
        for name, x in feed.items()
    ]
    return json.dumps({"inputs": inputs}, separators=(",", ":"))


def _binary(feed: Inputs) -> tuple[bytes, dict[str, str]]:
    """Protocol rule 16."""
    inputs = [
        {
            "name": name,
            "shape": list(x.shape),
            "datatype": _datatype(x),
            "parameters": {"binary_data_size": x.nbytes},
        }
        for name, x in feed.items()
    ]
    head = json.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}}).encode()
    return head + b"".join(x.tobytes() for x in feed.values()), {"Inference-Header-Content-Length": str(len(head))}


def _datatype(x: NDArray[Any]) -> str:
    return {"float32": "FP32", "int64": "INT64"}[x.dtype.name]


if __name__ == "__main__":
    main()

"""The models of `tests.bench.advise`: one that runs on the event loop, one whose runs are long, a text encoder, one that batches.

Each computes in the core's own caches: what reads weights from memory takes half as long again when neighbours read too.
"""

import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import numpy as np
import onnxruntime as ort
from onnx import helper

from gateway.contract.manifest import BatchCost, Latency
from gateway.objectstore.local import LocalStore
from tests.support import models, texts
from tests.support.encoders import encoder_graph

LAYERS, WIDTH = 900, 64
BATCHES = (1, 8, 32)


class Subject(msgspec.Struct, frozen=True):
    """`body` asks for one row."""

    publish: Callable[[LocalStore], Awaitable[None]]
    body: bytes


async def _small(store: LocalStore) -> None:
    await models.publish_mlp(store, "small")


async def _image(store: LocalStore) -> None:
    await models.publish_cnn(store, "image")


async def _text(store: LocalStore) -> None:
    """Of 16 tokens, each run alone."""
    graph = encoder_graph(layers=4, width=texts.WIDTH, heads=4, inner=128, words=128)
    await texts.publish(store, "text", graph=graph, batch_invariant=False)


async def _layers(store: LocalStore) -> None:
    """Hundreds of small layers with the same weights: a batch of 8 takes twice as long as one row."""
    constants = {
        "w": np.random.default_rng(0).normal(size=(WIDTH, WIDTH)).astype(np.float32) / np.float32(WIDTH**0.5),
        "b": np.zeros(WIDTH, np.float32),
    }
    nodes, x = [], "features"
    for number in range(LAYERS):
        nodes += [
            helper.make_node("Gemm", [x, "w", "b"], [f"sum_{number}"]),
            helper.make_node("Tanh", [f"sum_{number}"], [f"active_{number}"]),
        ]
        x = f"active_{number}"
    nodes.append(helper.make_node("Gemm", [x, "w", "b"], ["scores"]))
    signature = models.mlp_signature(WIDTH, WIDTH)
    graph = models.graph_of(nodes, signature, constants)
    made, contents = models.manifest_of("layers", signature, {"fp32": graph})
    variants = tuple(msgspec.structs.replace(one, **_costs(graph)) for one in made.variants)
    await models.publish_files(store, msgspec.structs.replace(made, variants=variants), contents)


def _costs(graph: bytes) -> dict[str, Any]:
    """As a training job measures them."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    found = []
    for rows in BATCHES:
        feed, took = {"features": np.zeros((rows, WIDTH), np.float32)}, []
        for _ in range(60):
            began_ns = time.perf_counter_ns()
            session.run(None, feed)
            took.append(time.perf_counter_ns() - began_ns)
        p50, p99 = np.percentile(took, (50, 99)).astype(int).tolist()
        found.append(Latency(batch_rows=rows, p50_ns=p50, p99_ns=p99, runs=len(took)))
    row_ns = max(1, (found[-1].p50_ns - found[0].p50_ns) // (BATCHES[-1] - 1))
    cost = BatchCost(base_ns=max(1, found[0].p50_ns - row_ns), row_ns=row_ns)
    return {"max_batch": 32, "latency": tuple(found), "batch_cost": cost}


def _body(name: str, datatype: str, shape: list[int], data: list[Any]) -> bytes:
    return json.dumps({"inputs": [{"name": name, "shape": shape, "datatype": datatype, "data": data}]}).encode()


def _numbers(count: int) -> list[float]:
    return [round(float(one), 3) for one in np.random.default_rng(0).normal(size=count)]


PIXELS = 3 * models.CNN_PIXELS**2
MODELS = {
    "small": Subject(_small, _body("features", "FP32", [1, 32], _numbers(32))),
    "image": Subject(
        _image,
        _body("image", "FP32", [1, 3, models.CNN_PIXELS, models.CNN_PIXELS], _numbers(PIXELS)),
    ),
    "text": Subject(
        _text,
        _body("text", "BYTES", [1], ["the rocket flies on a wheel, the cat sat on a mat"]),
    ),
    "layers": Subject(_layers, _body("features", "FP32", [1, WIDTH], _numbers(WIDTH))),
}

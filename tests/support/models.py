"""Small real artifacts, published through the real `publish` and `promote`, in well under a second and without torch.

`publish_tiny` takes named columns (strings and numbers) like the flights recipe; `publish_mlp` takes one float tensor. Another
`seed` gives other weights, hence another version; each name in `variants` becomes a graph of its own with other weights.
"""

import asyncio
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from gateway.contract import codec, layout, prices
from gateway.contract.manifest import (
    BatchCost,
    Column,
    Evaluation,
    Examples,
    Gate,
    Latency,
    Lineage,
    Manifest,
    Signature,
    Tensor,
    TrainingCost,
    Variant,
)
from gateway.contract.registry import VersionRecord
from gateway.objectstore.local import LocalStore
from gateway.objectstore.protocol import ObjectStore
from trainers import publish
from trainers.signing import Signer

Array = NDArray[Any]  # Any: weights and indices alike
NOW_NS = 1_790_000_000_000_000_000
OPSET = 20
CNN_PIXELS = 96
CNN_ROW_NS = 2_000_000  # on one core of a 2024 server with AVX-512
CARRIERS = ("AA", "B6", "UA")
ORIGINS = ("JFK", "LGA")

TINY_SIGNATURE = Signature(
    inputs=(
        Tensor(
            name="categories",
            datatype="BYTES",
            shape=("batch", 2),
            columns=(
                Column(name="carrier", datatype="string", description="who flies", known=CARRIERS),
                Column(name="origin", datatype="string", description="where from", known=ORIGINS),
            ),
        ),
        Tensor(
            name="numbers",
            datatype="FP32",
            shape=("batch", 3),
            columns=(
                Column(name="hour", datatype="integer", minimum=0, maximum=23),
                Column(name="distance", datatype="number", unit="mi", minimum=0, maximum=5000),
                Column(name="wind", datatype="number", unit="kt", nullable=True),
            ),
        ),
    ),
    outputs=(
        Tensor(
            name="probability",
            datatype="FP32",
            shape=("batch", 1),
            columns=(Column(name="late_probability", datatype="number", minimum=0, maximum=1),),
        ),
    ),
)

TINY_EXAMPLES = Examples(
    rows=(
        {"carrier": "AA", "origin": "JFK", "hour": 7, "distance": 733.0, "wind": 12.5},
        {"carrier": "UA", "origin": "LGA", "hour": 19, "distance": 2475.0, "wind": None},
        {"carrier": "ZZ", "origin": "EWR", "hour": 12, "distance": 184.0, "wind": 3.0},
    ),
    outcomes=(False, True, False),
)


def tiny_store(folder: Path) -> Path:
    """A local store in this folder with `tiny@1`, its champion."""
    folder.mkdir(exist_ok=True)
    asyncio.run(publish_tiny(LocalStore(folder)))
    return folder


async def publish_tiny(
    store: ObjectStore,
    name: str = "tiny",
    *,
    seed: int = 0,
    variants: Sequence[str] = ("fp32",),
    promote_to: str | None = layout.CHAMPION,
) -> VersionRecord:
    """Two string columns and three numbers (one nullable) to one probability."""
    graphs = {variant: tiny_graph(seed * 101 + i) for i, variant in enumerate(variants)}
    manifest, contents = manifest_of(name, TINY_SIGNATURE, graphs)
    examples = codec.encode(TINY_EXAMPLES)
    file = publish.describe("examples.json", examples, "examples")
    manifest = msgspec.structs.replace(manifest, files=(*manifest.files, file))
    return await publish_files(store, manifest, contents | {file.name: examples}, promote_to=promote_to)


async def publish_mlp(
    store: ObjectStore,
    name: str = "mlp",
    *,
    features: int = 32,
    hidden: int = 64,
    outputs: int = 10,
    seed: int = 0,
    variants: Sequence[str] = ("fp32",),
    promote_to: str | None = layout.CHAMPION,
) -> VersionRecord:
    """`features` FP32 [batch, features] to `scores` FP32 [batch, outputs], through one hidden layer; no columns."""
    signature = mlp_signature(features, outputs)
    graphs = {variant: mlp_graph(features, hidden, outputs, seed * 101 + i) for i, variant in enumerate(variants)}
    return await publish_files(store, *manifest_of(name, signature, graphs), promote_to=promote_to)


async def publish_cnn(
    store: ObjectStore, name: str = "cnn", *, seed: int = 0, promote_to: str | None = layout.CHAMPION
) -> VersionRecord:
    """`image` FP32 [batch, 3, 96, 96] to `scores` FP32 [batch, 10], with the manifest of a model whose runs are long."""
    signature = Signature(
        inputs=(Tensor(name="image", datatype="FP32", shape=("batch", 3, CNN_PIXELS, CNN_PIXELS)),),
        outputs=(Tensor(name="scores", datatype="FP32", shape=("batch", 10)),),
    )
    manifest, contents = manifest_of(name, signature, {"fp32": cnn_graph(seed)})
    latency = tuple(
        Latency(batch_rows=rows, p50_ns=round(row_ns * rows), p99_ns=round(2 * row_ns * rows), runs=300)
        for rows, row_ns in ((1, CNN_ROW_NS), (8, 1.15 * CNN_ROW_NS), (32, 1.15 * CNN_ROW_NS))  # as measured
    )
    cost = BatchCost(base_ns=20_000, row_ns=CNN_ROW_NS)
    [variant] = manifest.variants
    variant = msgspec.structs.replace(variant, max_batch=32, latency=latency, batch_cost=cost)
    manifest = msgspec.structs.replace(manifest, variants=(variant,))
    return await publish_files(store, manifest, contents, promote_to=promote_to)


def tiny_graph(seed: int = 0) -> bytes:
    """Gather each string column, encode it (unknown is 0), drop NaN, one Gemm, Sigmoid."""
    scale = np.array([[1], [1], [0.1], [1e-3], [0.05]], np.float32)
    weights = np.random.default_rng(seed).normal(size=(5, 1)).astype(np.float32) * scale
    constants: dict[str, Array] = {
        "column_0": np.array([0], np.int64),
        "column_1": np.array([1], np.int64),
        "zero": np.zeros((), np.float32),
        "weights": weights,
        "bias": np.zeros(1, np.float32),
    }
    nodes = [
        node
        for i, known in enumerate((CARRIERS, ORIGINS))
        for node in (
            helper.make_node("Gather", ["categories", f"column_{i}"], [f"text_{i}"], axis=1),
            helper.make_node(
                "LabelEncoder",
                [f"text_{i}"],
                [f"index_{i}"],
                domain="ai.onnx.ml",
                keys_strings=known,
                values_int64s=range(1, len(known) + 1),
                default_int64=0,
            ),
        )
    ]
    nodes += [
        helper.make_node("Concat", ["index_0", "index_1"], ["indices"], axis=1),
        helper.make_node("Cast", ["indices"], ["codes"], to=TensorProto.FLOAT),
        helper.make_node("IsNaN", ["numbers"], ["missing"]),
        helper.make_node("Where", ["missing", "zero", "numbers"], ["filled"]),
        helper.make_node("Concat", ["codes", "filled"], ["row"], axis=1),
        helper.make_node("Gemm", ["row", "weights", "bias"], ["logit"]),
        helper.make_node("Sigmoid", ["logit"], ["probability"]),
    ]
    inputs = [
        helper.make_tensor_value_info("categories", TensorProto.STRING, ["batch", 2]),
        helper.make_tensor_value_info("numbers", TensorProto.FLOAT, ["batch", 3]),
    ]
    outputs = [helper.make_tensor_value_info("probability", TensorProto.FLOAT, ["batch", 1])]
    return _model(nodes, inputs, outputs, constants)


def mlp_signature(features: int = 32, outputs: int = 10) -> Signature:
    return Signature(
        inputs=(Tensor(name="features", datatype="FP32", shape=("batch", features)),),
        outputs=(Tensor(name="scores", datatype="FP32", shape=("batch", outputs)),),
    )


def mlp_graph(features: int = 32, hidden: int = 64, outputs: int = 10, seed: int = 0) -> bytes:
    """Gemm, Relu, Gemm."""
    rng = np.random.default_rng(seed)
    constants: dict[str, Array] = {
        "w1": rng.normal(size=(features, hidden)).astype(np.float32) / np.float32(np.sqrt(features)),
        "b1": rng.normal(size=hidden).astype(np.float32),
        "w2": rng.normal(size=(hidden, outputs)).astype(np.float32) / np.float32(np.sqrt(hidden)),
        "b2": rng.normal(size=outputs).astype(np.float32),
    }
    nodes = [
        helper.make_node("Gemm", ["features", "w1", "b1"], ["hidden"]),
        helper.make_node("Relu", ["hidden"], ["active"]),
        helper.make_node("Gemm", ["active", "w2", "b2"], ["scores"]),
    ]
    inputs = [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", features])]
    return _model(
        nodes, inputs, [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", outputs])], constants
    )


def cnn_graph(seed: int = 0) -> bytes:
    """Four Convs of 3x3 with Relu, a global average and a MatMul: 2 MB of weights, about 250 million multiply-adds per row."""
    rng = np.random.default_rng(seed)
    constants: dict[str, Array] = {}
    nodes: list[onnx.NodeProto] = []
    x, channels = "image", 3
    for i, (width, stride) in enumerate(((48, 1), (96, 2), (192, 2), (192, 2))):
        scale = np.float32(
            np.sqrt(2 / (9 * channels))
        )  # He initialization: activations keep their size from layer to layer
        constants[f"kernel_{i}"] = rng.normal(size=(width, channels, 3, 3)).astype(np.float32) * scale
        nodes += [
            helper.make_node("Conv", [x, f"kernel_{i}"], [f"conv_{i}"], strides=[stride, stride], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", [f"conv_{i}"], [f"active_{i}"]),
        ]
        x, channels = f"active_{i}", width
    constants["weights"] = rng.normal(size=(channels, 10)).astype(np.float32) / np.float32(np.sqrt(channels))
    nodes += [
        helper.make_node("GlobalAveragePool", [x], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["scores"]),
    ]
    inputs = [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, CNN_PIXELS, CNN_PIXELS])]
    return _model(nodes, inputs, [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 10])], constants)


def graph_of(nodes: list[onnx.NodeProto], signature: Signature, constants: Mapping[str, Array]) -> bytes:
    """These nodes between the signature's tensors."""
    kinds = {"FP32": TensorProto.FLOAT, "BYTES": TensorProto.STRING, "INT64": TensorProto.INT64}
    inputs, outputs = (
        [helper.make_tensor_value_info(tensor.name, kinds[tensor.datatype], tensor.shape) for tensor in side]
        for side in (signature.inputs, signature.outputs)
    )
    return _model(nodes, inputs, outputs, constants)


def manifest_of(name: str, signature: Signature, graphs: Mapping[str, bytes]) -> tuple[Manifest, dict[str, bytes]]:
    """A complete manifest of these graphs, by variant id, and the files it describes."""
    contents = {f"{variant}.onnx": graph for variant, graph in graphs.items()}
    manifest = Manifest(
        model=name,
        task="classify",
        description=f"A small model named {name}, for tests.",
        created_ns=NOW_NS,
        files=tuple(publish.describe(file, data, "model") for file, data in contents.items()),
        variants=tuple(_variant(variant) for variant in graphs),
        serve=next(iter(graphs)),
        choice="The first variant is served: there was nothing to choose from.",
        signature=signature,
        lineage=Lineage(run_id=f"run-{name}", recipe=name, seed=0, data=()),
        training_cost=TrainingCost(
            sku="c7i.large", seconds=60.0, cost_picousd=1_487_500_000, price_book_sha256=prices.load().sha256
        ),
        evaluations=(Evaluation(subject="fp32", split="test", rows=100, metrics={"roc_auc": 0.7}),),
        gates=(Gate(name="nan", variant="fp32", passed=True, measured=0, limit=0),),
    )
    return manifest, contents


async def publish_files(
    store: ObjectStore,
    manifest: Manifest,
    contents: Mapping[str, bytes],
    *,
    promote_to: str | None = layout.CHAMPION,
    signer: Signer | None = None,
) -> VersionRecord:
    """What a training run does with a finished artifact."""
    book = prices.load()
    await publish.put_once(store, layout.price_book(book.sha256), book.data)
    with tempfile.TemporaryDirectory() as folder:
        publish.write(Path(folder), manifest, contents)
        run_id = manifest.lineage.run_id
        record = await publish.publish(store, Path(folder), run_id=run_id, now_ns=NOW_NS, signer=signer)
    if promote_to:
        await publish.promote(
            store,
            model=manifest.model,
            alias=promote_to,
            version=record.version,
            actor="tests",
            reason="built for a test",
            now_ns=NOW_NS,
        )
    return record


def _variant(variant_id: str) -> Variant:
    return Variant(
        id=variant_id,
        recipe=variant_id,
        file=f"{variant_id}.onnx",
        opset=OPSET,
        max_batch=128,
        batch_invariant=True,
        latency=(Latency(batch_rows=1, p50_ns=20_000, p99_ns=40_000, runs=300),),
        batch_cost=BatchCost(base_ns=20_000, row_ns=100),
        load_ns=2_000_000,
    )


def _model(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    constants: Mapping[str, Array],
) -> bytes:
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "tests", inputs, outputs, initializers)
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", 4)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())

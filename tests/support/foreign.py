"""ONNX files as other tools write them, small: open dimensions, labels beside probabilities, states, frozen rows."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

FEATURES, CLASSES = 32, 3
Dimension = int | str | None


def value(name: str, shape: Sequence[Dimension], kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    constants: Mapping[str, NDArray[np.generic]] = {},
    *,
    opsets: Mapping[str, int] = {"": 20, "ai.onnx.ml": 4},
) -> onnx.ModelProto:
    initializers = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(list(nodes), "foreign", list(inputs), list(outputs), initializers)
    imports = [helper.make_opsetid(domain, version) for domain, version in opsets.items()]
    return helper.make_model(graph, opset_imports=imports, ir_version=10, producer_name="elsewhere")


def classifier(rows: Dimension = "N", *, hidden: int = 64) -> onnx.ModelProto:
    """`x` FP32 [rows, 32] to `probabilities` [rows, 3]; the class is where the first three features are largest."""
    rng = np.random.default_rng(5)
    first = rng.normal(size=(FEATURES, hidden)).astype(np.float32) * 0.05
    first[:CLASSES, :CLASSES] += 3 * np.eye(CLASSES, dtype=np.float32)
    second = rng.normal(size=(hidden, CLASSES)).astype(np.float32) * 0.05
    second[:CLASSES] += 3 * np.eye(CLASSES, dtype=np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["hidden"]),
        helper.make_node("Relu", ["hidden"], ["kept"]),
        helper.make_node("MatMul", ["kept", "second"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=-1),
    ]
    ends = [value("x", [rows, FEATURES])], [value("probabilities", [rows, CLASSES])]
    return model(nodes, *ends, {"first": first, "second": second})


def rows_of(count: int, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """For `classifier`, with the class of each."""
    x = np.random.default_rng(seed).normal(size=(count, FEATURES)).astype(np.float32)
    x[:, :CLASSES] *= 2
    return x, x[:, :CLASSES].argmax(axis=1)


def trees(*, is_text: bool = False) -> onnx.ModelProto:
    """As skl2onnx writes a classifier: `X` [None, 2], `label` [None] and `probabilities` [None, 3]. One split at X[0] <= 0.5."""
    labels = {"classlabels_strings": ["low", "high", "odd"]} if is_text else {"classlabels_int64s": [0, 1, 2]}
    node = helper.make_node(
        "TreeEnsembleClassifier",
        ["X"],
        ["label", "probabilities"],
        domain="ai.onnx.ml",
        nodes_treeids=[0, 0, 0],
        nodes_nodeids=[0, 1, 2],
        nodes_featureids=[0, 0, 0],
        nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF"],
        nodes_values=[0.5, 0.0, 0.0],
        nodes_truenodeids=[1, 0, 0],
        nodes_falsenodeids=[2, 0, 0],
        nodes_missing_value_tracks_true=[1, 0, 0],
        class_treeids=[0] * 6,
        class_nodeids=[1, 1, 1, 2, 2, 2],
        class_ids=[0, 1, 2] * 2,
        class_weights=[0.9, 0.1, 0.0, 0.1, 0.8, 0.1],
        post_transform="NONE",
        **labels,
    )
    kind = TensorProto.STRING if is_text else TensorProto.INT64
    outputs = [value("label", [None], kind), value("probabilities", [None, 3])]
    return model([node], [value("X", [None, 2])], outputs, opsets={"": 20, "ai.onnx.ml": 3})


def mixing(rows: Dimension = "N") -> onnx.ModelProto:
    """`x` [rows, 4] to `y`, each divided by the largest value of its batch: what no row may depend on."""
    nodes = [
        helper.make_node("ReduceMax", ["x", "axis"], ["largest"]),
        helper.make_node("Div", ["x", "largest"], ["y"]),
    ]
    return model(nodes, [value("x", [rows, 4])], [value("y", [rows, 4])], {"axis": np.array([0])})


def stateful() -> onnx.ModelProto:
    """`chunk` [batch, 4], `state` [2, batch, 4], `rate` int64 [] to `score` [batch, 1], `next` [2, batch, 4].

    An `If` asks the rate.
    """
    branches = {}
    for name, factor in (("then_branch", 1.0), ("else_branch", 2.0)):
        constant = numpy_helper.from_array(np.array(factor, np.float32), f"{name}_factor")
        node = helper.make_node("Mul", ["chunk", f"{name}_factor"], [f"{name}_scaled"])
        branches[name] = helper.make_graph([node], name, [], [value(f"{name}_scaled", ["batch", 4])], [constant])
    nodes = [
        helper.make_node("Equal", ["rate", "slow"], ["is_slow"]),
        helper.make_node("If", ["is_slow"], ["scaled"], **branches),
        helper.make_node("Add", ["state", "scaled"], ["next"]),
        helper.make_node("ReduceSum", ["next", "over"], ["sum"], keepdims=0),
        helper.make_node("Reshape", ["sum", "column"], ["score"]),
    ]
    inputs = [value("chunk", ["batch", 4]), value("state", [2, "batch", 4]), value("rate", [], TensorProto.INT64)]
    outputs = [value("score", ["batch", 1]), value("next", [2, "batch", 4])]
    constants = {"slow": np.array(8000), "over": np.array([0, 2]), "column": np.array([-1, 1])}
    return model(nodes, inputs, outputs, constants)


def save(made: onnx.ModelProto, folder: Path, name: str = "model.onnx") -> Path:
    path = folder / name
    path.write_bytes(made.SerializeToString())
    return path

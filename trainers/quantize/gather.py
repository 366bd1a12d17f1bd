"""int8 embedding tables: a looked-up row is scaled back to fp32 behind the Gather. Only the table shrinks; nothing is calibrated.

One scale per row of the table: rare words have small rows, which one scale for all would round to nothing. No answer depends on
another, and multiplications are left alone. For models that are mostly vocabulary this is most of the file and of its load.
"""

import numpy as np
import onnx
from onnx import TensorProto, helper

from trainers.arrays import Array
from trainers.quantize import weights

TABLE_MIN = 16_384
"""Elements. A smaller table saves less than 48 KB, for two more nodes on every lookup."""

VALUE_MAX = 127


def rewrite(graph: bytes) -> bytes | None:
    """The graph with its large tables in int8; None when it has none, or others than row lookups read them too."""
    model = onnx.load_from_string(graph)
    constants = weights.Constants(model.graph)
    tables = _tables(model.graph, constants)
    if not tables:
        return None
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        nodes += _lookup(node) if node.op_type == "Gather" and node.input[0] in tables else [node]
    added: dict[str, Array] = {}
    for name, table in tables.items():
        added |= _quantized(name, table)
    weights.replace(model.graph, nodes, added)
    return bytes(model.SerializeToString(deterministic=True))


def _tables(graph: onnx.GraphProto, constants: weights.Constants) -> dict[str, Array]:
    """By name. One that a multiplication reads as well (tied embeddings) would be stored twice: it stays."""
    looked_up = {node.input[0] for node in graph.node if _is_lookup(node)}
    read_otherwise = {value.name for value in graph.output}
    for node in graph.node:
        read_otherwise |= weights.names_read(node) - ({node.input[0]} if _is_lookup(node) else set())
    found = {name: constants.floats(name) for name in sorted(looked_up - read_otherwise)}
    return {
        name: table
        for name, table in found.items()
        if table is not None and table.ndim == 2 and table.size >= TABLE_MIN
    }


def _is_lookup(node: onnx.NodeProto) -> bool:
    return node.op_type == "Gather" and weights.attributes_of(node).get("axis", 0) in {0, -2}


def _quantized(name: str, table: Array) -> dict[str, Array]:
    scale = np.maximum(np.abs(table).max(axis=1, keepdims=True), np.finfo(np.float32).tiny) / VALUE_MAX
    scale = np.maximum(scale, np.finfo(np.float32).tiny).astype(np.float32)
    return {f"gather/{name}/rows": np.rint(table / scale).astype(np.int8), f"gather/{name}/scale": scale}


def _lookup(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """int8 rows and their scales, looked up with the same indices."""
    table, indices = node.input
    name = f"gather/{node.output[0]}/"
    return [
        helper.make_node("Gather", [f"gather/{table}/rows", indices], [f"{name}rows"], name=f"{name}rows", axis=0),
        helper.make_node("Gather", [f"gather/{table}/scale", indices], [f"{name}scale"], name=f"{name}scale", axis=0),
        helper.make_node("Cast", [f"{name}rows"], [f"{name}floats"], name=f"{name}floats", to=TensorProto.FLOAT),
        helper.make_node("Mul", [f"{name}floats", f"{name}scale"], [node.output[0]], name=f"{name}scaled"),
    ]

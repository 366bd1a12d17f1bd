"""int8 multiplication with one activation scale per row: no answer depends on its batch mates. Pure ONNX, no calibration.

onnxruntime's own dynamic quantization takes one scale for the whole batch, so a request's answer changes with the requests that
happen to share its batch (onnxruntime #10111). Here each MatMul or Gemm by a constant becomes

    scale = max |row| / 127;  round(row / scale) as uint8  @  weights as int8  ->  int32  * scale * column scale  (+ bias)

Weights keep 7 of 8 bits: without VNNI, x86 adds pairs of products in 16 bits, and 255 * 63 * 2 is the most that never saturates
there (onnxruntime #14642), so every CPU computes the same integers and the variant requires no CPU flag.
"""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from trainers.arrays import Array

ACTIVATION_MAX = 127
ACTIVATION_ZERO = 128
WEIGHT_MAX = 63
WEIGHTS_MIN = 1024
"""Smaller matrices stay fp32: the twelve extra nodes cost more than the multiplication they save."""

SCALE_MIN = 1e-30
"""Stands in for the scale of a row of zeros, which has none. Times the row's sum it carries NaN into the scale, and so into the
answer: onnxruntime's ReduceMax skips NaN, and a plausible number for a missing one would be a lie."""


def rewrite(graph: bytes) -> bytes | None:
    """The graph with its large constant multiplications in int8; None when it has none."""
    model = onnx.load_from_string(graph)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes, added = [], {}
    for node in model.graph.node:
        weights = _weights(node, constants)
        if weights is None:
            nodes.append(node)
            continue
        replacement, tensors = _quantized(node, weights)
        nodes += replacement
        added.update(tensors)
    if not added:
        return None
    added.update({"rowwise/" + name: value for name, value in _CONSTANTS.items()})
    _replace(model.graph, nodes, added)
    return bytes(model.SerializeToString(deterministic=True))


_CONSTANTS: dict[str, Array] = {
    "last_axis": np.array([-1], np.int64),
    "per_step": np.array(1 / ACTIVATION_MAX, np.float32),
    "scale_min": np.array(SCALE_MIN, np.float32),
    "one": np.array(1, np.float32),
    "zero": np.array(ACTIVATION_ZERO, np.uint8),
}


def _weights(node: onnx.NodeProto, constants: dict[str, TensorProto]) -> Array | None:
    """The [inputs, outputs] matrix of a multiplication that can be rewritten."""
    if node.op_type not in {"MatMul", "Gemm"} or node.input[1] not in constants:
        return None
    tensor = constants[node.input[1]]
    if tensor.data_type != TensorProto.FLOAT or len(tensor.dims) != 2 or np.prod(tensor.dims) < WEIGHTS_MIN:
        return None
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    if attributes.get("transA", 0) or attributes.get("alpha", 1.0) != 1.0 or attributes.get("beta", 1.0) != 1.0:
        return None
    weights: Array = numpy_helper.to_array(tensor)
    return weights.T if attributes.get("transB", 0) else weights


def _quantized(node: onnx.NodeProto, weights: Array) -> tuple[list[onnx.NodeProto], dict[str, Array]]:
    """Nodes with the same output as `node`, and the constants they need."""
    name = f"rowwise/{node.output[0]}/"
    column_scale = np.maximum(np.abs(weights).max(axis=0), SCALE_MIN) / WEIGHT_MAX
    constants = {
        f"{name}weights": np.rint(weights / column_scale).astype(np.int8),
        f"{name}column_scale": column_scale.astype(np.float32),
    }
    bias = node.input[2] if len(node.input) == 3 else ""
    steps = [
        ("Abs", [node.input[0]], "magnitude"),
        ("ReduceMax", [f"{name}magnitude", "rowwise/last_axis"], "largest"),
        ("Mul", [f"{name}largest", "rowwise/per_step"], "step"),
        ("ReduceSum", [f"{name}magnitude", "rowwise/last_axis"], "sum"),
        ("Mul", [f"{name}sum", "rowwise/scale_min"], "floor"),
        ("Max", [f"{name}step", f"{name}floor", "rowwise/scale_min"], "row_scale"),
        ("Div", [node.input[0], f"{name}row_scale"], "scaled"),
        ("QuantizeLinear", [f"{name}scaled", "rowwise/one", "rowwise/zero"], "integers"),
        ("MatMulInteger", [f"{name}integers", f"{name}weights", "rowwise/zero"], "product"),
        ("Cast", [f"{name}product"], "float_product"),
        ("Mul", [f"{name}float_product", f"{name}row_scale"], "by_row"),
        ("Mul", [f"{name}by_row", f"{name}column_scale"], "by_column"),
    ]
    steps += [("Add", [f"{name}by_column", bias], "biased")] if bias else []
    nodes = [helper.make_node(kind, inputs, [name + output], name=name + output) for kind, inputs, output in steps]
    next(made for made in nodes if made.op_type == "Cast").attribute.append(
        helper.make_attribute("to", TensorProto.FLOAT)
    )
    nodes[-1].output[0] = node.output[0]
    return nodes, constants


def _replace(graph: onnx.GraphProto, nodes: list[onnx.NodeProto], added: dict[str, Array]) -> None:
    """Put the nodes in, and keep of the old constants only those still used."""
    used = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    kept += [numpy_helper.from_array(value, name) for name, value in added.items()]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(kept)

"""int8 multiplication with one activation scale per row: no answer depends on its batch mates. Pure ONNX, no calibration.

onnxruntime's own dynamic quantization takes one scale for the whole batch, so a request's answer changes with the requests that
happen to share its batch (onnxruntime #10111). Here each MatMul or Gemm by a constant becomes

    scale = max |row| / 127;  round(row / scale) as uint8  @  weights as int8  ->  int32  * scale * column scale  (+ bias)

Weights keep 7 of 8 bits by default: without VNNI, x86 adds pairs of products in 16 bits, and 255 * 63 * 2 is the most that never
saturates there (onnxruntime #14642), so every CPU computes the same integers and the variant requires no CPU flag.
"""

from collections.abc import Collection, Iterator

import numpy as np
import onnx
from onnx import TensorProto, helper

from trainers.arrays import Array
from trainers.quantize import weights

ACTIVATION_MAX = 127
ACTIVATION_ZERO = 128
WEIGHT_MAX = 63
WEIGHT_MAX_FULL = 127
"""For CPUs that add in 32 bits; `saturation` says whether others would differ."""

SCALE_MIN = 1e-30
"""Stands in for the scale of a row of zeros, which has none. Times the row's sum it carries NaN into the scale, and so into the
answer: onnxruntime's ReduceMax skips NaN, and a plausible number for a missing one would be a lie."""

OPSET_MIN = 13
"""The first in which ReduceSum takes its axes as an input and QuantizeLinear an axis."""

OPSET_AXES_INPUT = 18
"""From here on ReduceMax takes its axes as an input too."""


def rewrite(graph: bytes, *, weight_max: int = WEIGHT_MAX, skip: Collection[str] = ()) -> bytes | None:
    """The graph with its large constant multiplications in int8; None when it has none.

    `skip` names outputs of multiplications that stay fp32. A matrix that several nodes share is stored once. Subgraphs stay as they
    are.
    """
    model = onnx.load_from_string(graph)
    opset = weights.opset(model)
    if opset < OPSET_MIN:
        return None
    constants = weights.Constants(model.graph)
    nodes: list[onnx.NodeProto] = []
    added: dict[str, Array] = {}
    for node in model.graph.node:
        matrix = None if node.output[0] in skip else weights.matrix(node, constants)
        if matrix is None:
            nodes.append(node)
            continue
        stored = _stored(node)
        if f"{stored}weights" not in added:
            added.update(_quantized(stored, matrix, weight_max))
        nodes += _multiplication(node, stored, opset)
    if not added:
        return None
    added.update({"rowwise/" + name: value for name, value in _CONSTANTS.items()})
    weights.replace(model.graph, nodes, added)
    return bytes(model.SerializeToString(deterministic=True))


def names(graph: bytes) -> tuple[str, ...]:
    """The outputs of the multiplications that `rewrite` would change."""
    model = onnx.load_from_string(graph)
    constants = weights.Constants(model.graph)
    return tuple(node.output[0] for node in model.graph.node if weights.matrix(node, constants) is not None)


_CONSTANTS: dict[str, Array] = {
    "last_axis": np.array([-1], np.int64),
    "per_step": np.array(1 / ACTIVATION_MAX, np.float32),
    "scale_min": np.array(SCALE_MIN, np.float32),
    "one": np.array(1, np.float32),
    "zero": np.array(ACTIVATION_ZERO, np.uint8),
}


def _stored(node: onnx.NodeProto) -> str:
    """Where the quantized matrix is: it belongs to the constant and the way it is read."""
    transposed = "transposed/" if weights.attributes_of(node).get("transB", 0) else ""
    return f"rowwise/{node.input[1]}/{transposed}"


def _quantized(stored: str, matrix: Array, weight_max: int) -> dict[str, Array]:
    column_scale = np.maximum(np.abs(matrix).max(axis=0), SCALE_MIN) / weight_max
    return {
        f"{stored}weights": np.rint(matrix / column_scale).astype(np.int8),
        f"{stored}column_scale": column_scale.astype(np.float32),
    }


def _multiplication(node: onnx.NodeProto, stored: str, opset: int) -> list[onnx.NodeProto]:
    """Nodes with the same output as `node`."""
    name = f"rowwise/{node.output[0]}/"
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
        ("MatMulInteger", [f"{name}integers", f"{stored}weights", "rowwise/zero"], "product"),
        ("Cast", [f"{name}product"], "float_product"),
        ("Mul", [f"{name}float_product", f"{name}row_scale"], "by_row"),
        ("Mul", [f"{name}by_row", f"{stored}column_scale"], "by_column"),
    ]
    steps += [("Add", [f"{name}by_column", bias], "biased")] if bias else []
    nodes = [_node(kind, inputs, name + output, opset) for kind, inputs, output in steps]
    nodes[-1].output[0] = node.output[0]
    return nodes


def _node(kind: str, inputs: list[str], output: str, opset: int) -> onnx.NodeProto:
    node = helper.make_node(kind, inputs, [output], name=output)
    node.attribute.extend(_attributes(kind, opset))
    if kind == "ReduceMax" and opset < OPSET_AXES_INPUT:
        del node.input[1:]
    return node


def _attributes(kind: str, opset: int) -> Iterator[onnx.AttributeProto]:
    if kind == "Cast":
        yield helper.make_attribute("to", TensorProto.FLOAT)
    if kind == "ReduceMax" and opset < OPSET_AXES_INPUT:
        yield helper.make_attribute("axes", [-1])

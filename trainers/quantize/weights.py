"""The constants of an ONNX graph, however it holds them, and what of them is still used after a rewrite.

torch's exporter writes a weight as an initializer, as a Constant node, or as the Transpose of one shared with another node. Reads
graphs and drops what is dead; quantizes nothing. Subgraphs (the bodies of If and Loop) are never changed, but keep alive what they
name.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from trainers.arrays import Array

MULTIPLICATIONS = frozenset({"MatMul", "Gemm"})
WEIGHTS_MIN = 1024
"""Smaller matrices stay fp32: quantizing what they multiply takes longer than the multiplication. They are often the last ones,
where an error is an error of the answer."""

_TRANSPARENT = frozenset({"Constant", "Identity", "Transpose"})


class Constants:
    """Float constants by the name under which a node of the main graph reads them. An input with a default is none."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        inputs = {value.name for value in graph.input}
        self._tensors = {tensor.name: tensor for tensor in graph.initializer if tensor.name not in inputs}
        self._nodes = {node.output[0]: node for node in graph.node if node.op_type in _TRANSPARENT}

    def floats(self, name: str) -> Array | None:
        """The FP32 array, or None where `name` is computed from inputs, is of another type, or holds NaN or infinity."""
        value = self._value(name)
        if value is None or value.dtype != np.float32 or not np.isfinite(value).all():
            return None
        return value

    def _value(self, name: str) -> Array | None:
        if name in self._tensors:
            tensor = self._tensors[name]
            return numpy_helper.to_array(tensor) if tensor.data_type == TensorProto.FLOAT else None
        node = self._nodes.get(name)
        if node is None:
            return None
        attributes = attributes_of(node)
        if node.op_type == "Constant":
            held = attributes.get("value")
            if not isinstance(held, TensorProto):
                return None
            value: Array = numpy_helper.to_array(held)
            return value
        inner = self._value(node.input[0])
        if inner is None or node.op_type == "Identity":
            return inner
        return np.transpose(inner, attributes.get("perm"))


def attributes_of(node: onnx.NodeProto) -> dict[str, Any]:  # Any: whatever an attribute holds
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def matrix(node: onnx.NodeProto, constants: Constants, *, weights_min: int = WEIGHTS_MIN) -> Array | None:
    """The [inputs, outputs] matrix of a multiplication by a constant; None where there is none, or too small a one.

    A Gemm that scales (`alpha`, `beta`) or transposes its activation has none.
    """
    if node.op_type not in MULTIPLICATIONS or node.domain not in {"", "ai.onnx"}:
        return None
    attributes = attributes_of(node)
    if attributes.get("transA", 0) or attributes.get("alpha", 1.0) != 1.0 or attributes.get("beta", 1.0) != 1.0:
        return None
    value = constants.floats(node.input[1])
    if value is None or value.ndim != 2 or value.size < weights_min:
        return None
    return value.T if attributes.get("transB", 0) else value


def opset(model: onnx.ModelProto) -> int:
    """The version of ONNX's own operators; 1 where the model does not say."""
    return max((entry.version for entry in model.opset_import if entry.domain in {"", "ai.onnx"}), default=1)


def named(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which every node of the main graph is called like its first output, for tools that pick nodes by name."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for node in copy.graph.node:
        node.name = node.output[0]
    return copy


def replace(graph: onnx.GraphProto, nodes: Iterable[onnx.NodeProto], added: Mapping[str, Array]) -> None:
    """Put `nodes` and new constants in, and drop what no output needs any more."""
    kept = _alive(graph, list(nodes))
    used = {name for node in kept for name in names_read(node)} | {value.name for value in graph.output}
    tensors = [tensor for tensor in graph.initializer if tensor.name in used]
    tensors += [numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in added.items()]
    produced = {name for node in kept for name in node.output}
    shapes = [value for value in graph.value_info if value.name in produced]
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(kept)
    graph.initializer.extend(tensors)
    graph.value_info.extend(shapes)


def _alive(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """Nodes come in the order they run, so one pass from the end finds what the outputs need."""
    needed = {value.name for value in graph.output}
    kept = []
    for node in reversed(nodes):
        if needed.intersection(node.output):
            kept.append(node)
            needed |= names_read(node)
    return kept[::-1]


def names_read(node: onnx.NodeProto) -> set[str]:
    """What a node reads, its subgraphs included: they may name anything of the graphs around them."""
    names = {name for name in node.input if name}
    for attribute in node.attribute:
        for inner in (attribute.g, *attribute.graphs):
            names |= {name for each in inner.node for name in names_read(each)}
            names |= {value.name for value in inner.output}
    return names

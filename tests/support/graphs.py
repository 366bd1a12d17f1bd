"""Graphs of a few bytes from `x` FP32 [batch, 3] to `y` FP32 [batch, 3], sound or not: nothing here asks onnx's checker."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from gateway.contract.manifest import Manifest, Signature, Tensor
from tests.support import models

SIGNATURE = Signature(
    inputs=(Tensor(name="x", datatype="FP32", shape=("batch", 3)),),
    outputs=(Tensor(name="y", datatype="FP32", shape=("batch", 3)),),
)
WEIGHTS = np.array([1, 2, 3], np.float32)


def manifest(signature: Signature = SIGNATURE) -> Manifest:
    return models.manifest_of("rows", signature, {"fp32": b"x"})[0]


def add_weights() -> list[onnx.NodeProto]:
    return [helper.make_node("Add", ["x", "w"], ["y"])]


def graph(
    nodes: Sequence[onnx.NodeProto],
    constants: Mapping[str, NDArray[np.generic]] = {},
    *,
    tensors: Sequence[onnx.TensorProto] = (),
    sparse: Sequence[onnx.SparseTensorProto] = (),
    opsets: Mapping[str, int] = {"": 20},
    ir_version: int = 10,
) -> onnx.ModelProto:
    """`tensors` are initializers made by hand."""
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    made = helper.make_graph(
        nodes,
        "tests",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])],
        [*initializers, *tensors],
        sparse_initializer=sparse,
    )
    imports = [helper.make_opsetid(domain, version) for domain, version in opsets.items()]
    return helper.make_model(made, opset_imports=imports, ir_version=ir_version)


def of_one(size: str, **constants: NDArray[np.generic]) -> onnx.ModelProto:
    """x plus the largest element of what operator `size` makes of the constants."""
    nodes = [
        helper.make_node(size, list(constants), ["numbers"]),
        helper.make_node("Cast", ["numbers"], ["many"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMax", ["many"], ["most"], keepdims=0),
        helper.make_node("Add", ["x", "most"], ["y"]),
    ]
    return graph(nodes, constants)


def endless(*, only_for_positive: bool = False) -> onnx.ModelProto:
    """A loop of 10^15 turns around x; `only_for_positive` rows: none when no number is above zero, as in a first run on zeros."""
    scalar = helper.make_tensor_value_info("turn", TensorProto.INT64, [])
    flags = [helper.make_tensor_value_info(name, TensorProto.BOOL, []) for name in ("again", "once_more")]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("v", "twice")]
    nodes = [helper.make_node("Identity", ["again"], ["once_more"]), helper.make_node("Add", ["v", "v"], ["twice"])]
    body = helper.make_graph(nodes, "body", [scalar, flags[0], values[0]], [flags[1], values[1]])
    turns = np.array(10**15)
    if not only_for_positive:
        loop = helper.make_node("Loop", ["turns", "yes", "x"], ["y"], body=body)
        return graph([loop], {"turns": turns, "yes": np.array(True)})
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["most"], keepdims=0),
        helper.make_node("Greater", ["most", "zero"], ["is_positive"]),
        helper.make_node("Loop", ["turns", "is_positive", "x"], ["y"], body=body),
    ]
    return graph(nodes, {"turns": turns, "zero": np.zeros((), np.float32)})


def tensor(dims: Sequence[int], raw: bytes = b"", **external: str) -> onnx.TensorProto:
    """Initializer `w` that claims these dimensions, whatever it holds; `external` are its external data entries."""
    made = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=dims)
    if external:
        made.data_location = TensorProto.EXTERNAL
        made.external_data.extend(onnx.StringStringEntryProto(key=key, value=value) for key, value in external.items())
    else:
        made.raw_data = raw
    return made


def sparse(name: str, length: int) -> onnx.SparseTensorProto:
    """One element that is not zero, of so many."""
    values = numpy_helper.from_array(np.ones(1, np.float32), name)
    return helper.make_sparse_tensor(values, numpy_helper.from_array(np.zeros(1, np.int64)), [length])


def saved(model: onnx.ModelProto, folder: Path) -> Path:
    path = folder / "fp32.onnx"
    path.write_bytes(model.SerializeToString())
    return path

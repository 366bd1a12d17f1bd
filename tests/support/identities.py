"""Models that give back what they get: one input and one output of every datatype, and small ones for single rules."""

import msgspec
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from gateway.contract.manifest import Signature, Tensor
from gateway.contract.words import Datatype
from gateway.objectstore.protocol import ObjectStore
from gateway.runtime.tensors import DTYPES
from tests.support import models

EVERY: tuple[Datatype, ...] = tuple(DTYPES)
_ONNX = {
    "BOOL": onnx.TensorProto.BOOL, "BYTES": onnx.TensorProto.STRING, "FP16": onnx.TensorProto.FLOAT16,
    "FP32": onnx.TensorProto.FLOAT, "FP64": onnx.TensorProto.DOUBLE,
    **{f"{kind}{bits}": getattr(onnx.TensorProto, f"{kind}{bits}") for kind in ("INT", "UINT") for bits in (8, 16, 32, 64)},
}  # fmt: skip


def signature(shapes: dict[str, tuple[Datatype, tuple[int | str, ...]]]) -> Signature:
    """Inputs by name, with datatype and shape after the rows; each has an output whose name ends in `_out`."""
    tensors = [Tensor(name, datatype, ("batch", *shape)) for name, (datatype, shape) in shapes.items()]
    return Signature(tuple(tensors), tuple(Tensor(f"{t.name}_out", t.datatype, t.shape) for t in tensors))


EVERY_SIGNATURE = signature({datatype.lower(): (datatype, (3,)) for datatype in EVERY})
TEXT_SIGNATURE = signature({"text": ("BYTES", (1,))})
OPEN_SIGNATURE = signature({"numbers": ("FP32", ("length", 2))})
IMAGE_SIGNATURE = signature({"pixels": ("FP32", (3, 96, 96))})


async def publish(store: ObjectStore, name: str, declared: Signature, labels: tuple[str, ...] = ()) -> None:
    """A graph of Identity nodes."""
    sides = [
        [helper.make_tensor_value_info(t.name, _ONNX[t.datatype], list(t.shape)) for t in side]
        for side in (declared.inputs, declared.outputs)
    ]
    nodes = [helper.make_node("Identity", [t.name], [f"{t.name}_out"]) for t in declared.inputs]
    graph = helper.make_graph(nodes, name, *sides)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", models.OPSET)], ir_version=10)
    manifest, contents = models.manifest_of(name, declared, {"fp32": model.SerializeToString()})
    await models.publish_files(store, msgspec.structs.replace(manifest, labels=labels), contents)


def values(datatype: Datatype, rows: int = 2, width: int = 3) -> NDArray[np.generic]:
    """Two rows that reach the ends of the datatype."""
    dtype = DTYPES[datatype]
    if datatype == "BYTES":
        texts = ["", "plain", "später", "日本", "a" * 300, "\N{GRINNING FACE}"]
        return np.array(texts[: rows * width], np.object_).reshape(rows, width)
    if dtype.kind == "b":
        return np.array([True, False, True, False, False, True]).reshape(rows, width)
    limits = np.finfo(dtype) if dtype.kind == "f" else np.iinfo(dtype)  # type: ignore[type-var]
    return np.array([limits.min, limits.max, 0, 1, 2, 3], dtype).reshape(rows, width)

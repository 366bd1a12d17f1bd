"""Weights stored as fp16 and widened when the graph is loaded: half the file, the same fp32 arithmetic, no speed on a CPU.

Not onnxruntime's `convert_float_to_float16`, which makes activations fp16 too: a caller's large number would overflow at 65,504,
and on a CPU each operator converts back and forth. The graph must be loaded with optimization on, which folds the casts away.
"""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from trainers.arrays import Array
from trainers.quantize import weights

WEIGHTS_MIN = 4096
"""Elements: what a smaller tensor saves is no more than the node that widens it costs to load."""

LARGEST = float(np.finfo(np.float16).max)


def rewrite(graph: bytes) -> bytes | None:
    """The graph with its large fp32 constants as fp16; None when it has none. A tensor with a larger value than fp16 has stays."""
    model = onnx.load_from_string(graph)
    inputs = {value.name for value in model.graph.input}
    halved: dict[str, Array] = {}
    for tensor in model.graph.initializer:
        if tensor.name not in inputs and tensor.data_type == TensorProto.FLOAT and np.prod(tensor.dims) >= WEIGHTS_MIN:
            values = numpy_helper.to_array(tensor)
            if np.isfinite(values).all() and np.abs(values).max() <= LARGEST:
                halved[tensor.name] = values.astype(np.float16)
    if not halved:
        return None
    kept = [tensor for tensor in model.graph.initializer if tensor.name not in halved]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    nodes = [
        helper.make_node("Cast", [f"halves/{name}"], [name], name=f"halves/{name}/widened", to=TensorProto.FLOAT)
        for name in halved
    ]
    added = {f"halves/{name}": values for name, values in halved.items()}
    weights.replace(model.graph, [*nodes, *model.graph.node], added)
    return bytes(model.SerializeToString(deterministic=True))

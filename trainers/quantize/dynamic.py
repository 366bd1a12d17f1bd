"""onnxruntime's own dynamic int8: one activation scale for the whole batch, measured at run time.

An answer therefore depends on its batch mates (onnxruntime #10111: 4 to 5 % of a text classifier's labels flipped between batches
of 1 and 16), so it is offered only to targets that run every row alone. Never for Conv: ConvInteger took 6 to 9 times as long as
fp32.
"""

import tempfile
from collections.abc import Collection
from pathlib import Path

import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic

from trainers.quantize import weights
from trainers.quantize.quiet import quiet

_OF_GEMM = "_MatMul"
"""What onnxruntime adds to the name of a Gemm when it splits it."""


def rewrite(graph: bytes, *, reduce_range: bool = True, skip: Collection[str] = ()) -> bytes | None:
    """The graph with its large constant multiplications in int8, one weight scale per column; None when it has none.

    One scale for a whole matrix is onnxruntime's default and as fast, and lost needlessly (cosine .964 instead of .994).
    """
    model = weights.named(onnx.load_from_string(graph))
    constants = weights.Constants(model.graph)
    found = {node.name for node in model.graph.node if weights.matrix(node, constants) is not None}
    if not found - set(skip):
        return None
    others = {node.name for node in model.graph.node if node.op_type in weights.MULTIPLICATIONS} - found
    kept = [name + ending for name in sorted({*skip, *others} - {""}) for ending in ("", _OF_GEMM)]
    with tempfile.TemporaryDirectory() as folder, quiet():
        path = Path(folder) / "quantized.onnx"
        quantize_dynamic(
            model,
            str(path),
            op_types_to_quantize=["MatMul", "Gemm"],
            nodes_to_exclude=kept,
            per_channel=True,
            reduce_range=reduce_range,
            weight_type=QuantType.QInt8,
        )
        return path.read_bytes()

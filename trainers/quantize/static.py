"""int8 with activation scales fixed beforehand, from validation rows: onnxruntime's static QDQ, in two recipes.

`multiplications` touches MatMul and Gemm by a constant only; `convolutions` everything that a network with Conv is made of.
Batch-invariant, since nothing is measured at run time; a value beyond those seen in calibration is clipped, which the gates of
`trainers.evaluate` judge. Never quantized: what leaves a multiplication (logits moved by up to 3.2 for no speed), and additions
in front of a Softmax, where the mask of an attention would decide the scale, or be rounded away.
"""

import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal

import onnx
from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

from trainers.arrays import Array
from trainers.quantize import calibration, weights
from trainers.quantize.quiet import quiet

Method = Literal["MinMax", "Percentile", "Entropy"]
METHODS: tuple[Method, ...] = ("MinMax", "Percentile", "Entropy")

HISTOGRAM_ROWS = 256
"""The histogram calibrators hold every activation of every row in memory at once."""

FOLLOWING = ("Add", "Mul", "Relu", "Clip", "LeakyRelu", "MaxPool", "AveragePool", "GlobalAveragePool", "Concat", "Pad")
RESHAPING = ("Flatten", "Reshape", "Squeeze", "Unsqueeze", "Transpose")
_LOOKED_THROUGH = frozenset({*RESHAPING, "Identity", "Where", "Cast"})


def multiplications(
    graph: bytes,
    rows: Mapping[str, Array],
    *,
    reduce_range: bool = True,
    skip: Collection[str] = (),
    ranges: Path | None = None,
) -> bytes | None:
    """The graph with its large constant multiplications in int8; None when it has none.

    `reduce_range` keeps 7 bits of a weight, for the reason given in `rowwise`. `skip` names outputs of nodes that stay fp32. The
    file `ranges` keeps what calibration found, or holds it already.
    """
    model = weights.named(onnx.load_from_string(graph))
    constants = weights.Constants(model.graph)
    found = [node.name for node in model.graph.node if weights.matrix(node, constants) is not None]
    wanted = [name for name in found if name not in skip]
    if not wanted:
        return None
    return _quantized(
        model,
        calibration.batches(rows),
        op_types_to_quantize=["MatMul", "Gemm"],
        nodes_to_quantize=wanted,
        per_channel=True,
        reduce_range=reduce_range,
        calibration_cache_path=ranges,
        extra_options={"OpTypesToExcludeOutputQuantization": ["MatMul", "Gemm"]},
    )


def convolutions(
    graph: bytes,
    rows: Mapping[str, Array],
    *,
    per_channel: bool = True,
    method: Method = "MinMax",
    reduce_range: bool = True,
    skip: Collection[str] = (),
    ranges: Path | None = None,
) -> bytes | None:
    """The graph with its convolutions, multiplications and what lies between them in int8; None when it has no Conv."""
    model = weights.named(onnx.load_from_string(graph))
    if not any(node.op_type == "Conv" for node in model.graph.node):
        return None
    feeds = (
        calibration.batches(rows)
        if method == "MinMax"
        else calibration.batches(rows, rows_max=HISTOGRAM_ROWS, one_shape=True)
    )
    return _quantized(
        model,
        feeds,
        op_types_to_quantize=["Conv", "MatMul", "Gemm", *FOLLOWING, *RESHAPING],
        nodes_to_exclude=sorted({*skip, *_left_alone(model.graph), *before_softmax(model.graph)} - {""}),
        per_channel=per_channel,
        reduce_range=reduce_range,
        calibrate_method=CalibrationMethod[method],
        calibration_cache_path=ranges,
        extra_options={"OpTypesToExcludeOutputQuantization": ["MatMul", "Gemm"]},
    )


def names(graph: bytes) -> tuple[str, ...]:
    """The outputs of the nodes that carry weights, for `skip`."""
    model = onnx.load_from_string(graph)
    constants = weights.Constants(model.graph)
    return tuple(
        node.output[0]
        for node in model.graph.node
        if node.op_type == "Conv" or weights.matrix(node, constants) is not None
    )


def _left_alone(graph: onnx.GraphProto) -> set[str]:
    """Small multiplications, and those of two activations: onnxruntime 1.32 ignores `MatMulConstBOnly` when it writes QDQ."""
    constants = weights.Constants(graph)
    found = {node.output[0] for node in graph.node if node.op_type in weights.MULTIPLICATIONS}
    return found - {node.output[0] for node in graph.node if weights.matrix(node, constants) is not None}


def before_softmax(graph: onnx.GraphProto) -> set[str]:
    """Outputs of the additions and multiplications whose result is what a Softmax is taken of, through any reshaping."""
    made_by = {name: node for node in graph.node for name in node.output}
    waiting = [name for node in graph.node if node.op_type in {"Softmax", "LogSoftmax"} for name in node.input]
    found: set[str] = set()
    while waiting:
        node = made_by.get(waiting.pop())
        if node is None or node.output[0] in found:
            continue
        if node.op_type in {"Add", "Mul", "Div", "Sub", *_LOOKED_THROUGH}:
            found.add(node.output[0])
            waiting.extend(node.input)
    return found


def _quantized(model: onnx.ModelProto, feeds: tuple[calibration.Feed, ...], **options: Any) -> bytes:
    """`options` as onnxruntime calls them."""
    with tempfile.TemporaryDirectory() as folder, quiet():
        path = Path(folder) / "quantized.onnx"
        quantize_static(
            model,
            str(path),
            calibration.Reader(feeds),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            **options,
        )
        return path.read_bytes()

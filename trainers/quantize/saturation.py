"""How often a CPU without VNNI would compute something else: pairs of products that do not fit into 16 bits, as a rate.

AVX2 and plain AVX-512 multiply unsigned by signed bytes and add neighbours in 16 bits with saturation (onnxruntime #14642, #5849);
the same file then answers differently there. Counted in numpy on real activations, so any machine can tell. Not a proof for other
rows: a rate of zero says none was seen in this sample.
"""

import math
from collections.abc import Iterator, Mapping

import msgspec
import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from trainers.arrays import Array
from trainers.quantize import calibration, weights

LOWEST, HIGHEST = -(2**15), 2**15 - 1
ROWS = 64
PAIRS_MAX = 20_000_000
"""Sums looked at per multiplication: under half a second each. Rows are taken evenly from all there are."""


class Saturation(msgspec.Struct, frozen=True):
    """Sums looked at, and how many of them 16 bits cannot hold, by the output of the multiplication."""

    pairs: int
    saturated: dict[str, int]

    @property
    def rate(self) -> float:
        return sum(self.saturated.values()) / self.pairs if self.pairs else 0.0


class _Product(msgspec.Struct, frozen=True):
    """A multiplication of bytes: the tensor that holds the unsigned ones, and the signed [inputs, outputs] matrix or kernel."""

    node: onnx.NodeProto
    activation: str
    matrix: Array


def measure(graph: bytes, rows: Mapping[str, Array]) -> Saturation:
    """Of a candidate as its recipe made it: before onnxruntime fuses the quantization away."""
    model = onnx.load_from_string(graph)
    products = list(_products(model.graph))
    saturated: dict[str, int] = {}
    pairs = 0
    if products:
        feed = calibration.batches(rows, rows_max=ROWS, one_shape=True)[0]
        for product, values in zip(products, _activations(model, products, feed), strict=True):
            counted, over = _count(product, values)
            pairs += counted
            saturated[product.node.output[0]] = over
    return Saturation(pairs=pairs, saturated=saturated)


def _products(graph: onnx.GraphProto) -> Iterator[_Product]:
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    made_by = {name: node for node in graph.node for name in node.output}
    for node in graph.node:
        if node.op_type == "MatMulInteger":
            activation, constant = node.input[0], node.input[1]
        elif node.op_type in {"MatMul", "Gemm", "Conv"}:
            sources = [made_by.get(name) for name in node.input[:2]]
            if any(source is None or source.op_type != "DequantizeLinear" for source in sources):
                continue
            activation, constant = (source.input[0] for source in sources if source is not None)
        else:
            continue
        tensor = tensors.get(constant)
        if tensor is not None and tensor.data_type == TensorProto.INT8 and activation not in tensors:
            matrix = numpy_helper.to_array(tensor)
            yield _Product(node, activation, matrix.T if weights.attributes_of(node).get("transB", 0) else matrix)


def _activations(model: onnx.ModelProto, products: list[_Product], feed: calibration.Feed) -> list[Array]:
    """The unsigned bytes that reach each multiplication."""
    names = list(dict.fromkeys(product.activation for product in products))
    probed = onnx.ModelProto()
    probed.CopyFrom(model)
    del probed.graph.output[:]
    probed.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.UINT8, None) for name in names)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(probed.SerializeToString(), options, providers=["CPUExecutionProvider"])
    values = dict(zip(names, session.run(names, feed), strict=True))
    return [values[product.activation] for product in products]


def _count(product: _Product, values: Array) -> tuple[int, int]:
    """Sums looked at and those beyond 16 bits."""
    if product.node.op_type != "Conv":
        return _over(values.reshape(-1, values.shape[-1]), product.matrix)
    attributes = weights.attributes_of(product.node)
    groups = attributes.get("group", 1)
    assert isinstance(groups, int)
    counted = over = 0
    for own, kernel in zip(np.split(values, groups, axis=1), np.split(product.matrix, groups, axis=0), strict=True):
        matrix = np.moveaxis(kernel, 1, -1).reshape(len(kernel), -1).T
        pairs, saturated = _over(_patches(own, kernel, attributes), matrix)
        counted += pairs
        over += saturated
    return counted, over


def _patches(values: Array, kernel: Array, attributes: Mapping[str, object]) -> Array:
    """What the kernel sees at each place, one row per place, channels last as onnxruntime runs it. Padding is left out."""
    axes = tuple(range(2, values.ndim))
    shape = kernel.shape[2:]
    dilations = tuple(_integers(attributes.get("dilations"), len(axes)))
    spans = tuple(1 + (size - 1) * step for size, step in zip(shape, dilations, strict=True))
    if any(span > values.shape[axis] for span, axis in zip(spans, axes, strict=True)):
        return np.zeros((0, math.prod(kernel.shape[1:])), np.uint8)
    windows = np.lib.stride_tricks.sliding_window_view(values, spans, axis=axes)
    strides = _integers(attributes.get("strides"), len(axes))
    picked = (slice(None), slice(None), *(slice(None, None, step) for step in strides))
    windows = windows[(*picked, *(slice(None, None, step) for step in dilations))]
    windows = np.moveaxis(windows, 1, -1)
    return windows.reshape(-1, math.prod(kernel.shape[1:]))


def _integers(given: object, count: int) -> list[int]:
    return [int(each) for each in given] if isinstance(given, list | tuple) else [1] * count


def _over(rows: Array, matrix: Array) -> tuple[int, int]:
    """Neighbours along the inputs: `rows` [rows, inputs] of unsigned, `matrix` [inputs, outputs] of signed bytes."""
    inputs, outputs = matrix.shape
    halves = -(-inputs // 2)
    wanted = max(1, PAIRS_MAX // max(1, halves * outputs))
    step = max(1, len(rows) // wanted)
    own = rows[::step][:wanted].astype(np.int32)
    padded = np.pad(own, ((0, 0), (0, inputs % 2)))
    weighed = np.pad(matrix.astype(np.int32), ((0, inputs % 2), (0, 0)))
    over = 0
    for row in padded:
        sums = row[0::2, None] * weighed[0::2] + row[1::2, None] * weighed[1::2]
        over += int(np.count_nonzero((sums > HIGHEST) | (sums < LOWEST)))
    return len(own) * halves * outputs, over

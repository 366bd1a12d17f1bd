"""An ONNX text encoder with the shape of all-MiniLM-L6-v2 (6 layers, 384 wide, 12 heads, 30,522 words) and random weights.

What it answers is noise; how long it takes, how it batches and what it holds in memory are MiniLM's. `heads` must divide `width`.
"""

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET = 20


def encoder_graph(
    *, layers: int = 6, width: int = 384, heads: int = 12, inner: int = 1536, words: int = 30_522, seed: int = 0
) -> bytes:
    """`input_ids`, `attention_mask` INT64 [batch, tokens] to `embedding` FP32 [batch, width], mean-pooled and normalized."""
    return _Graph(np.random.default_rng(seed), width, heads, inner).encoder(layers, words)


class _Graph:
    """Nodes and constants as they are added."""

    def __init__(self, rng: np.random.Generator, width: int, heads: int, inner: int) -> None:
        self._rng, self._width, self._heads, self._inner = rng, width, heads, inner
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[TensorProto] = []

    def encoder(self, layers: int, words: int) -> bytes:
        hidden = self._op("Gather", self._weights(words, self._width), "input_ids")
        hidden = self._norm(hidden)
        mask = self._op("Cast", "attention_mask", to=TensorProto.FLOAT)
        barred = self._op("Mul", self._op("Sub", self._constant(np.float32(1)), mask), self._constant(np.float32(-1e4)))
        barred = self._op("Unsqueeze", barred, self._constant(np.array([1, 2])))
        for _ in range(layers):
            hidden = self._norm(self._op("Add", hidden, self._attention(hidden, barred)))
            hidden = self._norm(self._op("Add", hidden, self._feed_forward(hidden)))
        weight = self._op("Unsqueeze", mask, self._constant(np.array([2])))
        total = self._op("ReduceSum", self._op("Mul", hidden, weight), self._constant(np.array([1])), keepdims=0)
        pooled = self._op("Div", total, self._op("ReduceSum", weight, self._constant(np.array([1])), keepdims=0))
        self._nodes.append(helper.make_node("LpNormalization", [pooled], ["embedding"], axis=1))
        inputs = [
            helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"])
            for name in ("input_ids", "attention_mask")
        ]
        outputs = [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", self._width])]
        graph = helper.make_graph(self._nodes, "encoder", inputs, outputs, self._constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
        onnx.checker.check_model(model)
        return bytes(model.SerializeToString())

    def _attention(self, hidden: str, barred: str) -> str:
        split = self._constant(np.array([0, 0, self._heads, self._width // self._heads]))
        query, key, value = (
            self._op("Transpose", self._op("Reshape", self._linear(hidden, self._width, self._width), split), perm=perm)
            for perm in ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3])
        )
        scale = self._constant(np.float32(np.sqrt(self._width // self._heads)))
        scores = self._op("Add", self._op("Div", self._op("MatMul", query, key), scale), barred)
        mixed = self._op("MatMul", self._op("Softmax", scores, axis=-1), value)
        merged = self._op("Transpose", mixed, perm=[0, 2, 1, 3])
        flat = self._op("Reshape", merged, self._constant(np.array([0, 0, self._width])))
        return self._linear(flat, self._width, self._width)

    def _feed_forward(self, hidden: str) -> str:
        return self._linear(self._op("Gelu", self._linear(hidden, self._width, self._inner)), self._inner, self._width)

    def _linear(self, x: str, inputs: int, outputs: int) -> str:
        bias = self._constant(self._rng.normal(size=outputs).astype(np.float32) * np.float32(0.02))
        return self._op("Add", self._op("MatMul", x, self._weights(inputs, outputs)), bias)

    def _norm(self, x: str) -> str:
        ones, zeros = np.ones(self._width, np.float32), np.zeros(self._width, np.float32)
        return self._op("LayerNormalization", x, self._constant(ones), self._constant(zeros), axis=-1)

    def _weights(self, rows: int, columns: int) -> str:
        return self._constant(self._rng.normal(size=(rows, columns)).astype(np.float32) / np.float32(np.sqrt(rows)))

    def _constant(self, value: NDArray[Any] | np.float32) -> str:
        name = f"c{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def _op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"n{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

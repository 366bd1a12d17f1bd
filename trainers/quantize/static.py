"""int8 multiplication with activation scales fixed beforehand, from validation rows: onnxruntime's static QDQ for MatMul and Gemm.

Outputs stay float: quantizing them too moves probabilities by much more for no speed. Batch-invariant, since nothing is measured at
run time; a value beyond those seen in calibration is clipped, which the gates of `trainers.evaluate` judge. Weights keep 7 bits,
for the reason given in `rowwise`.
"""

import contextlib
import logging
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from trainers.arrays import Array

BATCH_ROWS = 64
BATCHES_MAX = 32
"""2048 rows: the range of an activation is found long before."""


def rewrite(graph: bytes, calibration: Mapping[str, Array]) -> bytes | None:
    """The graph with its constant multiplications in int8; None when it has none."""
    model = onnx.load_from_string(graph)
    constants = {tensor.name for tensor in model.graph.initializer}
    if not any(node.op_type in {"MatMul", "Gemm"} and node.input[1] in constants for node in model.graph.node):
        return None
    with tempfile.TemporaryDirectory() as folder, _quiet():
        quantized = Path(folder) / "quantized.onnx"
        quantize_static(
            model,
            str(quantized),
            _Batches(calibration),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["MatMul", "Gemm"],
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=True,
            extra_options={"MatMulConstBOnly": True, "OpTypesToExcludeOutputQuantization": ["MatMul", "Gemm"]},
        )
        return quantized.read_bytes()


class _Batches(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no annotations
    """Whole batches only: its calibrators fail on a smaller last one (onnxruntime #18792)."""

    def __init__(self, rows: Mapping[str, Array]) -> None:
        whole = len(next(iter(rows.values()))) // BATCH_ROWS
        starts = range(0, min(whole, BATCHES_MAX) * BATCH_ROWS, BATCH_ROWS)
        self._batches = iter([{name: values[i : i + BATCH_ROWS] for name, values in rows.items()} for i in starts])

    def get_next(self) -> dict[str, Array] | None:
        return next(self._batches, None)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """It recommends a pre-processing that fails on string inputs, through the root logger."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)

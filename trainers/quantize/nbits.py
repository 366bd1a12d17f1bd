"""Weights in blocks of 8 or 4 bits, widened as they are used (onnxruntime's MatMulNBits): for decoders, one token at a time.

Encoders gain nothing by it (8 bits took as long as fp32, 4 bits longer), so it is offered only when a job asks for it. Activations
stay fp32, hence no answer depends on another.
"""

import logging
from typing import Any, Literal

import onnx

from trainers.quantize import weights
from trainers.quantize.quiet import quiet

BLOCK_SIZE = 32
ACCURACY_LEVEL = 4
"""Products of int8: the only level with fast kernels on a CPU."""


def rewrite(graph: bytes, *, bits: Literal[8, 4]) -> bytes | None:
    """The graph with the constants of its MatMuls in blocks; None when it has no MatMul by a constant."""
    model = weights.named(onnx.load_from_string(graph))
    constants = weights.Constants(model.graph)
    found = [
        node
        for node in model.graph.node
        if node.op_type == "MatMul" and weights.matrix(node, constants, weights_min=BLOCK_SIZE) is not None
    ]
    if not found:
        return None
    with quiet():
        quantizer = _quantizer()(
            model, bits=bits, block_size=BLOCK_SIZE, is_symmetric=True, accuracy_level=ACCURACY_LEVEL
        )
        quantizer.process()
    return bytes(quantizer.model.model.SerializeToString(deterministic=True))


def _quantizer() -> Any:  # Any: onnxruntime has no annotations
    """Imported when asked for: the import configures the root logger, which would print every library's notes from then on."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    root.handlers[:] = handlers
    root.setLevel(level)
    return MatMulNBitsQuantizer

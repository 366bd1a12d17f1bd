"""All graphs worth measuring: the exported one and what each int8 recipe makes of it, optimized once for every later load.

Judges nothing: `trainers.evaluate` measures them and chooses. A recipe is a function from graph to graph; to offer another one,
add it to `offer`.
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path

import onnx
import onnxruntime as ort

from gateway.contract.manifest import optimizer
from trainers.arrays import Array
from trainers.errors import ExportError
from trainers.job import Candidate
from trainers.quantize import rowwise, static


def offer(graph: bytes, calibration: Mapping[str, Array]) -> tuple[Candidate, ...]:
    """`fp32` first. A recipe that finds nothing to quantize adds none. Raises `ExportError` when a rewritten graph is invalid."""
    rewritten = {
        "fp32": graph,
        "int8-rowwise": rowwise.rewrite(graph),
        "int8-static": static.rewrite(graph, calibration),
    }
    return tuple(_candidate(name, optimize(made, name)) for name, made in rewritten.items() if made)


def _candidate(name: str, graph: bytes) -> Candidate:
    return Candidate(id=name, recipe=name, graph=graph, optimized_by=optimized_by(graph))


def optimized_by(graph: bytes) -> str:
    """Whom the gateway may trust to have optimized this graph; empty when it must do so itself.

    Convolutions are the ones that gain from the levels above EXTENDED, by a memory layout of the machine that serves: without it a
    small CNN took 1.65 times as long (infra/decisions/0004).
    """
    has_convolution = any("Conv" in node.op_type for node in onnx.load_from_string(graph).graph.node)
    return "" if has_convolution else optimizer(ort.__version__)


def optimize(graph: bytes, name: str) -> bytes:
    """Check the graph and save what onnxruntime makes of it, so that no container spends its start on this again.

    EXTENDED, not ALL: the latter bakes in a memory layout of this machine. Figures are in infra/decisions/0004.
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

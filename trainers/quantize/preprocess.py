"""A graph as quantizers like it: shapes known, BatchNormalization folded into Conv, constants folded. onnxruntime's own step.

It runs in a process and a folder of its own, because a failure leaves files behind where it runs (90 MB for a small text encoder)
and what it allocates stays. Whatever it cannot do, such as string inputs, leaves the graph as it was. `prepared` runs the module.
"""

import functools
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import onnx
from onnxruntime.quantization.shape_inference import quant_pre_process

from trainers.quantize.quiet import quiet

TIMEOUT_S = 300
"""A graph of 100 MB takes 5 s; past this the search goes on with the plain graph."""

_PLAIN, _PREPARED = "plain.onnx", "prepared.onnx"


@functools.lru_cache(maxsize=1)  # the search and its rescue prepare the same one
def prepared(graph: bytes) -> bytes:
    """The prepared graph, or `graph` itself where that fails or is not valid."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / _PLAIN).write_bytes(graph)
        command = [sys.executable, "-m", "trainers.quantize.preprocess"]
        env = os.environ | {"PYTHONPATH": os.pathsep.join(str(Path(path).resolve()) for path in sys.path if path)}
        env["PYTHONPATH"] += os.pathsep + str(Path(__file__).parents[2])
        try:
            subprocess.run(command, cwd=folder, env=env, capture_output=True, check=True, timeout=TIMEOUT_S)
            made = (Path(folder) / _PREPARED).read_bytes()
            onnx.checker.check_model(made)
        except (OSError, subprocess.SubprocessError, onnx.checker.ValidationError):
            return graph
    return made


def _prepare_here() -> None:
    """Symbolic shape inference fails on what torch exports of a transformer; without it the rest still helps."""
    with quiet():
        try:
            quant_pre_process(_PLAIN, _PREPARED)
        except Exception:  # it raises bare Exception
            quant_pre_process(_PLAIN, _PREPARED, skip_symbolic_shape=True)


if __name__ == "__main__":
    _prepare_here()

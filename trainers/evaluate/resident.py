"""How much memory a graph holds once it has run, measured in a process of its own where nothing else allocates.

Not what a run needs while it lasts: that is the gateway's arena, which all models share. Run as a module, by `measure`.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from gateway import allocator
from trainers.errors import ExportError
from trainers.evaluate import serving

Array = NDArray[Any]  # Any: string, integer and float arrays alike
RUNS = 3
TIMEOUT_S = 300
_GRAPH, _INPUTS = "graph.onnx", "inputs.npz"


def measure(graph: bytes, inputs: Mapping[str, Array], *, optimized_by: str = "") -> int:
    """Bytes that this graph adds to a process that has served another one, after runs of these rows."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / _GRAPH).write_bytes(graph)
        plain = {name: array.astype(str) if array.dtype == object else array for name, array in inputs.items()}
        np.savez(Path(folder) / _INPUTS, **plain)  # type: ignore[arg-type]  # its stub takes **kwds for its own flag
        command = [sys.executable, "-m", "trainers.evaluate.resident", folder, optimized_by]
        env = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}  # the very same packages
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
    if done.returncode:
        raise ExportError(f"the graph cannot be measured in a process of its own: {done.stderr.strip()[-300:]}")
    return int(json.loads(done.stdout))


def _measure_here(folder: Path, optimized_by: str) -> int:
    with np.load(folder / _INPUTS) as stored:
        inputs = {name: array.astype(object) if array.dtype.kind == "U" else array for name, array in stored.items()}
    first = _used(folder, inputs, optimized_by)  # what onnxruntime itself needs once is not this graph's
    del first
    before = _settled_bytes()
    again = _used(folder, inputs, optimized_by)
    after = _settled_bytes()
    del again
    return max(0, after - before)


def _used(folder: Path, inputs: Mapping[str, Array], optimized_by: str) -> ort.InferenceSession:
    """A session that has run. It has no arena, so what the runs needed has gone."""
    session = serving.open_session(folder / _GRAPH, optimized_by=optimized_by, has_arena=False)
    for _ in range(RUNS):
        session.run(None, dict(inputs))
    return session


def _settled_bytes() -> int:
    """Resident memory after malloc has returned what is free; files that are mapped do not count."""
    allocator.trim()
    pages = Path("/proc/self/statm").read_text().split()
    return (int(pages[1]) - int(pages[2])) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_measure_here(Path(sys.argv[1]), sys.argv[2])))

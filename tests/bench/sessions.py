"""`python -m tests.bench.sessions`: one session as onnxruntime makes it, without its arena, and as the gateway makes it.

Each row is a process of its own, since memory is what is compared: built, run at mixed batch sizes, timed, given back. The figures
of infra/decisions/0004 are from here.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from onnx import helper

from gateway.contract.manifest import Signature, Tensor
from gateway.runtime import memory
from gateway.runtime.session import OPTIMIZED_BY, Session
from tests.support import encoders, graphs, models
from trainers.quantize.candidates import optimize, optimized_by

ROWS = (1, 128, 3, 64, 17, 32, 8, 100, 1, 2, 50)
TIMED_ROWS = (1, 64)
LENGTHS = (128, 7, 64, 31)
BUILDS = 5
TIMED_S = 1.0
MODES = ("onnxruntime", "no arena", "gateway")
Inputs = dict[str, np.ndarray[Any, np.dtype[Any]]]


def main() -> None:
    print(
        f"{'model':<8} {'file MB':>8} {'session':<12} {'build ms':>9} {'saved ms':>9}"
        + "".join(f" {f'us at {rows}':>10}" for rows in TIMED_ROWS)
        + f" {'+MB run':>8} {'+MB trim':>8}"
    )
    with tempfile.TemporaryDirectory() as folder:
        for name, graph in graphs_by_name().items():
            path = Path(folder) / f"{name}.onnx"
            path.write_bytes(graph)
            saved = Path(folder) / f"{name}.saved.onnx"
            saved.write_bytes(optimize(graph, name))
            for mode in MODES:
                command = [sys.executable, "-m", "tests.bench.sessions", name, mode, str(path), str(saved)]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                figures = json.loads(done.stdout)
                print(
                    f"{name:<8} {len(graph) / 1e6:>8.2f} {mode:<12} {figures['build']:>9.2f} {figures['saved']:>9.2f}"
                    + "".join(f" {us:>10.1f}" for us in figures["us"])
                    + f" {figures['run']:>8.1f} {figures['trim']:>8.1f}"
                )


def graphs_by_name() -> dict[str, bytes]:
    return {
        "mlp": models.mlp_graph(),
        "columns": models.tiny_graph(),
        "cnn": _cnn(),
        "encoder": encoders.encoder_graph(layers=4, width=256, heads=8, inner=1024, words=4096),
    }


SIGNATURES = {
    "mlp": models.mlp_signature(),
    "columns": models.TINY_SIGNATURE,
    "cnn": Signature(
        inputs=(Tensor(name="image", datatype="FP32", shape=("batch", 3, 96, 96)),),
        outputs=(Tensor(name="scores", datatype="FP32", shape=("batch", 10)),),
    ),
    "encoder": Signature(
        inputs=(
            Tensor(name="input_ids", datatype="INT64", shape=("batch", "tokens")),
            Tensor(name="attention_mask", datatype="INT64", shape=("batch", "tokens")),
        ),
        outputs=(Tensor(name="embedding", datatype="FP32", shape=("batch", 256)),),
    ),
}


def one(name: str, mode: str, path: Path, saved: Path) -> dict[str, object]:
    """The figures of one row, in this process."""
    warm = _open("mlp", mode, _small(path.parent))  # what onnxruntime itself needs once
    warm(_inputs("mlp", 1, 1))
    memory.trim()
    before = _resident_mb()
    run = _open(name, mode, path)
    for rows in ROWS:
        for length in LENGTHS if name == "encoder" else (1,):
            run(_inputs(name, min(rows, 16) if name == "encoder" else rows, length))
    after = _resident_mb() - before
    times = [_median_us(run, _inputs(name, min(rows, 16) if name == "encoder" else rows, 64)) for rows in TIMED_ROWS]
    memory.trim()
    trimmed = _resident_mb() - before
    return {
        "build": _build_ms(name, mode, path, ""),
        "saved": _build_ms(name, mode, saved, optimized_by(saved.read_bytes())),
        "us": times,
        "run": after,
        "trim": trimmed,
    }


def _open(name: str, mode: str, path: Path, optimized: str = "") -> Any:  # Any: a function from inputs to outputs
    if mode == "gateway":
        return Session(path, graphs.manifest(SIGNATURES[name]), optimized_by=optimized).run
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.enable_cpu_mem_arena = mode != "no arena"
    if optimized == OPTIMIZED_BY:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda inputs: session.run(None, inputs)


def _small(folder: Path) -> Path:
    path = folder / "small.onnx"
    path.write_bytes(models.mlp_graph())
    return path


def _inputs(name: str, rows: int, length: int) -> Inputs:
    match name:
        case "mlp":
            return {"features": np.ones((rows, 32), np.float32)}
        case "columns":
            return {"categories": np.full((rows, 2), "AA", object), "numbers": np.ones((rows, 3), np.float32)}
        case "cnn":
            return {"image": np.ones((rows, 3, 96, 96), np.float32)}
        case _:
            ids = np.ones((rows, length), np.int64)
            return {"input_ids": ids, "attention_mask": ids}


def _median_us(run: Any, inputs: Inputs) -> float:
    samples = []
    deadline = time.perf_counter() + TIMED_S
    while time.perf_counter() < deadline or len(samples) < 5:
        began = time.perf_counter_ns()
        run(inputs)
        samples.append(time.perf_counter_ns() - began)
    return statistics.median(samples) / 1000


def _build_ms(name: str, mode: str, path: Path, optimized: str) -> float:
    samples = []
    for _ in range(BUILDS):
        began = time.perf_counter_ns()
        _open(name, mode, path, optimized)
        samples.append(time.perf_counter_ns() - began)
    return statistics.median(samples) / 1e6


def _resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6


def _cnn() -> bytes:
    """Four blocks of convolution, ReLU and pooling on 3x96x96, then a linear layer."""
    rng = np.random.default_rng(0)
    nodes, constants, at = [], {}, "image"
    for i, (inner, outer) in enumerate(((3, 16), (16, 32), (32, 64), (64, 64))):
        constants[f"w{i}"] = (rng.normal(size=(outer, inner, 3, 3)) / np.sqrt(9 * inner)).astype(np.float32)
        nodes += [
            helper.make_node("Conv", [at, f"w{i}"], [f"c{i}"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", [f"c{i}"], [f"r{i}"]),
            helper.make_node("MaxPool", [f"r{i}"], [f"p{i}"], kernel_shape=[2, 2], strides=[2, 2]),
        ]
        at = f"p{i}"
    constants["out"] = rng.normal(size=(64, 10)).astype(np.float32)
    nodes += [
        helper.make_node("GlobalAveragePool", [at], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "out"], ["scores"]),
    ]
    return models.graph_of(nodes, SIGNATURES["cnn"], constants)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.stdout.write(json.dumps(one(sys.argv[1], sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))))
    else:
        main()

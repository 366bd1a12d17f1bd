"""All graphs worth measuring: the exported one and what each recipe makes of it, optimized once for every later load.

Judges nothing: `trainers.evaluate` measures them and chooses. Which recipes fit a graph is decided here, by what it is made of and
what its target runs. To offer another one, add it to `recipes`.
"""

import tempfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import msgspec
import numpy as np
import onnx
import onnxruntime as ort

from gateway.contract.manifest import optimizer
from trainers.arrays import Array
from trainers.errors import ExportError
from trainers.job import Candidate
from trainers.quantize import calibration, preprocess, recipes, saturation, weights

REFERENCE = "fp32"
WEIGHTS_MIN = 1024
"""Fewer weights in all than this are multiplied in less time than it takes to quantize what they are multiplied by."""

HALVES_MIN = 262_144
"""Weights of 1 MB: below, the file is not what a load takes its time for."""

EXACT_FLAG = "avx512_vnni"
"""As in /proc/cpuinfo: with it x86 adds products of bytes in 32 bits. Desktops with avx_vnni only get the 7-bit sibling."""


UNOPTIMIZED = "w_fp16"
"""Stays as it was made: onnxruntime would fold the halves back into the file as fp32."""


class Skipped(msgspec.Struct, frozen=True):
    """A recipe that made no candidate, and why."""

    id: str
    reason: str


class Offer(msgspec.Struct, frozen=True):
    """`candidates` in the order worth trying, `fp32` first."""

    candidates: tuple[Candidate, ...]
    skipped: tuple[Skipped, ...] = ()


def offer(graph: bytes, rows: Mapping[str, Array], *, max_batch: int = 128, asked: Collection[str] = ()) -> Offer:
    """What to measure for a target that runs up to `max_batch` rows at once; `rows` are held-out ones, never test rows.

    `asked` names recipes that are offered on request only: `nbits8`, `nbits4`. A recipe that fails is skipped with its reason.
    Raises `ExportError` when the exported graph itself is invalid.
    """
    made = [
        Candidate(id=REFERENCE, recipe=REFERENCE, graph=optimize(graph, REFERENCE), optimized_by=optimized_by(graph))
    ]
    skipped: list[Skipped] = []
    model = onnx.load_from_string(graph)
    count = weights_of(model)
    if count < WEIGHTS_MIN:
        return Offer(tuple(made), (Skipped("int8", f"{count} weights in all are too few to gain anything"),))
    with tempfile.TemporaryDirectory() as folder:
        source = recipes.Source(preprocess.prepared(graph), rows, Path(folder))
        for plan in _plans(model, count, max_batch, asked):
            if plan.sibling and any(each.id == plan.sibling and not each.requires for each in made):
                skipped.append(Skipped(plan.id, f"{plan.sibling} answers alike on every CPU"))
                continue
            done = attempt(plan, source)
            if isinstance(done, Candidate):
                made.append(done)
            else:
                skipped.append(done)
    return Offer(tuple(made), tuple(skipped))


class Plan(msgspec.Struct, frozen=True):
    """A recipe with its arguments. `sibling` is the candidate that makes this one needless if it runs on every CPU."""

    id: str
    recipe: str
    args: dict[str, str | float | bool] = {}
    sibling: str = ""


def _plans(model: onnx.ModelProto, count: int, max_batch: int, asked: Collection[str]) -> Iterator[Plan]:
    if count >= HALVES_MIN:
        yield Plan("fp16-weights", "w_fp16")
    yield Plan("int8-gather", "gather_i8")
    if any(node.op_type == "Conv" for node in model.graph.node):
        for per_channel in (True, False):
            name = "int8-static" if per_channel else "int8-static-tensor"
            args: dict[str, str | float | bool] = {"per_channel": per_channel, "method": "MinMax"}
            yield Plan(f"{name}-full", "static_qdq", args | {"reduce_range": False})
            yield Plan(name, "static_qdq", args | {"reduce_range": True}, sibling=f"{name}-full")
    else:
        yield Plan("int8-rowwise", "rowwise_i8", {"reduce_range": True})
        yield Plan("int8-rowwise-full", "rowwise_i8", {"reduce_range": False})
        yield Plan("int8-static-full", "static_mm", {"reduce_range": False})
        yield Plan("int8-static", "static_mm", {"reduce_range": True}, sibling="int8-static-full")
        if max_batch == 1:
            yield Plan("int8-dynamic", "dyn_i8", {"reduce_range": True})
    for bits in (8, 4):
        if f"nbits{bits}" in asked:
            yield Plan(f"int{bits}-blocks", f"nbits{bits}")


def attempt(plan: Plan, source: recipes.Source, skip: Collection[str] = ()) -> Candidate | Skipped:
    """The plan's candidate, or why there is none: whatever one recipe cannot do, the others still can."""
    try:
        made = recipes.build(plan.recipe, source, plan.args, skip)
        if made is None:
            return Skipped(plan.id, "the graph has nothing that this recipe changes")
        saturated, notes = _saturated(plan, made, source)
        finished = made if plan.recipe == UNOPTIMIZED else optimize(made, plan.id)
    except Exception as error:  # onnx, onnxruntime and its quantizers raise whatever they like
        return Skipped(plan.id, f"{type(error).__name__}: {error}".partition("\n")[0][:500])
    return Candidate(
        id=plan.id,
        recipe=plan.recipe,
        graph=finished,
        optimized_by="" if plan.recipe == UNOPTIMIZED else optimized_by(finished),
        recipe_args=plan.args | _calibrated(plan, source),
        requires=(EXACT_FLAG,) if saturated else (),
        saturated=saturated,
        notes=notes,
    )


def _calibrated(plan: Plan, source: recipes.Source) -> dict[str, str]:
    return {"calibration_sha256": calibration.digest(source.rows)} if plan.recipe.startswith("static") else {}


def _saturated(plan: Plan, made: bytes, source: recipes.Source) -> tuple[float, str]:
    """Full-range weights whose products do not always fit into 16 bits are for CPUs that add in 32."""
    if plan.args.get("reduce_range", True):
        return 0.0, ""
    found = saturation.measure(made, source.rows)
    return found.rate, f"{found.rate:.1e} of {found.pairs:,} sums of two products do not fit into 16 bits"


def weights_of(model: onnx.ModelProto) -> int:
    """How many weights any int8 recipe could change."""
    constants = weights.Constants(model.graph)
    names = {node.input[1] for node in model.graph.node if node.op_type in {"MatMul", "Gemm", "Conv"}}
    names |= {node.input[0] for node in model.graph.node if node.op_type == "Gather"}
    found = [constants.floats(name) for name in names]
    return int(sum(np.size(value) for value in found if value is not None and value.ndim >= 2))


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

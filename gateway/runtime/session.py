"""One onnxruntime session: built from verified bytes on disk, checked against the manifest's signature, run by any thread.

`gateway.runtime.memory` bounds what it takes, `graphfile` looks at the file first, `failures` words what onnxruntime says. No
library of custom operators is ever loaded. How it is configured and why is measured in infra/decisions/0004.
"""

import platform
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import onnxruntime as ort

from gateway.contract.manifest import Manifest, Signature, Tensor, Variant, optimizer
from gateway.errors import DeadlineExceeded, InvalidInput, Overloaded, SettingsError, UnsupportedModel
from gateway.runtime import failures, graphfile, memory, poolclock
from gateway.runtime.tensors import DTYPES, ORT_TYPES, Tensors

ort.set_default_logger_severity(4)  # its warnings go to stderr unstructured; failures reach us as exceptions
ort.disable_telemetry_events()  # `gateway` turns it off before the first import; this is for a process that imported it earlier

OPTIMIZED_BY = optimizer(ort.__version__)
"""What a manifest says of a graph that this very version need not optimize again."""


class RunResult(msgspec.Struct, frozen=True):
    """Outputs by name, and what the run cost: CPU of all threads that worked on it and elapsed time, in nanoseconds."""

    outputs: Tensors
    cpu_ns: int
    run_ns: int


class Session:
    """A loaded graph. Runs may overlap, in any threads."""

    def __init__(
        self,
        path: Path,
        manifest: Manifest,
        *,
        optimized_by: str = "",
        threads: int = 1,
        run_bytes_max: int = 0,
        build_bytes_max: int = 0,
    ) -> None:
        """Blocks for the build: call it off the event loop. Raises `UnsupportedModel` saying what this host cannot do.

        `optimized_by` is the variant's. A run uses up to `threads` CPUs: the caller's thread and others of the session's own.
        `run_bytes_max`: see `memory.open_arena`; `build_bytes_max`: 0 means in proportion to the file.
        """
        graphfile.refuse_external_data(path, manifest.model)
        self._run_bytes_max = memory.open_arena(run_bytes_max)
        self.threads = threads
        self._model = manifest.model
        self._signature = manifest.signature
        self._outputs = [tensor.name for tensor in manifest.signature.outputs]
        options = _options(manifest.signature, is_optimized=optimized_by == OPTIMIZED_BY, threads=threads)
        limit = build_bytes_max or memory.build_bytes_max(path.stat().st_size)
        try:
            self._session, self._pool = _build(path, options, limit)
        except SettingsError:
            raise
        except Exception as error:  # onnxruntime raises classes of its own and bare RuntimeError alike
            raise UnsupportedModel(_refusal(manifest.model, path, error, limit)) from error
        _check_side(manifest.model, "input", self._session.get_inputs(), manifest.signature.inputs)
        _check_side(manifest.model, "output", self._session.get_outputs(), manifest.signature.outputs)

    def run(self, inputs: Tensors, stop: "Stop | None" = None) -> Tensors:
        """Run the graph in this thread. Raises `InvalidInput` when onnxruntime refuses the values, or when they need more memory
        than all runs may have; `Overloaded` when other runs hold it; `DeadlineExceeded` when it was stopped.
        """
        if self._pool is None:
            return self._run(inputs, stop)
        share = self._pool.enter()
        try:
            return self._run(inputs, stop)
        finally:
            self._pool.leave(share)

    def measured_run(self, inputs: Tensors, stop: "Stop | None" = None) -> RunResult:
        """The same, with what it cost."""
        began_ns, cpu_ns = time.perf_counter_ns(), poolclock.thread_time_ns()
        outputs = self.run(inputs, stop)
        return RunResult(outputs, poolclock.thread_time_ns() - cpu_ns, time.perf_counter_ns() - began_ns)

    def warm_up(self, rows: int = 1, *, seconds_max: float = 60.0, stop: "Stop | None" = None) -> RunResult | None:
        """The first run, which is slower than all others, on zeros; None when the graph refuses such values, as it may.

        Raises `UnsupportedModel` when even this takes longer, or more memory than runs may have.
        """
        zeros = {tensor.name: _zeros(tensor, rows) for tensor in self._signature.inputs}
        try:
            return self.bounded_run(zeros, seconds_max, stop)
        except DeadlineExceeded as late:
            raise UnsupportedModel(
                f"model '{self._model}': a run of {rows} rows takes longer than {seconds_max:g} s (runtime.first_run_s)"
            ) from late
        except InvalidInput as refusal:
            if refusal.__cause__ is not None and failures.is_out_of_memory(refusal.__cause__):
                raise UnsupportedModel(f"model '{self._model}': a run of {rows} rows fails: {refusal}") from refusal
            return None

    def bounded_run(self, inputs: Tensors, seconds_max: float, stop: "Stop | None" = None) -> RunResult:
        """The same as `measured_run`, stopped when it takes longer: then it raises `DeadlineExceeded`.

        `stop` is this run's alone.
        """
        stop = stop or Stop()
        timer = threading.Timer(seconds_max, stop)
        timer.start()
        try:
            return self.measured_run(inputs, stop)
        finally:
            timer.cancel()

    def _run(self, inputs: Tensors, stop: "Stop | None") -> Tensors:
        _running.append(self)
        try:
            return self._outputs_of(inputs, stop)
        except Exception as error:  # as in the build
            if failures.is_out_of_memory(error):
                return self._run_again(inputs, stop)
            raise _refused(error, stop) from error
        finally:
            _running.pop()

    def _outputs_of(self, inputs: Tensors, stop: "Stop | None") -> Tensors:
        outputs = self._session.run(self._outputs, inputs, stop and stop.options)
        return dict(zip(self._outputs, outputs, strict=True))

    def _run_again(self, inputs: Tensors, stop: "Stop | None") -> Tensors:
        """After memory ran out: the arena's free regions may be too small each, or a build may have limited all of us meanwhile."""
        memory.settle()
        try:
            return self._outputs_of(inputs, stop)
        except Exception as error:  # as in the build
            if not failures.is_out_of_memory(error):
                raise _refused(error, stop) from error
            limit = f"runtime.run_bytes_max is {self._run_bytes_max}"
            if len(_running) > 1:
                raise Overloaded(f"other runs hold the memory that this one needs ({limit})") from error
            raise InvalidInput(f"running these rows takes more memory than all runs may have ({limit})") from error


class Stop:
    """Called from any thread, it ends the runs it was given to and every later one: between two operators, or turns of a loop."""

    def __init__(self) -> None:
        self.options = ort.RunOptions()
        self.is_called = False

    def __call__(self) -> None:
        self.is_called = True
        self.options.terminate = True


def _build(
    path: Path, options: ort.SessionOptions, limit: int
) -> tuple[ort.InferenceSession, poolclock.PoolClock | None]:
    """Twice when memory runs out: the first time may be the fault of runs, which grow the arena under the same limit."""
    try:
        return _build_once(path, options, limit)
    except Exception as error:  # as above
        if not failures.is_out_of_memory(error):
            raise
    memory.trim()
    return _build_once(path, options, limit)


def _build_once(
    path: Path, options: ort.SessionOptions, limit: int
) -> tuple[ort.InferenceSession, poolclock.PoolClock | None]:
    with memory.build_limit(limit), poolclock.starting(options.intra_op_num_threads - 1) as pools:
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"], enable_fallback=0)
    return session, pools[0] if pools else None


def _refused(error: Exception, stop: Stop | None) -> InvalidInput | DeadlineExceeded:
    if stop is not None and stop.options.terminate:
        return DeadlineExceeded("the run was stopped: it took too long")
    return InvalidInput(f"the model refuses this input: {failures.reason(error, has_values=True)}")


_running: list[Session] = []
"""One entry per run in progress; append and pop are atomic. Only its length is used."""


def pick_variant(manifest: Manifest, cpu_flags: frozenset[str]) -> Variant:
    """The variant the manifest says to serve, or the first whose requirements this CPU meets and that passed its gates."""
    failed = {gate.variant for gate in manifest.gates if not gate.passed}
    offered = [manifest.variant(manifest.serve), *(v for v in manifest.variants if v.id not in failed)]
    for variant in offered:
        if set(variant.requires) <= cpu_flags:
            return variant
    needs = "; ".join(dict.fromkeys(f"{variant.id} needs {', '.join(variant.requires)}" for variant in offered))
    raise UnsupportedModel(f"model '{manifest.model}': no variant runs on this {platform.machine()} CPU: {needs}")


def cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """The instruction sets this host reports; the flag decides, never the CPU's family name."""
    if not cpuinfo.is_file():
        return frozenset()
    lines = (line for line in cpuinfo.read_text().splitlines() if line.startswith(("flags", "Features")))
    return frozenset(next(lines, ":").split(":", 1)[1].split())


def _options(signature: Signature, *, is_optimized: bool, threads: int) -> ort.SessionOptions:
    """Keep equal to `trainers.evaluate.serving`, which measures what this serves."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # spinning would bill idle as inference
    options.add_session_config_entry("session.load_model_format", "ONNX")  # whatever the file is called
    options.add_session_config_entry("session.use_env_allocators", "1")
    options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")
    # A plan takes a run's memory in one block: a fifth faster for small graphs, a third more memory where lengths vary.
    options.enable_mem_pattern = not signature.has_length
    if is_optimized:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return options


def _check_side(model: str, side: str, found: Sequence[ort.NodeArg], declared: Sequence[Tensor]) -> None:
    graph = {node.name: (ORT_TYPES.get(node.type, node.type), node.shape) for node in found}
    promised = {tensor.name: tensor for tensor in declared}
    missing = [name for name, tensor in promised.items() if not _keeps(tensor, *graph.get(name, ("", [])))]
    surplus = graph.keys() - promised.keys() if side == "input" else set()
    if missing or surplus:
        said = {name: (tensor.datatype, list(tensor.shape)) for name, tensor in promised.items()}
        raise UnsupportedModel(
            f"model '{model}': the graph's {side}s are {graph}, and its manifest declares {said}; publish it again"
        )


def _keeps(tensor: Tensor, datatype: str, shape: Sequence[int | str | None]) -> bool:
    """Whether a graph's tensor is the declared one; dimensions that either side leaves open cannot contradict."""
    if datatype != tensor.datatype or (shape and len(shape) != len(tensor.shape)):
        return False
    pairs = zip(shape, tensor.shape, strict=bool(shape))
    return all(has == want for has, want in pairs if isinstance(has, int) and isinstance(want, int))


def _zeros(tensor: Tensor, rows: int) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]]:
    shape = (rows, *(dimension if isinstance(dimension, int) else 1 for dimension in tensor.shape[1:]))
    if tensor.datatype == "BYTES":
        return np.full(shape, "", DTYPES["BYTES"])
    return np.zeros(shape, DTYPES[tensor.datatype])


def _refusal(model: str, path: Path, error: Exception, limit: int) -> str:
    name = graphfile.name_of(path)
    if failures.is_out_of_memory(error):
        return f"model '{model}': building '{name}' takes more than {limit} bytes (runtime.build_bytes_max)"
    return f"model '{model}': onnxruntime refuses '{name}': {failures.reason(error)}"

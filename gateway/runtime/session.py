"""One onnxruntime session: built from verified bytes on disk, checked against the manifest's signature, run by one thread.

The only place in the gateway that touches onnxruntime.
"""

import platform
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import onnxruntime as ort

from gateway.contract.manifest import Manifest, Tensor, Variant
from gateway.errors import InvalidInput, UnsupportedModel
from gateway.runtime.tensors import ORT_TYPES, Tensors

ort.set_default_logger_severity(4)  # its warnings go to stderr unstructured; failures reach us as exceptions


class RunResult(msgspec.Struct, frozen=True):
    """Outputs by name, and what the run cost: CPU of the thread that ran it and elapsed time, in nanoseconds."""

    outputs: Tensors
    cpu_ns: int
    run_ns: int


class Session:
    """A loaded graph. `run` is called from one thread at a time per call; onnxruntime allows concurrent calls."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        """Blocks for the build: call it off the event loop. Raises `UnsupportedModel` saying what this host cannot do."""
        try:
            self._session = ort.InferenceSession(str(path), _options(), providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises its own classes and bare RuntimeError alike
            raise UnsupportedModel(
                f"model '{manifest.model}': onnxruntime refuses '{path.name}': {_first_line(error)}"
            ) from error
        self._outputs = [tensor.name for tensor in manifest.signature.outputs]
        _check_side(manifest.model, "input", self._session.get_inputs(), manifest.signature.inputs)
        _check_side(manifest.model, "output", self._session.get_outputs(), manifest.signature.outputs)

    def run(self, inputs: Tensors) -> Tensors:
        """Run the graph in this thread. Raises `InvalidInput` when onnxruntime refuses the values."""
        try:
            return dict(zip(self._outputs, self._session.run(self._outputs, inputs), strict=True))
        except Exception as error:  # as above
            raise InvalidInput(f"the model refuses this input: {_first_line(error)}") from error

    def measured_run(self, inputs: Tensors) -> RunResult:
        """The same, with what it cost."""
        began_ns, cpu_ns = time.perf_counter_ns(), time.thread_time_ns()
        outputs = self.run(inputs)
        return RunResult(outputs, time.thread_time_ns() - cpu_ns, time.perf_counter_ns() - began_ns)


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


def _options() -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1  # one request, one core: concurrency comes from requests, and thread CPU is exact
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # spinning would bill idle as inference
    return options


def _check_side(model: str, side: str, found: Sequence[ort.NodeArg], declared: Sequence[Tensor]) -> None:
    graph = {node.name: ORT_TYPES.get(node.type, node.type) for node in found}
    promised = {tensor.name: tensor.datatype for tensor in declared}
    missing = {name: datatype for name, datatype in promised.items() if graph.get(name) != datatype}
    surplus = graph.keys() - promised.keys() if side == "input" else set()
    if missing or surplus:
        raise UnsupportedModel(
            f"model '{model}': the graph's {side}s are {graph}, and its manifest declares {promised}; publish it again"
        )


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__

"""What the benchmark runs: the exported graph in onnxruntime on CUDA where that build is installed, else the torch module itself.

Rows come from the host and answers go back to it, as in serving; strings are vocabulary indices for torch already, as a CPU would
look them up. Never run on a GPU yet: its arithmetic is tested on a CPU device.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import onnxruntime as ort
import torch

from trainers.arrays import Array
from trainers.encoding import encoded
from trainers.gpubench.measuring import Runner, TooLarge
from trainers.job import Data

CUDA = "CUDAExecutionProvider"


class TorchRunner:
    """The module on `device`, in float32 or float16."""

    def __init__(
        self, module: torch.nn.Module, data: Data, device: torch.device, datatype: Literal["fp32", "fp16"]
    ) -> None:
        self.datatype: Literal["fp32", "fp16"] = datatype
        self.runtime = f"torch {torch.__version__}"
        own = copy.deepcopy(module).eval().to(device)
        self._module = own.half() if datatype == "fp16" else own
        self._device = device
        self._data = data
        self._rows: dict[int, list[torch.Tensor]] = {}

    def run(self, rows: int) -> None:
        inputs = self._inputs(rows)
        try:
            with torch.inference_mode():
                answer = self._module(*(values.to(self._device, non_blocking=True) for values in inputs))
                answer.to("cpu")  # waits for the device
        except torch.OutOfMemoryError as error:
            raise TooLarge(str(error)) from error

    def _inputs(self, rows: int) -> list[torch.Tensor]:
        """Made once: on the host, pinned where there is a GPU to read them."""
        if rows not in self._rows:
            made = []
            for tensor in self._data.signature.inputs:
                values = encoded(tensor, _resized(self._data.test.inputs[tensor.name], rows), self._data.vocabularies)
                if self.datatype == "fp16" and values.is_floating_point():
                    values = values.half()
                made.append(values.pin_memory() if self._device.type == "cuda" else values)
            self._rows[rows] = made
        return self._rows[rows]


class GraphRunner:
    """The exported graph in onnxruntime, in float32 as exported."""

    datatype: Literal["fp32", "fp16"] = "fp32"

    def __init__(self, graph: bytes, inputs: Mapping[str, Array], providers: Sequence[str]) -> None:
        options = ort.SessionOptions()
        options.log_severity_level = 4
        self.runtime = f"onnxruntime {ort.__version__}"
        self._session = ort.InferenceSession(graph, options, providers=list(providers), enable_fallback=0)
        self._inputs = inputs

    def run(self, rows: int) -> None:
        feed = {name: _resized(values, rows) for name, values in self._inputs.items()}
        try:
            self._session.run(None, feed)
        except Exception as error:  # onnxruntime's classes are its own; what it says of memory is in the text
            if "alloc" in str(error).lower() or "out of memory" in str(error).lower():
                raise TooLarge(str(error)) from error
            raise


def runners(module: torch.nn.Module, graph: bytes, data: Data, device: torch.device) -> tuple[Runner, ...]:
    """onnxruntime on CUDA in float32 where it is there, else torch in float32 and float16."""
    if device.type == "cuda" and CUDA in ort.get_available_providers():
        return (GraphRunner(graph, data.test.inputs, (CUDA, "CPUExecutionProvider")),)
    return (TorchRunner(module, data, device, "fp32"), TorchRunner(module, data, device, "fp16"))


def _resized(values: Array, rows: int) -> Array:
    return np.resize(values, (rows, *values.shape[1:]))

"""Open Inference Protocol datatypes and numpy, and the checks that a tensor must pass before a graph sees it.

String tensors are object arrays of `str`, which is what onnxruntime takes.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.contract.manifest import Tensor
from gateway.contract.words import Datatype
from gateway.errors import InvalidInput

Array = NDArray[Any]  # Any: the element type is data, named by the tensor's datatype
Tensors = dict[str, Array]

DTYPES: Mapping[Datatype, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype(np.uint16),
    "UINT32": np.dtype(np.uint32),
    "UINT64": np.dtype(np.uint64),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype(np.int16),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "FP16": np.dtype(np.float16),
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
    "BYTES": np.dtype(np.object_),
}

ORT_TYPES: Mapping[str, Datatype] = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}


ELEMENTS_MAX = 1 << 24
"""Of one tensor: 64 MiB of FP32, as much as a compressed body may become. What is bounded besides is bytes: sixteen million
strings or booleans take few of these, and each its time on the event loop."""


def check_elements(tensor: Tensor, count: int) -> None:
    """Raises `InvalidInput` naming the tensor when it has more than `ELEMENTS_MAX` elements."""
    if count > ELEMENTS_MAX:
        raise InvalidInput(
            f"input '{tensor.name}' has {count} elements; at most {ELEMENTS_MAX} are taken, send fewer rows"
        )


def check_shape(tensor: Tensor, shape: Sequence[int]) -> int:
    """The number of rows. Raises `InvalidInput` naming the tensor when `shape` is not one its signature allows."""
    if len(shape) != len(tensor.shape):
        raise InvalidInput(f"input '{tensor.name}' has {len(shape)} dimensions; expected {describe(tensor.shape)}")
    for got, want in zip(shape, tensor.shape, strict=True):
        if got < 1 or (isinstance(want, int) and got != want):
            raise InvalidInput(f"input '{tensor.name}' has shape {list(shape)}; expected {describe(tensor.shape)}")
    check_elements(tensor, math.prod(shape))
    return shape[0]


def shaped(tensor: Tensor, flat: Array, shape: Sequence[int]) -> Array:
    """`flat` with this shape; the element counts must agree."""
    if flat.size != math.prod(shape):
        raise InvalidInput(
            f"input '{tensor.name}' has {flat.size} elements; shape {list(shape)} needs {math.prod(shape)}"
        )
    return flat.reshape(shape)


def common_rows(inputs: Tensors) -> int:
    """All inputs have the same number of rows; returns it."""
    if len(inputs) == 1:
        [only] = inputs.values()
        return len(only)
    rows = {name: len(array) for name, array in inputs.items()}
    if len(set(rows.values())) != 1:
        listed = ", ".join(f"'{name}' has {count}" for name, count in rows.items())
        raise InvalidInput(f"inputs differ in rows: {listed}")
    return next(iter(rows.values()))


def describe(shape: Sequence[int | str]) -> str:
    """A signature's shape for people: `[batch, 3]`."""
    return "[" + ", ".join(str(dimension) for dimension in shape) + "]"


def wire_shape(shape: Sequence[int | str]) -> list[int]:
    """A signature's shape in the protocol's words: -1 stands for a variable dimension (protocol E4)."""
    return [dimension if isinstance(dimension, int) else -1 for dimension in shape]

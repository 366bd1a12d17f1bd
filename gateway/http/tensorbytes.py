"""Tensors as bytes: the binary tensor extension's layout (OIP-16 and 17), little-endian, in C order, without padding.

Numbers are views of the body, not copies. An element of a BYTES tensor is its length as a uint32 and then so many bytes.
"""

import math
import struct
import sys
from collections.abc import Sequence

import numpy as np

from gateway.contract.manifest import Tensor
from gateway.errors import InvalidInput
from gateway.runtime.tensors import DTYPES, Array

assert sys.byteorder == "little", "numbers are sent and taken as they lie in memory"

_LENGTH = struct.Struct("<I")


def read(tensor: Tensor, data: memoryview, shape: Sequence[int]) -> Array:
    """The tensor that these bytes are. Raises `InvalidInput` naming the tensor."""
    if tensor.datatype == "BYTES":
        return texts(tensor, data, math.prod(shape)).reshape(shape)
    dtype = DTYPES[tensor.datatype]
    size = math.prod(shape) * dtype.itemsize
    if len(data) != size:
        raise InvalidInput(
            f"input '{tensor.name}' is {len(data)} bytes; shape {list(shape)} of {tensor.datatype} takes {size}"
        )
    array: Array = np.ndarray(tuple(shape), dtype, data)
    if dtype == np.bool_:
        _check_booleans(tensor, data)
    # Compilers assume that numbers lie at multiples of their size and may use instructions that need it.
    return array if array.flags.aligned else array.copy()


def write(array: Array) -> memoryview:
    """The tensor's bytes: a view where it lies as it must."""
    if array.dtype == np.object_:
        encoded = [text.encode() for text in array.ravel().tolist()]
        return memoryview(b"".join([piece for text in encoded for piece in (_LENGTH.pack(len(text)), text)]))
    return np.ascontiguousarray(array).data


def texts(tensor: Tensor, data: memoryview, count: int) -> Array:
    """Exactly `count` strings, flat. Raises `InvalidInput` when a length lies or bytes are left over."""
    if count * _LENGTH.size > len(data):
        raise InvalidInput(f"input '{tensor.name}' is {len(data)} bytes, too few for {count} elements of BYTES")
    found = np.empty(count, np.object_)
    at = 0
    for index in range(count):
        begin = at + _LENGTH.size
        at = begin + (_LENGTH.unpack_from(data, at)[0] if begin <= len(data) else 0)
        if at > len(data) or begin > len(data):
            raise InvalidInput(f"input '{tensor.name}': the length of element {index} points beyond its data")
        found[index] = text(tensor, data[begin:at], index)
    if at != len(data):
        raise InvalidInput(f"input '{tensor.name}': {len(data) - at} bytes follow its {count} elements")
    return found


def text(tensor: Tensor, data: memoryview, index: int) -> str:
    """One string. Raises `InvalidInput`: models take text."""
    try:
        return str(data, "utf-8")
    except UnicodeDecodeError as error:
        raise InvalidInput(f"input '{tensor.name}': element {index} is not UTF-8 at byte {error.start}") from None


def _check_booleans(tensor: Tensor, data: memoryview) -> None:
    if np.frombuffer(data, np.uint8).max(initial=0) > 1:
        raise InvalidInput(f"input '{tensor.name}': a BOOL is one byte, 0 or 1")

"""JSON numbers and strings to arrays and back, by the tensor's datatype; data may be nested or flat, row-major (OIP-8).

`array` takes any JSON that msgspec accepts and has the last word. `gateway.http.longjson` is twice as fast on long data and comes
first there, but gives up on whatever is not plain.
"""

from collections.abc import Sequence
from functools import lru_cache
from itertools import chain
from struct import Struct
from struct import error as StructError  # noqa: N812  # it is a class
from typing import Any

import msgspec
import numpy as np

from gateway.contract.manifest import Tensor
from gateway.contract.words import Datatype
from gateway.errors import InvalidInput
from gateway.http import jsonbody, longjson
from gateway.http.longjson import DIMENSIONS_MAX
from gateway.runtime.tensors import DTYPES, Array, check_shape, shaped

Element = type[bool] | type[int] | type[float] | type[str]
_ELEMENTS: dict[Datatype, Element] = {"BOOL": bool, "BYTES": str, "FP16": float, "FP32": float, "FP64": float}
_CODES: dict[Datatype, str] = {
    "INT8": "b", "UINT8": "B", "INT16": "h", "UINT16": "H", "INT32": "i", "UINT32": "I", "INT64": "q", "UINT64": "Q",
    "FP16": "e", "FP32": "f", "FP64": "d",
}  # fmt: skip


def array(tensor: Tensor, data: msgspec.Raw, shape: Sequence[int]) -> Array:
    """The tensor that this JSON is. Raises `InvalidInput` naming the tensor and the element."""
    if tensor.datatype == "FP16":
        raise _fp16(tensor)
    try:
        values = _decoder(tensor.datatype, 1).decode(data)
    except msgspec.ValidationError as error:
        return _nested(tensor, data, shape, _depth(data), error)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(f"input '{tensor.name}', data: {error}") from None
    return shaped(tensor, _flat(tensor, values), shape)


def nested(tensor: Tensor, data: msgspec.Raw) -> Array:
    """The tensor that nested lists are, whose shape is theirs. Raises `InvalidInput` naming the tensor."""
    if tensor.datatype == "FP16":
        raise _fp16(tensor)
    array = None
    if len(memoryview(data)) >= longjson.LONG_BYTES:
        try:
            array = longjson.nested(data, tensor.datatype, len(tensor.shape))
        except (ValueError, OverflowError) as error:
            raise InvalidInput(f"input '{tensor.name}', data: {error}") from None
    if array is None:
        array = _of_depth(tensor, data, len(tensor.shape))
    check_shape(tensor, array.shape)
    return array


def encode(array: Array) -> bytes:
    """Flat JSON of a tensor (OIP-9)."""
    if array.dtype == np.object_:
        return jsonbody.encode(array.ravel().tolist())
    return jsonbody.encode_numbers(array.ravel())


def from_list(datatype: Datatype, values: Sequence[Any]) -> Array:  # Any: by datatype
    """The flat array of these values. Raises `OverflowError` naming the first that does not fit.

    `struct` is three times as fast as `np.array` on a list.
    """
    code = _CODES.get(datatype)
    if code is None:
        return np.array(values, DTYPES[datatype])
    try:
        return np.frombuffer(_packer(code, len(values)).pack(*values), DTYPES[datatype])
    except (StructError, OverflowError):
        at = _first_unfit(code, values)
        raise OverflowError(f"element {at} does not fit {datatype}") from None


def from_lists(datatype: Datatype, values: Sequence[Any], depth: int) -> Array:  # Any: lists, and by datatype
    """The array of these lists in lists, `depth` of them. Raises `ValueError` when their lengths differ, and as `from_list`."""
    shape = [len(values)]
    for _ in range(depth - 1):
        lengths = set(map(len, values))
        if len(lengths) > 1:
            raise ValueError("lists of different lengths")
        shape.append(lengths.pop() if lengths else 0)
        values = list(chain.from_iterable(values))
    return from_list(datatype, values).reshape(shape)


def _flat(tensor: Tensor, values: list[Any]) -> Array:  # Any: by datatype
    try:
        return from_list(tensor.datatype, values)
    except OverflowError as error:
        raise InvalidInput(f"input '{tensor.name}', data: {error}") from None


def _first_unfit(code: str, values: Sequence[Any]) -> int:  # Any: by datatype
    """Where it is, by halves: one by one, eight million elements take a second of the event loop. There is one."""
    first, end = 0, len(values)
    while end - first > 1:
        middle = (first + end) // 2
        if _fit(code, values[first:middle]):
            first = middle
        else:
            end = middle
    return first


def _fit(code: str, values: Sequence[Any]) -> bool:  # Any: by datatype
    try:
        Struct(f"<{len(values)}{code}").pack(*values)
    except (StructError, OverflowError):
        return False
    return True


@lru_cache(maxsize=256)
def _packer(code: str, count: int) -> Struct:
    return Struct(f"<{count}{code}")


def _nested(
    tensor: Tensor, data: msgspec.Raw, shape: Sequence[int], depth: int, flat_error: msgspec.ValidationError
) -> Array:
    if depth < 2:
        raise InvalidInput(f"input '{tensor.name}', data: {flat_error}") from None
    if depth > DIMENSIONS_MAX:
        raise InvalidInput(f"input '{tensor.name}', data: nested more than {DIMENSIONS_MAX} deep")
    array = _of_depth(tensor, data, depth)
    if list(array.shape) != list(shape):
        raise InvalidInput(f"input '{tensor.name}', data: nested as {list(array.shape)}; its shape says {list(shape)}")
    return array


def _of_depth(tensor: Tensor, data: msgspec.Raw, depth: int) -> Array:
    """Lists in lists, `depth` of them."""
    try:
        return from_lists(tensor.datatype, _decoder(tensor.datatype, depth).decode(data), depth)
    except (msgspec.DecodeError, UnicodeDecodeError, OverflowError, ValueError) as error:
        raise InvalidInput(f"input '{tensor.name}', data: {error}") from None


def _fp16(tensor: Tensor) -> InvalidInput:
    return InvalidInput(f"input '{tensor.name}': FP16 cannot be sent as JSON (OIP-11); send it as binary data")


def _depth(data: msgspec.Raw) -> int:
    """How deeply the data is nested: the brackets it opens with."""
    head = bytes(memoryview(data)[:256]).translate(None, b" \t\r\n")
    return len(head) - len(head.lstrip(b"["))


@lru_cache(maxsize=256)
def _decoder(datatype: Datatype, depth: int) -> "msgspec.json.Decoder[Any]":  # Any: nested lists of the element type
    kind: Any = _ELEMENTS.get(datatype, int)
    for _ in range(depth):
        kind = list[kind]
    return msgspec.json.Decoder(kind)

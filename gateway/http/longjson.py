"""Long JSON parsed by simdjson: one parser per thread, and what turns its arrays of numbers into numpy's.

It takes what is plain, refuses what its numbers or the lengths of its lists make impossible, and gives up on the rest:
`gateway.http.tensorjson` decides, so that a body is judged alike either way.
"""

import math
import threading
from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec
import numpy as np
import simdjson

from gateway.contract.words import Datatype
from gateway.http import jsonbody
from gateway.runtime.tensors import DTYPES, Array

LONG_BYTES = 4096  # from here simdjson is faster: `python -m tests.bench.codecs`
DIMENSIONS_MAX = 16  # how deep data may be nested; onnxruntime's graphs have half as many
_KEPT_BYTES = (
    1 << 20
)  # a parser keeps 13 times the longest body it has seen, so one that has seen longer ones is dropped

_PARSED: dict[Datatype, tuple[str, "np.dtype[Any]"]] = {
    **dict.fromkeys(("FP32", "FP64"), ("d", np.dtype(np.float64))),
    **dict.fromkeys(("INT8", "UINT8", "INT16", "UINT16", "INT32", "UINT32", "INT64"), ("i", np.dtype(np.int64))),
    "UINT64": ("u", np.dtype(np.uint64)),
}
_local = threading.local()
E = TypeVar("E", bound=Exception)


def parse(body: jsonbody.Text | msgspec.Raw) -> Any:  # Any: simdjson's Object or Array, or a Python scalar
    """The parsed document, to be forgotten before the next call in this thread. None when simdjson refuses it, or for null."""
    data = memoryview(body)
    parser = getattr(_local, "parser", None)
    if parser is None or len(data) > _KEPT_BYTES:
        parser = simdjson.Parser()
    _local.parser = None
    try:
        document = parser.parse(data)
    except (ValueError, RuntimeError):
        return None
    if len(data) <= _KEPT_BYTES:
        _local.parser = parser
    return document


def numbers(parsed: Any, datatype: Datatype, shape: Sequence[int]) -> tuple[Array, int] | None:  # Any: simdjson's Array
    """The flat array of this datatype, and how many JSON arrays its data consists of; None for what is not plain.

    Raises `ValueError` for lists of other lengths and `OverflowError` for a number that does not fit: to make Python objects of
    eight million numbers, only to say the same, would take a second.

    That no element is an array itself is left to the caller, who compares the brackets of the whole text with those known.
    """
    found = _PARSED.get(datatype)
    if found is None or not len(parsed) or not 0 < len(shape) <= DIMENSIONS_MAX:
        return None
    is_nested = isinstance(parsed[0], simdjson.Array)
    if is_nested and not _is_nested(parsed, shape):
        raise _refusal(ValueError(f"the lists are not nested as {list(shape)}, or have different lengths"))
    try:
        wide = np.frombuffer(parsed.as_buffer(of_type=found[0]), found[1])
    except (TypeError, ValueError, RuntimeError):
        return None
    if wide.size != math.prod(shape):
        return None
    return _narrowed(wide, datatype), _arrays(shape) if is_nested else 1


def nested(data: msgspec.Raw, datatype: Datatype, dimensions: int) -> Array | None:
    """Nested lists of numbers with their own shape; None for what is not plain. Raises as `numbers`."""
    parsed = parse(data)
    shape = _shape(parsed)
    if shape is None or len(shape) != dimensions:
        return None
    found = numbers(parsed, datatype, shape)
    if found is None or jsonbody.opened(memoryview(data)) != (found[1], 0):
        return None
    return found[0].reshape(shape)


def _shape(parsed: Any) -> list[int] | None:  # Any: JSON
    """The lengths of the first lists, from the outermost to the innermost."""
    shape: list[int] = []
    while isinstance(parsed, simdjson.Array):
        shape.append(len(parsed))
        if not shape[-1] or len(shape) > DIMENSIONS_MAX:
            return None
        parsed = parsed[0]
    return shape or None


def _is_nested(parsed: Any, shape: Sequence[int]) -> bool:  # Any: simdjson's Array
    """Whether there is an array for every index but the last, each as long as the shape says."""
    if len(parsed) != shape[0]:
        return False
    rest = shape[1:]
    return not rest or all(isinstance(part, simdjson.Array) and _is_nested(part, rest) for part in parsed)


def _arrays(shape: Sequence[int]) -> int:
    """How many arrays nested data of this shape consists of."""
    return 1 + sum(math.prod(shape[:depth]) for depth in range(1, len(shape)))


def _narrowed(wide: Array, datatype: Datatype) -> Array:
    """The same values in the datatype's own width."""
    dtype = DTYPES[datatype]
    if wide.dtype == dtype:
        return wide
    if dtype.kind == "f":
        try:
            with np.errstate(over="raise"):
                return wide.astype(dtype)
        except FloatingPointError:
            with np.errstate(over="ignore"):
                unfit = np.isinf(wide.astype(dtype))  # JSON has no infinity
    else:
        limits = np.iinfo(dtype)
        if limits.min <= wide.min() and wide.max() <= limits.max:
            return wide.astype(dtype)
        unfit = (wide < limits.min) | (wide > limits.max)
    raise _refusal(OverflowError(f"element {int(unfit.argmax())} does not fit {datatype}"))


def _refusal(error: E) -> E:
    """Its traceback holds the document, so that its parser cannot be used again as long as somebody holds the error."""
    _local.parser = None
    return error

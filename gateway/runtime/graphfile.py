"""The few facts about a model file that must be known before onnxruntime opens it, read from the protobuf bytes themselves.

onnxruntime follows a tensor's external data to any file beside the model. In the cache of verified blobs these are other models'
files, so an artifact must hold all its data. The gateway does not import `onnx`; field numbers are those of onnx.proto (IR 10).
"""

import mmap
from collections.abc import Iterator, Mapping
from pathlib import Path

from gateway.errors import UnsupportedModel

FIELDS_MAX = 2_000_000
"""Fields read before a file is refused: a few seconds of one CPU. A graph of 5,000 nodes and 500 weights has some 20,000."""

_WORD = b"location"
"""The key that every reference has. A string is stored as it is: a part of the file without this word has no reference in it, and
finding that out takes a memory search and no parsing. Weights are stepped over, since a search takes as long as building them.
"""

_TENSOR = "tensor"
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14
_CHILDREN: Mapping[str, Mapping[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: _TENSOR, 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: _TENSOR, 6: "graph", 10: _TENSOR, 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: _TENSOR, 2: _TENSOR},
    _TENSOR: {},
}


def refuse_external_data(path: Path, model: str) -> None:
    """Raises `UnsupportedModel` when a tensor's bytes are elsewhere, or when that cannot be told."""
    if path.stat().st_size == 0:
        return  # onnxruntime says it better
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            is_external = _has_external_tensor(data)
        except ValueError as error:
            raise UnsupportedModel(f"model '{model}': '{name_of(path)}' is not an ONNX graph: {error}") from None
    if is_external:
        raise UnsupportedModel(
            f"model '{model}': its graph keeps tensors in other files (external data); save it as one file and publish it again"
        )


def name_of(path: Path) -> str:
    """The file's name in its artifact: the cache puts the digest before it."""
    digest, dash, name = path.name.partition("-")
    return name if dash and len(digest) == 64 else path.name


def _has_external_tensor(data: mmap.mmap) -> bool:
    waiting = [("model", 0, len(data))]
    fields = 0
    while waiting:
        kind, start, end = waiting.pop()
        for number, value, begin in _fields(data, start, end):
            fields += 1
            if fields > FIELDS_MAX:
                raise ValueError(f"it has more than {FIELDS_MAX} fields")
            if kind == _TENSOR and (number == _EXTERNAL_DATA or (number == _DATA_LOCATION and value)):
                return True
            child = _CHILDREN[kind].get(number)
            if child and begin is not None and (child in {_TENSOR, "graph"} or _says(data, begin, value)):
                waiting.append((child, begin, begin + value))
    return False


def _says(data: mmap.mmap, begin: int, length: int) -> bool:
    return data.find(_WORD, begin, begin + length) >= 0


def _fields(data: mmap.mmap, at: int, end: int) -> Iterator[tuple[int, int, int | None]]:
    """Each field's number with its integer (varint), or its length and where it begins (length-delimited)."""
    while at < end:
        key, at = _varint(data, at, end)
        number, wire = key >> 3, key & 7
        begin = None
        value = 0
        if wire == 0:
            value, at = _varint(data, at, end)
        elif wire == 1:
            at += 8
        elif wire == 2:
            value, begin = _varint(data, at, end)
            at = begin + value
        elif wire == 5:
            at += 4
        else:
            raise ValueError(f"wire type {wire} at byte {at}")
        if at > end:
            raise ValueError(f"a field ends {at - end} bytes past its message")
        yield number, value, begin


def _varint(data: mmap.mmap, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise ValueError(f"an integer has no end at byte {at}")

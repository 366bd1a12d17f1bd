"""Rows to try a graph on: real ones from a golden file, or drawn ones of the declared types when there are none.

A golden file is numpy's npz: an array per input by its published name, rows first; outputs that were computed elsewhere by theirs;
`targets`, what truly happened, one per row. Nothing in it is executed: arrays of objects are refused.
"""

import hashlib
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np

from gateway.contract.golden import DTYPES
from gateway.contract.manifest import Signature, Tensor
from trainers.arrays import Array
from trainers.errors import DataError

ROWS_MIN = 128
"""One half fixes quantization scales in whole batches of 64, the other half judges."""

BYTES_MAX = 1 << 30
"""Of all arrays, unpacked: they are held in memory together with what the graph makes of them."""

TARGETS = "targets"

DRAWN_ROWS = 64
DRAWN_LENGTH = 16
"""Of an axis that varies."""


class Samples(msgspec.Struct, frozen=True):
    """Rows by input; `expected` by output and `targets` where there are any. `sha256` is the file's, '' of drawn rows."""

    inputs: Mapping[str, Array]
    expected: Mapping[str, Array] = {}
    targets: Array | None = None
    sha256: str = ""

    @property
    def rows(self) -> int:
        return len(next(iter(self.inputs.values())))

    @property
    def is_real(self) -> bool:
        return bool(self.sha256)


INTEGERS = (256, 2)
"""Whole numbers are drawn below this, as bytes and tokens are; where an index of fewer is expected, 0 and 1 will do."""


def drawn(signature: Signature, below: int, seed: int = 0) -> Samples:
    """Standard normal floats, whole numbers from 0 to `below`, and text that says nothing."""
    rng = np.random.default_rng(seed)
    return Samples({tensor.name: _drawn(tensor, below, rng) for tensor in signature.inputs})


def _drawn(tensor: Tensor, below: int, rng: np.random.Generator) -> Array:
    shape = (DRAWN_ROWS, *(DRAWN_LENGTH if isinstance(size, str) else size for size in tensor.shape[1:]))
    if tensor.datatype == "BYTES":
        return np.array([f"text {i % 7}" for i in range(math.prod(shape))], object).reshape(shape)
    if tensor.datatype.startswith("FP"):
        return rng.standard_normal(shape).astype(DTYPES[tensor.datatype])
    below = {"BOOL": 2, "INT8": min(below, 128)}.get(tensor.datatype, below)
    return rng.integers(0, below, shape).astype(DTYPES[tensor.datatype])


def read(path: Path, signature: Signature) -> Samples:
    """Raises `DataError` naming the array and what is expected of it."""
    arrays = _arrays(path)
    inputs = {tensor.name: _fitting(tensor, arrays.pop(tensor.name, None)) for tensor in signature.inputs}
    outputs = {tensor.name: tensor for tensor in signature.outputs}
    targets = arrays.pop(TARGETS, None) if TARGETS not in outputs else None
    expected = {name: _fitting(outputs[name], arrays.pop(name)) for name in tuple(arrays) if name in outputs}
    if arrays:
        known = ", ".join([*inputs, *outputs, TARGETS])
        raise DataError(f"golden file: '{next(iter(arrays))}' is no tensor of this model; it may hold: {known}")
    counts = {name: len(values) for name, values in (*inputs.items(), *expected.items())}
    if targets is not None:
        targets = _targets(targets)
        counts[TARGETS] = len(targets)
    if len(set(counts.values())) > 1:
        raise DataError(f"golden file: its arrays have different numbers of rows: {counts}")
    rows = next(iter(counts.values()))
    if rows < ROWS_MIN:
        raise DataError(
            f"golden file: {rows} rows are too few, at least {ROWS_MIN} are needed: the first half fixes quantization scales, "
            "the second half judges"
        )
    return Samples(inputs, expected, targets, hashlib.sha256(path.read_bytes()).hexdigest())


def _arrays(path: Path) -> dict[str, Array]:
    try:
        with zipfile.ZipFile(path) as packed:
            size = sum(member.file_size for member in packed.infolist())
        if size > BYTES_MAX:
            raise DataError(f"golden file: {size:,} bytes unpacked; at most {BYTES_MAX:,} are read, so give fewer rows")
        with np.load(path, allow_pickle=False) as opened:
            return {name: opened[name] for name in opened.files}
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(f"golden file '{path.name}' cannot be read as npz: {error}") from error
    except ValueError as error:  # numpy, for arrays of objects and for what is no array
        raise DataError(f"golden file '{path.name}': {error}; save text as numpy's str and never objects") from error


def _targets(values: Array) -> Array:
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1 or values.dtype.kind not in "iufb":
        raise DataError(f"golden file: '{TARGETS}' must be one number per row, not {values.dtype} {values.shape}")
    return values


def _fitting(tensor: Tensor, values: Array | None) -> Array:
    """The values in the tensor's own type; a conversion that would change one is refused."""
    if values is None:
        raise DataError(f"golden file: input '{tensor.name}' is missing; it is {tensor.datatype} {list(tensor.shape)}")
    fits = values.ndim == len(tensor.shape) and all(
        isinstance(want, str) or want == got for want, got in zip(tensor.shape, values.shape, strict=True)
    )
    if not fits:
        raise DataError(
            f"golden file: '{tensor.name}' has shape {list(values.shape)}; expected {list(tensor.shape)}, rows first"
        )
    if tensor.datatype == "BYTES":
        if values.dtype.kind != "U":
            raise DataError(f"golden file: '{tensor.name}' is {values.dtype}; text as numpy's str is expected")
        return values.astype(object)
    dtype = np.dtype(DTYPES[tensor.datatype])
    if values.dtype.kind not in "iufb" or (dtype.kind != "f" and values.dtype.kind == "f"):
        raise DataError(f"golden file: '{tensor.name}' is {values.dtype}; {tensor.datatype} is expected")
    with np.errstate(over="ignore"):  # an infinity then, which the model may well refuse
        converted = values.astype(dtype)
    if dtype.kind != "f" and (converted != values).any():
        raise DataError(f"golden file: '{tensor.name}' has values that {tensor.datatype} cannot hold")
    return converted

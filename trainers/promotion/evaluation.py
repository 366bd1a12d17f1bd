"""The rows a version was judged on travel with it, so that a later challenger can be judged on them too: `evaluation.npz`.

Data only: arrays without pickle, strings as unicode, the same bytes for the same rows. A row's key is computed where it is needed,
so that it can never disagree with the row. Written by `trainers.course`, read by `trainers.promotion.comparing`.
"""

import hashlib
import io
import zipfile
from collections.abc import Iterator, Mapping

import msgspec
import numpy as np

from gateway.contract.manifest import Signature
from trainers.arrays import Array
from trainers.errors import DataError
from trainers.job import Data, Split

FILE = "evaluation.npz"
BYTES_MAX = 8 << 20
"""Of the rows, uncompressed: images would otherwise outweigh the model they judge."""

TRAIN_TARGETS_MAX = 10_000
"""Enough to tell a label's share to half a percent."""

INPUT, SLICE = "inputs/", "slices/"


class Frozen(msgspec.Struct, frozen=True):
    """Test rows of one version, and of its training how many rows it had and a sample of their targets."""

    split: Split
    slices: Mapping[str, Array]
    train_rows: int
    train_targets: Array


def freeze(data: Data, rows_max: int) -> Frozen:
    """At most so many rows from all over the test split, fewer where they are large."""
    rows = data.test.spread(rows_max)
    chosen = data.test.picked(rows)
    row_bytes = sum(_plain(values).nbytes for values in chosen.inputs.values()) // max(1, chosen.rows)
    rows = data.test.spread(min(rows_max, max(1, BYTES_MAX // max(1, row_bytes))))
    return Frozen(
        split=data.test.picked(rows),
        slices={name: values[rows] for name, values in data.slices.items()},
        train_rows=data.train.rows,
        train_targets=data.train.targets[data.train.spread(TRAIN_TARGETS_MAX)],
    )


def pack(frozen: Frozen) -> bytes:
    arrays = {INPUT + name: _plain(values) for name, values in frozen.split.inputs.items()}
    arrays |= {SLICE + name: np.asarray(values, bool) for name, values in frozen.slices.items()}
    arrays |= {
        "targets": frozen.split.targets,
        "train_rows": np.array(frozen.train_rows),
        "train_targets": frozen.train_targets,
    }
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)  # type: ignore[arg-type]  # its stub takes **kwds for its own flag
    return file.getvalue()


def unpack(body: bytes) -> Frozen:
    """Raises `DataError` for anything that `pack` does not write."""
    try:
        with np.load(io.BytesIO(body), allow_pickle=False) as stored:
            arrays = {name: _objects(stored[name]) for name in stored.files}
        inputs = {name.removeprefix(INPUT): values for name, values in arrays.items() if name.startswith(INPUT)}
        slices = {name.removeprefix(SLICE): values for name, values in arrays.items() if name.startswith(SLICE)}
        split = Split(inputs, arrays["targets"])
        frozen = Frozen(split, slices, int(arrays["train_rows"]), arrays["train_targets"])
    except (ValueError, KeyError, TypeError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"the evaluation rows cannot be read: {error}") from error
    if {len(values) for values in [*inputs.values(), *slices.values()]} != {split.rows}:
        raise DataError("the evaluation rows are ragged")
    return frozen


def occurring(wanted: set[bytes], split: Split, signature: Signature, mask: str) -> set[bytes]:
    """Which of these keys belong to a row of the split."""
    return wanted.intersection(keys(split, signature, mask))


def keys(split: Split, signature: Signature, mask: str) -> Iterator[bytes]:
    """Of every row, the sha256 of its inputs; padding does not count, and neither does the target.

    Who has seen a row's inputs has seen the row, whatever it was told about them.
    """
    tensors = [(tensor.shape[1:], _canonical(split.inputs[tensor.name])) for tensor in signature.inputs]
    lengths = (split.inputs[mask] != 0).sum(axis=1).tolist() if mask else [None] * split.rows
    for row, length in enumerate(lengths):
        digest = hashlib.sha256()
        for shape, values in tensors:
            cut = values[row] if length is None else values[row][tuple(_upto(axis, length) for axis in shape)]
            digest.update("\0".join(cut.ravel()).encode() + b"\0" if cut.dtype.kind == "O" else cut.tobytes())
        yield digest.digest()


def _upto(axis: int | str, length: int) -> slice:
    return slice(length) if isinstance(axis, str) else slice(None)


def _canonical(values: Array) -> Array:
    """One way to write a missing number, and one zero."""
    if values.dtype.kind != "f":
        return _objects(values)
    canonical: Array = np.where(np.isnan(values), values.dtype.type(np.nan), values + values.dtype.type(0))
    return canonical


def _plain(values: Array) -> Array:
    return values.astype(str) if values.dtype == object else values


def _objects(values: Array) -> Array:
    return values.astype(object) if values.dtype.kind == "U" else values

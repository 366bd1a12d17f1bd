"""Real rows in batches of one shape each, as onnxruntime's calibrators want them.

They fail on a batch of another size ("inhomogeneous shape", onnxruntime #18792), so a smaller last batch is dropped and rows of
different length never share one: padding would be calibrated like data (an attention mask's -1e38 gives every score one step).
"""

import hashlib
from collections.abc import Iterator, Mapping

import numpy as np
from onnxruntime.quantization import CalibrationDataReader

from trainers.arrays import Array
from trainers.errors import DataError

BATCH_ROWS = 64
ROWS_MAX = 2048
"""The range of an activation is found long before."""

Feed = dict[str, Array]


def batches(rows: Mapping[str, Array], *, rows_max: int = ROWS_MAX, one_shape: bool = False) -> tuple[Feed, ...]:
    """Whole batches, the most frequent shape first. `one_shape`: of that shape only.

    Each array holds one row per index; an array of arrays (dtype object) has rows of their own length. Raises `DataError` when
    there is no row, or arrays of different length.
    """
    counts = {name: len(values) for name, values in rows.items()}
    if not counts or len(set(counts.values())) != 1 or not min(counts.values()):
        raise DataError(f"calibration needs rows, as many for every input; there are: {counts}")
    buckets = sorted(_buckets(rows, min(rows_max, next(iter(counts.values())))), key=len, reverse=True)
    if one_shape:
        buckets = buckets[:1]
    size = min(BATCH_ROWS, max(map(len, buckets)))
    made = [_feed(rows, bucket[start : start + size]) for bucket in buckets for start in _starts(len(bucket), size)]
    return tuple(made)


def _starts(count: int, size: int) -> range:
    return range(0, count - size + 1, size)


def _buckets(rows: Mapping[str, Array], count: int) -> list[list[int]]:
    """Indices of rows by the shapes of all their inputs."""
    found: dict[tuple[tuple[int, ...], ...], list[int]] = {}
    for row in range(count):
        shapes = tuple(np.shape(values[row]) for values in rows.values())
        found.setdefault(shapes, []).append(row)
    return list(found.values())


def _feed(rows: Mapping[str, Array], picked: list[int]) -> Feed:
    return {name: _stacked(values[picked]) for name, values in rows.items()}


def _stacked(values: Array) -> Array:
    """An array of arrays, all of one shape here, as one array."""
    if values.dtype == object and values.ndim == 1 and isinstance(values[0], np.ndarray):
        return np.stack(list(values))
    return values


def digest(rows: Mapping[str, Array]) -> str:
    """The sha256 of what is calibrated with, for a manifest to name: the same rows give the same scales."""
    found = hashlib.sha256()
    for name, values in sorted(rows.items()):
        found.update(f"{name} {values.dtype} {values.shape}\n".encode())
        if values.dtype == object:
            for value in values.ravel():
                found.update(value.tobytes() if isinstance(value, np.ndarray) else f"{value}\n".encode())
        else:
            found.update(np.ascontiguousarray(values).tobytes())
    return found.hexdigest()


class Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no annotations
    """The same batches, handed out one by one."""

    def __init__(self, feeds: tuple[Feed, ...]) -> None:
        self._feeds: Iterator[Feed] = iter(feeds)

    def get_next(self) -> Feed | None:
        return next(self._feeds, None)

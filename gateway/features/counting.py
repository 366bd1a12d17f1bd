"""Which bin each value falls into: a profile made into arrays once, then rows counted by the hundred. No I/O, no clock.

Called by `gateway.features.recorder` in a thread. What a bin is: `gateway.contract.features`.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from gateway.contract.features import ColumnCounts, ColumnProfile, FeatureProfile, Side
from gateway.contract.manifest import Signature, Tensor
from gateway.errors import ManifestInvalid

Array = NDArray[Any]  # Any: the element type is data
Counts = NDArray[np.int64]


class Rows(msgspec.Struct, frozen=True, gc=False):
    """Chosen rows of one request: its profiled tensors in the order of `Plan`'s names, each with `rows` rows."""

    arrays: tuple[Array, ...]
    rows: int


class Plan:
    """How the rows of one model version are counted. `inputs` and `outputs` name the tensors that its profile is about."""

    def __init__(self, profile: FeatureProfile, signature: Signature) -> None:
        """Raises `ManifestInvalid` when the profile is not about this signature."""
        self.profile = profile
        self.inputs = _named(profile, "input")
        self.outputs = _named(profile, "output")
        declared = {("input", t.name): t for t in signature.inputs} | {("output", t.name): t for t in signature.outputs}
        places: dict[tuple[str, str], list[tuple[int, ColumnProfile]]] = {}
        for place, column in enumerate(profile.columns):
            _require_fits(column, declared.get((column.side, column.tensor)))
            places.setdefault((column.side, column.tensor), []).append((place, column))
        order = [("input", name) for name in self.inputs] + [("output", name) for name in self.outputs]
        self._tensors = [[(place, _Bins(column)) for place, column in places[tensor]] for tensor in order]

    def empty(self) -> list[Counts]:
        """No rows yet: a figure per bin and one for missing values, column by column."""
        return [np.zeros(len(column.counts) + 1, np.int64) for column in self.profile.columns]

    def add(self, counts: list[Counts], rows: Sequence[Rows]) -> None:
        """Count these rows too. One pass over all of them: numpy's calls cost as much for a row as for a hundred."""
        by_tensor = zip(*(each.arrays for each in rows), strict=True)
        for arrays, columns in zip(by_tensor, self._tensors, strict=True):
            values = np.concatenate(arrays)
            values = values.reshape(len(values), -1)
            for place, bins in columns:
                counts[place] += bins.count(values[:, bins.at])

    def columns(self, counts: list[Counts]) -> tuple[ColumnCounts, ...]:
        """As they are stored."""
        return tuple(
            ColumnCounts(column.name, tuple(each[:-1].tolist()), int(each[-1]))
            for column, each in zip(self.profile.columns, counts, strict=True)
        )


class _Bins:
    """One column. The figure for missing values comes last."""

    def __init__(self, column: ColumnProfile) -> None:
        self.at = column.at
        self._is_number = column.kind == "number"
        self._edges = np.array(column.edges, np.float64)
        self._known = {name: place for place, name in enumerate(column.known)}
        self._bins = len(column.counts)

    def count(self, values: Array) -> Counts:
        return self._numbers(values) if self._is_number else self._categories(values)

    def _numbers(self, values: Array) -> Counts:
        """NaN sorts behind everything, so it is in the last bin until it is taken out."""
        wide = values.astype(np.float64)  # exact, so that a float32 is compared with an edge as it was in training
        found = np.bincount(self._edges.searchsorted(wide, side="right"), minlength=self._bins + 1)
        missing = np.count_nonzero(wide != wide)  # noqa: PLR0124 - NaN alone differs from itself; a third of what isnan takes
        found[-2] -= missing
        found[-1] = missing
        return found

    def _categories(self, values: Array) -> Counts:
        found = np.zeros(self._bins + 1, np.int64)
        for value, count in Counter(values.tolist()).items():
            found[self._known.get(value, self._bins - 1)] += count
        return found


def _named(profile: FeatureProfile, side: Side) -> tuple[str, ...]:
    return tuple(dict.fromkeys(column.tensor for column in profile.columns if column.side == side))


def _require_fits(column: ColumnProfile, tensor: Tensor | None) -> None:
    """One column of the profile and the tensor that it says it is in."""
    width = _width(tensor)
    if tensor is None or column.at >= width:
        raise ManifestInvalid(f"its profile has column '{column.name}', which its signature has not")
    if (column.kind == "category") != (tensor.datatype == "BYTES"):
        raise ManifestInvalid(f"its profile calls column '{column.name}' a {column.kind}; it is {tensor.datatype}")


def _width(tensor: Tensor | None) -> int:
    """Elements per row, 0 when that varies."""
    match tensor and tensor.shape[1:]:
        case ():
            return 1
        case (int(width),):
            return width
    return 0

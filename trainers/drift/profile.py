"""What the columns of a model look like in training, as `gateway.contract.features` stores it: edges, categories, counts.

Deterministic: equal arrays give equal bytes. Called by a training run, with the rows it trained on and the answers of the served
variant on rows it did not train on. What the gateway then counts, and how the two are compared: `trainers.drift`.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.contract.features import EDGES_MAX, KNOWN_MAX, ColumnProfile, FeatureProfile, Side
from gateway.contract.manifest import Signature, Tensor
from trainers.drift.statistics import psi
from trainers.errors import DataError

Array = NDArray[Any]  # Any: the element type is data

WIDTH_MAX = 64
"""Tensors with more elements per row are images, embeddings or texts: their elements one by one say nothing about drift."""

STRETCHES = 20
STRETCH_ROWS_MIN = 500
"""With fewer rows per stretch chance alone moves them apart; then there are fewer stretches, and below two none."""

YES_AT = 0.5
"""Where a probability becomes a yes; an edge of every probability, so that accuracy can be estimated from counts."""


def profile(
    signature: Signature,
    inputs: Mapping[str, Array],
    outputs: Mapping[str, Array] | None = None,
    outcomes: Array | None = None,
) -> FeatureProfile:
    """Every column of the signature over these rows: `inputs` [rows, ...] by tensor, and `outputs` likewise, of other rows or none.

    Give rows in order of time where they have one: the profile then knows how much a stretch of them differs from all by itself,
    and drift is only what differs more. For rows that were shuffled that is next to nothing.

    `outcomes` [rows of `outputs`], 0 or 1: what truly happened, when the only output is the probability of 1. Then performance can
    be estimated without labels later. Tensors that vary in length or have more than `WIDTH_MAX` elements per row are left out.
    Raises `DataError` when an array is missing or is not as the signature says.
    """
    columns = list(_side("input", signature.inputs, inputs, None))
    if outputs is not None:
        columns += _side("output", signature.outputs, outputs, outcomes)
    return FeatureProfile(tuple(columns))


def _side(
    side: Side, tensors: tuple[Tensor, ...], arrays: Mapping[str, Array], outcomes: Array | None
) -> Iterator[ColumnProfile]:
    elements = [(tensor, at, name) for tensor in tensors for at, name in _elements(tensor)]
    if outcomes is not None and (len(elements) != 1 or elements[0][0].datatype == "BYTES"):
        raise DataError("outcomes belong to a single output, the probability of 1; leave them out for other models")
    for tensor, at, name in elements:
        values = _values(tensor, arrays)[:, at]
        if tensor.datatype == "BYTES":
            yield _category(side, tensor.name, at, name, values)
        else:
            yield _number(side, tensor.name, at, name, values.astype(np.float64), outcomes)


def _elements(tensor: Tensor) -> Iterator[tuple[int, str]]:
    match tensor.shape[1:]:
        case ():
            yield 0, tensor.name
        case (int(width),) if width <= WIDTH_MAX:
            names = [column.name for column in tensor.columns] or [f"{tensor.name}[{at}]" for at in range(width)]
            yield from enumerate(names)


def _values(tensor: Tensor, arrays: Mapping[str, Array]) -> Array:
    if tensor.name not in arrays:
        raise DataError(f"the profile needs tensor '{tensor.name}'; there are {sorted(arrays)}")
    array = arrays[tensor.name]
    if not len(array) or array.ndim > 2 or array.size != len(array) * (tensor.shape[1] if tensor.shape[1:] else 1):
        raise DataError(
            f"tensor '{tensor.name}' has shape {list(array.shape)}; its signature says {list(tensor.shape)}"
        )
    return array.reshape(len(array), -1)


def _category(side: Side, tensor: str, at: int, name: str, values: Array) -> ColumnProfile:
    """The commonest `KNOWN_MAX` by name order; what a text is, is the caller's: empty is a category like any other."""
    counted = Counter(map(str, values.tolist()))
    commonest = sorted(counted, key=lambda text: (-counted[text], text))[:KNOWN_MAX]
    known = tuple(sorted(commonest))
    index = {text: place for place, text in enumerate(known)}
    place = np.array([index.get(str(value), len(known)) for value in values.tolist()])
    counts = tuple(np.bincount(place, minlength=len(known) + 1).tolist())
    return ColumnProfile(
        side, tensor, at, name, "category", counts, known=known, stretch_psi=_stretch_psi(place, len(counts))
    )


def _number(
    side: Side, tensor: str, at: int, name: str, values: NDArray[np.float64], outcomes: Array | None
) -> ColumnProfile:
    is_missing = np.isnan(values)
    bins = edges(values[~is_missing])
    if outcomes is not None:
        if outcomes.shape != values.shape or not np.isin(outcomes, (0, 1)).all():
            raise DataError(f"outcomes must be {len(values)} zeros and ones, one for each row of output '{name}'")
        bins = _with_edge(bins, YES_AT)
    count = len(bins) + 1
    place = np.where(is_missing, count, np.searchsorted(bins, values, side="right"))
    counts = np.bincount(place, minlength=count + 1)
    yes = () if outcomes is None else np.bincount(place[outcomes == 1], minlength=count + 1)[:count].tolist()
    return ColumnProfile(
        side, tensor, at, name, "number", tuple(counts[:count].tolist()), edges=tuple(bins.tolist()),
        missing=int(counts[count]), stretch_psi=_stretch_psi(place, count + 1), positives=tuple(yes),
    )  # fmt: skip


def _stretch_psi(place: NDArray[np.int64], bins: int) -> float:
    """The largest PSI of a stretch of rows, each row given by its bin, against all rows."""
    stretches = min(STRETCHES, len(place) // STRETCH_ROWS_MIN)
    if stretches < 2:
        return 0.0
    counted = [np.bincount(part, minlength=bins).astype(np.float64) for part in np.array_split(place, stretches)]
    whole = np.sum(counted, axis=0)
    return max(psi(whole, each) for each in counted)


def edges(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Inner edges for these values, none of them NaN: each a value that occurs, so that few distinct values get a bin each.

    With more than EDGES_MAX + 1 distinct values the edges are quantiles. A column that is nearly always at its minimum (rain) has
    none above it among them; then what is above the minimum is one bin.
    """
    distinct = np.unique(values[np.isfinite(values)])
    if len(distinct) <= EDGES_MAX + 1:
        return distinct[1:]
    shares = np.arange(1, EDGES_MAX + 1) / (EDGES_MAX + 1)
    quantiles = np.unique(np.quantile(values, shares, method="inverted_cdf"))
    above = quantiles[(quantiles > distinct[0]) & np.isfinite(quantiles)]
    return above if len(above) else distinct[1:2]


def _with_edge(bins: NDArray[np.float64], edge: float) -> NDArray[np.float64]:
    """The edge that is nearest gives way where there is no room for one more."""
    if edge in bins:
        return bins
    if len(bins) >= EDGES_MAX:
        bins = np.delete(bins, np.abs(bins - edge).argmin())
    return np.sort(np.append(bins, edge))

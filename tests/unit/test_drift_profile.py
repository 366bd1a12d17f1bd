"""Profiles: bins that hold all rows, the same bytes every time, and refusals that name the column; counting agrees with numpy."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from gateway.contract import codec
from gateway.contract.features import EDGES_MAX, ColumnProfile, FeatureProfile
from gateway.contract.manifest import Column, Signature, Tensor
from gateway.errors import ManifestInvalid
from gateway.features.counting import Plan
from tests.support import models
from tests.support.drifting import window
from trainers.drift.profile import edges, profile
from trainers.errors import DataError

ONE = Signature(inputs=(Tensor("x", "FP32", ("batch",)),), outputs=(Tensor("p", "FP32", ("batch", 1)),))
FLOATS = arrays.arrays(
    np.float32, st.integers(1, 200), elements=st.floats(width=32, allow_nan=True, allow_infinity=True)
)


def of(values: Any) -> ColumnProfile:
    return profile(ONE, {"x": np.asarray(values, np.float32)}).columns[0]


@given(FLOATS)
def test_every_row_is_in_one_bin_and_the_gateway_finds_the_same_one(values: Any) -> None:
    found = profile(ONE, {"x": values})
    assert found.columns[0].rows == len(values)
    counted = window(found, ONE, {"x": values})
    assert tuple(counted.counts[0]) == found.columns[0].counts
    assert counted.missing[0] == found.columns[0].missing == np.count_nonzero(np.isnan(values))


@given(FLOATS, FLOATS)
def test_counts_are_numpys_histogram_of_other_rows_too(values: Any, others: Any) -> None:
    found = profile(ONE, {"x": values})
    counted = window(found, ONE, {"x": others}).counts[0]
    there = others[~np.isnan(others)].astype(np.float64)
    bounds = [-math.inf, *found.columns[0].edges, math.inf]
    expected = [np.count_nonzero((there >= a) & (there < b)) for a, b in itertools.pairwise(bounds)]
    expected[-1] += np.count_nonzero(there == math.inf)
    assert counted.tolist() == expected


def test_few_distinct_values_get_a_bin_each() -> None:
    assert of([1, 1, 2, 7, 7, 7]).edges == (2, 7)
    assert of([1, 1, 2, 7, 7, 7]).counts == (2, 1, 3)
    assert (of([3, 3]).edges, of([3, 3]).counts) == ((), (2,))
    assert (of([math.nan]).counts, of([math.nan]).missing) == ((0,), 1)


def test_many_values_get_bins_of_as_many_rows() -> None:
    found = of(np.random.default_rng(0).normal(size=21_000))
    assert len(found.edges) == EDGES_MAX
    assert max(found.counts) - min(found.counts) <= 2


def test_rain_is_seen_though_it_hardly_ever_rains() -> None:
    amounts = np.zeros(10_000)
    amounts[:100] = np.linspace(0.01, 3, 100)
    assert edges(amounts).tolist() == [pytest.approx(0.01)]
    assert of(amounts).counts == (9900, 100)


def test_the_commonest_categories_are_known_and_the_others_one() -> None:
    signature = models.TINY_SIGNATURE
    texts = np.array([[f"c{min(at // 2, 150)}", ""] for at in range(1000)], dtype=object)
    found = profile(signature, {"categories": texts, "numbers": np.zeros((1000, 3), np.float32)})
    carrier, origin = found.columns[:2]
    assert (carrier.name, len(carrier.known), carrier.counts[-1]) == ("carrier", 100, 102)
    assert "c150" in carrier.known
    assert (origin.known, origin.counts) == (("",), (1000, 0))


def test_equal_arrays_give_equal_bytes_that_can_be_read_again() -> None:
    rng = np.random.default_rng(3)
    rows = {
        "categories": rng.choice(["a", "b"], (900, 2)).astype(object),
        "numbers": rng.normal(size=(900, 3)).astype(np.float32),
    }
    answers, outcomes = rng.random((900, 1)).astype(np.float32), rng.integers(0, 2, 900)
    first, again = (
        codec.encode(profile(models.TINY_SIGNATURE, rows, {"probability": answers}, outcomes)) for _ in "12"
    )
    assert first == again
    read = codec.decode(first, FeatureProfile)
    assert codec.encode(read) == first
    assert [column.name for column in read.columns] == [
        "carrier", "origin", "hour", "distance", "wind", "late_probability",
    ]  # fmt: skip
    assert 0.5 in read.columns[-1].edges
    assert sum(read.columns[-1].positives) == outcomes.sum()


def test_wide_and_ragged_tensors_are_left_out() -> None:
    signature = Signature(
        inputs=(Tensor("image", "FP32", ("batch", 3, 8, 8)), Tensor("ids", "INT64", ("batch", "tokens"))),
        outputs=(Tensor("scores", "FP32", ("batch", 2)), Tensor("embedding", "FP32", ("batch", 384))),
    )
    found = profile(signature, {}, {"scores": np.zeros((5, 2), np.float32)})
    assert [column.name for column in found.columns] == ["scores[0]", "scores[1]"]


@pytest.mark.parametrize(
    ("inputs", "outputs", "outcomes", "message"),
    [
        ({}, None, None, "needs tensor 'x'"),
        ({"x": np.zeros(0)}, None, None, "'x' has shape"),
        ({"x": np.zeros((3, 2))}, None, None, "'x' has shape"),
        ({"x": np.zeros(3)}, {"p": np.zeros((2, 1))}, np.array([0, 2]), "2 zeros and ones"),
        ({"x": np.zeros(3)}, {"p": np.zeros((2, 1))}, np.array([0, 1, 1]), "2 zeros and ones"),
    ],
)
def test_rows_that_are_not_as_the_signature_says_are_refused(
    inputs: Any, outputs: Any, outcomes: Any, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        profile(ONE, inputs, outputs, outcomes)


@pytest.mark.parametrize(
    "broken",
    [
        {"counts": (1,)},
        {"edges": (2.0, 1.0)},
        {"edges": (1.0, 1.0)},
        {"positives": (2, 0, 0)},
        {"positives": (0,)},
        {"missing": -1},
    ],
)
def test_a_profile_that_contradicts_itself_is_refused(broken: dict[str, Any]) -> None:
    fields = {"counts": (1, 2, 3), "edges": (1.0, 2.0), **broken}
    with pytest.raises((ValueError, ManifestInvalid)):
        codec.encode(FeatureProfile((ColumnProfile("input", "x", 0, "x", "number", **fields),)))


@pytest.mark.parametrize(
    ("tensor", "at", "kind"), [("y", 0, "number"), ("numbers", 3, "number"), ("numbers", 0, "category")]
)
def test_a_profile_of_another_signature_is_refused(tensor: str, at: int, kind: Any) -> None:
    alien = FeatureProfile((ColumnProfile("input", tensor, at, "alien", kind, (0,)),))
    with pytest.raises(ManifestInvalid, match="column 'alien'"):
        Plan(alien, models.TINY_SIGNATURE)


def test_the_name_of_a_column_may_be_anything() -> None:
    signature = Signature((Tensor("x", "BOOL", ("batch", 1), (Column("[red]", "boolean"),)),), ONE.outputs)
    found = profile(signature, {"x": np.array([[True], [False], [True]])})
    assert (found.columns[0].name, found.columns[0].counts) == ("[red]", (1, 2))

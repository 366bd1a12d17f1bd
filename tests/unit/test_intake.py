"""Loaded data: what a spec pins is compared, and what cannot be trained on is refused with its name."""

from datetime import date

import msgspec
import numpy as np
import pytest

from gateway.contract.manifest import DataSource
from tests.support.tinyjob import tiny_data
from trainers import intake
from trainers.errors import DataError, SpecError
from trainers.spec.durations import Duration
from trainers.spec.jobspec import DataPin

TODAY = date(2026, 11, 30)
SOURCE = DataSource(name="rows.csv", sha256="a" * 64, rows=1000, first="2026-01-01", last="2026-11-24")


def pin(**fields: object) -> DataPin:
    return DataPin(**{"name": "rows.csv", "uri": "https://example.org/rows.csv", **fields})


@pytest.mark.parametrize("fields", [{}, {"sha256": "a" * 64}, {"min_rows": 1000}, {"max_age": Duration("6d")}])
def test_data_that_is_as_pinned_is_taken(fields: dict[str, object]):
    intake.require([pin(**fields)], [SOURCE], TODAY)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sha256": "b" * 64}, "has digest a{64}, pinned is b{64}"),
        ({"min_rows": 1001}, "has 1,000 rows, at least 1,001 are needed"),
        ({"max_age": Duration("5d")}, "ends on 2026-11-24, 5d before today is 2026-11-25"),
        ({"name": "other.csv"}, "the recipe read no such source; it read: rows.csv"),
    ],
)
def test_data_that_is_not_as_pinned_is_refused(fields: dict[str, object], message: str):
    with pytest.raises(DataError, match=message):
        intake.require([pin(**fields)], [SOURCE], TODAY)


@pytest.mark.parametrize("last", ["", "2026-11", "yesterday", "2026-11-24T23:00:00"])
def test_an_age_that_the_recipe_does_not_tell_is_refused(last: str):
    with pytest.raises(SpecError, match="has a max_age, and the recipe"):
        intake.require([pin(max_age=Duration("5d"))], [msgspec.structs.replace(SOURCE, last=last)], TODAY)


def test_a_column_without_any_number_is_named():
    data = tiny_data()
    data.train.inputs["numbers"][:, 2] = np.nan
    with pytest.raises(DataError, match="column 'wind' has no number in any of 2,400 training rows"):
        intake.check(data)


def test_ragged_and_empty_splits_are_named():
    data = tiny_data()
    ragged = msgspec.structs.replace(data.test, targets=data.test.targets[:-1])
    with pytest.raises(DataError, match=r"the test split is empty or ragged: its arrays have \[799, 800\] rows"):
        intake.check(msgspec.structs.replace(data, test=ragged))
    with pytest.raises(DataError, match=r"the validation split is empty or ragged: its arrays have \[0\] rows"):
        intake.check(msgspec.structs.replace(data, validation=data.validation.picked(np.arange(0))))

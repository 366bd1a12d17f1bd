"""Data that a spec pins: what is taken, and what is refused with both sides in the message."""

from datetime import date

import msgspec
import pytest

from gateway.contract.manifest import DataSource
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

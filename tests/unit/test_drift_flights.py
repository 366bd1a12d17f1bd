"""Real rows: flights of January to March as training, and the rest of 2013 as what callers sent."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from gateway.contract.features import FeatureProfile
from gateway.contract.manifest import Signature
from tests.support.drifting import window
from trainers.drift.profile import profile
from trainers.drift.trigger import Rule, Verdict, decide, judge
from trainers.drift.windows import Window
from trainers.recipes import flights

Inputs = Mapping[str, Any]


class Year:
    """All flights in order of time, with the week of the year that each is in."""

    def __init__(self) -> None:
        table = flights._table(*flights._csv_files())
        self.inputs: Inputs = flights._split(table, 1, 12).inputs
        self.months = table["month"].to_numpy()
        self.weeks = ((table["date"] - table["date"].min()).dt.days // 7).to_numpy()
        known = [tuple(np.unique(values)) for values in self.inputs["categories"].T]
        self.signature: Signature = flights._signature(known)
        self.profile: FeatureProfile = profile(self.signature, self.some(self.months <= 3))

    def some(self, chosen: Any) -> dict[str, Any]:
        return {name: values[chosen] for name, values in self.inputs.items()}

    def window(self, chosen: Any) -> Window:
        return window(self.profile, self.signature, self.some(chosen))

    def weekly(self, first: int, last: int) -> list[Window]:
        return [self.window(self.weeks == week) for week in range(first, last + 1)]


@pytest.fixture(scope="module")
def year() -> Year:
    return Year()


def drifted(verdict: Verdict) -> set[str]:
    return {column.name for column in verdict.columns if column.is_drifted}


def test_random_rows_of_the_same_months_are_called_different_no_more_often_than_they_may(year: Year) -> None:
    """Evidence alone, at 5 %, on rows that the profile did not see: half of the months is profiled, the other half judged."""
    months = np.flatnonzero(year.months <= 3)
    rng = np.random.default_rng(0)
    shuffled = rng.permutation(months)
    seen, unseen = np.sort(shuffled[: len(months) // 2]), shuffled[len(months) // 2 :]
    reference = profile(year.signature, year.some(seen))
    rule = Rule(alpha=0.05, psi_min=0.0)
    parts = np.array_split(unseen, 70)
    counted = [window(reference, year.signature, year.some(part)) for part in parts]
    alarms = sum(any(column.q <= rule.alpha for column in judge(reference, each, rule).columns) for each in counted)
    assert alarms <= rule.alpha * len(parts)


def test_no_week_of_the_training_months_is_drift(year: Year) -> None:
    weeks = year.weekly(0, 11)
    assert not any(decide(year.profile, weeks[: last + 1], Rule()).is_drifted for last in range(2, len(weeks)))


def test_july_is_drift_in_temperature_and_not_in_who_flies(year: Year) -> None:
    found = decide(year.profile, year.weekly(26, 29), Rule())
    assert {"temp", "dewp"} <= drifted(found)
    assert not {"carrier", "origin", "distance", "departure_minute"} & drifted(found)


def test_winter_comes_back_and_so_does_calm(year: Year) -> None:
    assert "temp" not in drifted(decide(year.profile, year.weekly(48, 51), Rule()))

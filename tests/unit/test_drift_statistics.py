"""Effect and evidence: against scipy on the raw values, and the rate of false alarms over a thousand windows without drift."""

from collections.abc import Sequence

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import stats

from gateway.contract.features import FeatureProfile
from gateway.contract.manifest import Column, Signature, Tensor
from tests.support.drifting import Array, window
from trainers.drift import statistics, trigger
from trainers.drift.profile import profile

COUNTS = arrays.arrays(np.float64, st.integers(1, 30), elements=st.integers(0, 500).map(float))
NUMBERS, CATEGORIES = 6, 3
SIGNATURE = Signature(
    inputs=(
        Tensor("numbers", "FP32", ("batch", NUMBERS), tuple(Column(f"n{at}", "number") for at in range(NUMBERS))),
        Tensor("texts", "BYTES", ("batch", CATEGORIES), tuple(Column(f"c{at}", "string") for at in range(CATEGORIES))),
    ),
    outputs=(Tensor("y", "FP32", ("batch", 1)),),
)


def rows(rng: np.random.Generator, count: int, *, shift: float = 0.0) -> dict[str, Array]:
    """Of one distribution, unless n0 is shifted by so many of its standard deviations: gaps, ties, long tails, rare categories."""
    numbers = rng.normal(size=(count, NUMBERS)).astype(np.float32)
    numbers[:, 0] += shift
    numbers[:, 1] = rng.integers(1, 8, count)
    numbers[:, 2] = np.where(rng.random(count) < 0.97, 0, rng.exponential(size=count))
    numbers[rng.random(count) < 0.1, 3] = np.nan
    numbers[:, 4] = rng.pareto(1, count)
    texts = [rng.choice(list("abcdefghij"), count, p=share) for share in _shares()]
    return {"numbers": numbers, "texts": np.stack(texts, axis=1).astype(object)}


def _shares() -> Sequence[Array]:
    skewed = 0.5 ** np.arange(1, 11)
    return np.full(10, 0.1), skewed / skewed.sum(), np.array([0.99, *[0.01 / 9] * 9])


def strict(of: FeatureProfile) -> FeatureProfile:
    """Without what stretches of training may differ by: evidence alone decides."""
    columns = tuple(msgspec.structs.replace(column, stretch_psi=0.0) for column in of.columns)
    return msgspec.structs.replace(of, columns=columns)


@given(COUNTS)
def test_a_sample_differs_from_itself_by_nothing(counts: Array) -> None:
    assert statistics.psi(counts, counts) == 0
    for is_number in (True, False):
        assert statistics.evidence(is_number, counts, 3, counts, 3).p == 1


@given(st.data())
def test_every_figure_is_in_range_whatever_is_counted(data: st.DataObject) -> None:
    reference = data.draw(COUNTS)
    now = data.draw(arrays.arrays(np.float64, len(reference), elements=st.integers(0, 500).map(float)))
    missing, now_missing = data.draw(st.integers(0, 50)), data.draw(st.integers(0, 50))
    assert statistics.psi(reference, now) >= 0
    for is_number in (True, False):
        found = statistics.evidence(is_number, reference, missing, now, now_missing)
        assert 0 <= found.p <= 1
        assert np.isfinite(found.statistic)


def test_chi_square_is_scipys_where_no_category_is_rare() -> None:
    reference, now = np.array([500.0, 300, 200]), np.array([60.0, 20, 20])
    expected = stats.chi2_contingency(np.stack([reference, now]), correction=False)
    found = statistics.chi2(reference, now)
    assert (found.statistic, found.p) == pytest.approx((expected.statistic, expected.pvalue))


def test_ks_of_a_bin_per_value_is_scipys() -> None:
    rng = np.random.default_rng(0)
    before, now = rng.integers(0, 15, 3000), rng.integers(0, 16, 800)
    found = statistics.ks(*(np.bincount(values, minlength=16).astype(np.float64) for values in (before, now)))
    expected = stats.ks_2samp(before, now, method="asymp")
    assert found.statistic == pytest.approx(expected.statistic)
    assert found.p == pytest.approx(expected.pvalue, rel=0.1)  # scipy's asymptotic is a refinement of the same limit


def test_a_category_nobody_knew_is_seen_however_rare_the_known_ones_are() -> None:
    reference, now = np.array([10_000.0, 3, 2, 0]), np.array([900.0, 0, 0, 100])
    assert statistics.chi2(reference, now).p < 1e-100


def test_one_row_of_a_new_category_is_no_evidence() -> None:
    assert statistics.chi2(np.array([10_000.0, 0]), np.array([999.0, 1])).p > 0.001


def test_more_missing_values_are_evidence_though_the_others_are_as_before() -> None:
    values = np.array([500.0, 500])
    found = statistics.evidence(True, values, 10, values / 2, 400)
    assert found.test == "missing"
    assert found.p < 1e-50


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_q_values_are_benjamini_and_hochbergs(ps: list[float]) -> None:
    assert statistics.adjusted(ps) == pytest.approx(list(stats.false_discovery_control(ps)))


@pytest.mark.parametrize("windows", [200, pytest.param(1000, marks=pytest.mark.e2e)])
def test_windows_without_drift_alarm_no_more_often_than_they_may(windows: int) -> None:
    """Evidence alone, with no help from PSI or k of n. References are drawn anew: one odd reference would alarm all its windows."""
    alpha, alarms = 0.05, 0
    rng = np.random.default_rng(7)
    rule = trigger.Rule(alpha=alpha, psi_min=0.0)
    for _ in range(windows):
        found = strict(profile(SIGNATURE, rows(rng, 2000)))
        verdict = trigger.judge(found, window(found, SIGNATURE, rows(rng, 500)), rule)
        alarms += any(column.is_different for column in verdict.columns)
    assert 0 < alarms <= alpha * windows


def test_a_real_shift_is_found_in_nearly_every_window_and_in_its_column() -> None:
    rng = np.random.default_rng(8)
    rule = trigger.Rule(k=2, n=2)
    found = profile(SIGNATURE, rows(rng, 2000))
    hits = 0
    for _ in range(100):
        windows = [window(found, SIGNATURE, rows(rng, 500, shift=0.6)) for _ in range(2)]
        drifted = [column.name for column in trigger.decide(found, windows, rule).columns if column.is_drifted]
        hits += drifted == ["n0"]
    assert hits >= 90

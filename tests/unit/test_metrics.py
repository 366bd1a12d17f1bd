"""The metrics against their definitions, and the baseline on data where the answer is known."""

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from tests.support.tinyjob import tiny_data
from trainers.baseline import logistic_baseline
from trainers.errors import DataError
from trainers.job import Data
from trainers.metrics import MACRO_F1
from trainers.objectives import binary

SCORED = st.lists(st.tuples(st.booleans(), st.integers(0, 20)), min_size=2, max_size=40)


def test_perfect_probabilities_have_perfect_metrics():
    targets = np.array([0, 1, 0, 1])
    assert binary().measure(targets, targets.astype(float)) == {"roc_auc": 1.0, "average_precision": 1.0, "brier": 0.0}


@given(SCORED)
def test_roc_auc_is_the_share_of_pairs_in_the_right_order(scored):
    late = [score for positive, score in scored if positive]
    early = [score for positive, score in scored if not positive]
    if not (late and early):
        return
    pairs = [(a > b) + (a == b) / 2 for a in late for b in early]
    targets, scores = (np.array(values) for values in zip(*scored, strict=True))
    assert binary().measure(targets, scores / 20)["roc_auc"] == pytest.approx(np.mean(pairs))


def test_brier_is_the_mean_squared_error():
    metrics = binary().measure(np.array([0, 1, 1]), np.array([0.5, 0.5, 0.8]))
    assert metrics["brier"] == pytest.approx((0.25 + 0.25 + 0.04) / 3)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=50))
def test_macro_f1_is_scikit_learns(named):
    targets, answers = (np.array(values) for values in zip(*named, strict=True))
    expected = f1_score(targets, answers, average="macro", zero_division=0.0)
    assert MACRO_F1.measure(targets, np.eye(4)[answers]) == pytest.approx(expected)


@pytest.mark.parametrize(("targets", "positives"), [([0, 0], "0 of 2"), ([1, 1], "2 of 2")])
def test_one_class_is_refused_with_its_count(targets, positives):
    with pytest.raises(DataError, match=f"{positives} rows are positive"):
        binary().measure(np.array(targets), np.array([0.1, 0.9]))


@pytest.mark.parametrize("probability", [np.nan, -0.1, 1.1])
def test_what_is_no_probability_is_refused(probability):
    with pytest.raises(DataError, match=r"outside|NaN or infinite"):
        binary().measure(np.array([0, 1]), np.array([0.5, probability]))


def test_baseline_learns_what_is_linear():
    data = tiny_data()
    assert binary().measure(data.test.targets, logistic_baseline(data))["roc_auc"] > 0.75


def test_baseline_takes_unknown_categories_and_columns_without_a_number():
    data = tiny_data()
    train = msgspec.structs.replace(data.train, inputs=_without_the_last_number(data))
    probabilities = logistic_baseline(msgspec.structs.replace(data, train=train))
    assert "ZZ" in data.test.inputs["categories"][:, 0]
    assert np.isfinite(probabilities).all()


def _without_the_last_number(data: Data) -> dict[str, np.ndarray]:
    numbers = data.train.inputs["numbers"].copy()
    numbers[:, -1] = np.nan
    return dict(data.train.inputs) | {"numbers": numbers}

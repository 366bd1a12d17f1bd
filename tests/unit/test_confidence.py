"""Intervals of a metric: they hold the truth as often as they say, and narrow for a difference on the same rows."""

import msgspec
import numpy as np

from trainers import confidence
from trainers.metrics import ACCURACY
from trainers.objectives import binary, multiclass, regression

ONLY_ACCURACY = msgspec.structs.replace(multiclass(3), metrics=(ACCURACY,))


def answered(rng: np.random.Generator, rows: int, right: float) -> tuple[np.ndarray, np.ndarray]:
    """Targets of three classes, and answers that name the right one this often."""
    targets = rng.integers(0, 3, rows)
    named = np.where(rng.random(rows) < right, targets, (targets + 1) % 3)
    return targets, np.eye(3)[named] * 0.7 + 0.1


def test_the_interval_holds_the_true_accuracy_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(60):
        targets, answers = answered(rng, 300, 0.8)
        low, high = confidence.compare(ONLY_ACCURACY, targets, answers, answers).own["accuracy"]
        held += low <= 0.8 <= high
    assert 51 <= held <= 60


def test_a_difference_of_nothing_is_no_gain_and_no_loss():
    targets, answers = answered(np.random.default_rng(1), 200, 0.8)
    gains = confidence.compare(multiclass(3), targets, answers, answers).gains
    assert set(gains.values()) == {(0.0, 0.0)}


def test_more_confidence_takes_a_wider_interval():
    rng = np.random.default_rng(3)
    targets, answers = answered(rng, 300, 0.8)
    _, others = answered(rng, 300, 0.7)
    ends = [
        confidence.compare(multiclass(3), targets, answers, others, level=level).gains["accuracy"]
        for level in (80.0, 95.0, 99.0)
    ]
    assert ends[2][0] < ends[1][0] < ends[0][0] < ends[0][1] < ends[1][1] < ends[2][1]


def test_what_is_better_in_every_metric_gains_in_every_metric_whichever_way_it_counts():
    rng = np.random.default_rng(2)
    targets = (rng.random(500) < 0.4).astype(np.float32)
    good, poor = (np.clip(0.5 + edge * (targets - 0.5) + rng.normal(0, 0.15, 500), 0, 1) for edge in (0.6, 0.1))
    sure = confidence.compare(binary(), targets, good, poor)
    assert all(low > 0 for low, _ in sure.gains.values())
    assert sure.own["brier"][1] < sure.baseline["brier"][0]


def test_the_difference_on_the_same_rows_is_surer_than_either():
    rng = np.random.default_rng(3)
    targets = rng.normal(0, 10, 1000)
    noise = rng.normal(0, 5, 1000)
    sure = confidence.compare(regression(), targets, targets + noise, targets + noise * 1.02)
    width = [high - low for low, high in (sure.own["rmse"], sure.gains["rmse"])]
    assert sure.gains["rmse"][0] > 0
    assert width[1] < width[0] / 5


def test_the_same_answers_give_the_same_interval():
    targets, answers = answered(np.random.default_rng(4), 100, 0.7)
    assert confidence.compare(multiclass(3), targets, answers, answers) == confidence.compare(
        multiclass(3), targets, answers, answers
    )

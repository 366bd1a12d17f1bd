"""The verdict: k of the last n windows, never on too few rows, and with a sentence that says why."""

from typing import Any

import numpy as np
import pytest

from gateway.contract.manifest import Column, Signature, Tensor
from tests.support.drifting import window
from trainers.drift import estimate
from trainers.drift.profile import profile
from trainers.drift.trigger import Rule, Verdict, decide
from trainers.drift.windows import Window

SIGNATURE = Signature(
    inputs=(Tensor("x", "FP32", ("batch", 2), (Column("a", "number"), Column("b", "number"))),),
    outputs=(Tensor("p", "FP32", ("batch", 1)),),
)
RNG = np.random.default_rng(1)


def matrix(rows: int, shift: float = 0.0) -> dict[str, Any]:
    return {"x": (RNG.normal(size=(rows, 2)) + np.array([shift, 0])).astype(np.float32)}


PROFILE = profile(SIGNATURE, matrix(5000))
DRAWN = RNG.bit_generator.state


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    """Each test draws what it would draw alone, whatever ran before."""
    RNG.bit_generator.state = DRAWN


def windows(*shifts: float | None, rows: int = 1000) -> list[Window]:
    """None is a window of few rows, all of them far away."""
    return [window(PROFILE, SIGNATURE, matrix(40, 9.0) if shift is None else matrix(rows, shift)) for shift in shifts]


def verdict(*shifts: float | None, rule: Rule = Rule()) -> Verdict:  # noqa: B008 - frozen
    return decide(PROFILE, windows(*shifts), rule)


def test_one_strange_window_is_not_enough_and_two_of_three_are() -> None:
    assert not verdict(0, 0, 1).is_drifted
    assert not verdict(0, 1, 0).is_drifted
    found = verdict(1, 0, 1)
    assert found.is_drifted
    assert [(column.name, column.different, column.is_drifted) for column in found.columns] == [
        ("a", 2, True),
        ("b", 0, False),
    ]
    assert found.sentence == "drift: 'a' in at least 2 of the last 3 windows"
    assert found.columns[0].sentence == "different in 2 of 3 windows, 2 are enough"


def test_only_the_last_n_windows_count_and_all_are_shown() -> None:
    found = verdict(1, 1, 1, 0, 0)
    assert not found.is_drifted
    assert [window.columns[0].is_different for window in found.windows] == [True, True, True, False, False]


def test_two_columns_that_are_different_once_each_are_not_one_that_is_twice() -> None:
    odd = window(PROFILE, SIGNATURE, {"x": matrix(1000)["x"] + np.float32([0, 2])})
    assert not decide(PROFILE, [*windows(0, 1), odd], Rule()).is_drifted


def test_too_few_rows_never_trigger_and_say_so() -> None:
    found = verdict(None, None, None)
    assert not found.is_drifted
    assert found.judged == 0
    assert found.sentence.startswith(
        "not enough rows: 0 of the last 3 windows have 500, 2 are needed (counted rows per window: 40, 40, 40); wait"
    )
    assert {column.sentence for column in found.columns} == {"not enough rows to judge"}
    assert not verdict(1, None, None).is_drifted
    assert verdict(1, 1, None).is_drifted


def test_no_window_at_all_is_no_drift() -> None:
    assert not decide(PROFILE, [], Rule()).is_drifted


def test_a_real_difference_that_is_small_is_none() -> None:
    found = decide(PROFILE, windows(0.1, 0.1, 0.1, rows=50_000), Rule())
    assert not found.is_drifted
    latest = found.columns[0].latest
    assert latest is not None
    assert latest.q < 1e-6
    assert "too small to matter" in found.columns[0].sentence


def test_what_training_differed_by_itself_is_no_drift_and_more_is() -> None:
    """A sawtooth of ten weeks: any week is far from all ten, and no news. A week far above all of them is."""
    levels = np.repeat(np.arange(10) % 5, 1000)
    rows = (RNG.normal(size=(10_000, 2)) + np.stack([levels, np.zeros(10_000)], axis=1)).astype(np.float32)
    found = profile(SIGNATURE, {"x": rows})
    assert found.columns[0].stretch_psi > 0.5
    assert found.columns[1].stretch_psi < 0.1
    weeks = [window(found, SIGNATURE, matrix(1000, float(level))) for level in (3, 4, 4)]
    assert not decide(found, weeks, Rule()).is_drifted
    weeks = [window(found, SIGNATURE, matrix(1000, 8.0)) for _ in range(3)]
    assert decide(found, weeks, Rule()).is_drifted


def test_a_rule_that_cannot_be_kept_is_refused() -> None:
    with pytest.raises(ValueError, match="only n = 2"):
        Rule(k=3, n=2)


def outputs(rows: int, mean: float) -> tuple[Any, Any]:
    """Calibrated probabilities [rows, 1] and outcomes drawn from them."""
    p = 1 / (1 + np.exp(-RNG.normal(mean, 1.5, rows)))
    return p[:, None].astype(np.float32), (RNG.random(rows) < p).astype(np.float32)


def test_performance_is_estimated_without_labels_close_to_what_labels_say() -> None:
    from sklearn.metrics import roc_auc_score

    held_out, outcomes = outputs(40_000, -1.0)
    now, truth = outputs(40_000, 1.0)
    found = profile(SIGNATURE, matrix(40_000), {"p": held_out}, outcomes)
    guess = estimate.estimate(found, window(found, SIGNATURE, matrix(40_000), {"p": now}))
    assert guess is not None
    # Bins cost what was moved between them 0.011, 0.029 and 0.012, with deviations of 0.004, 0.005 and 0.005 over 40 seeds.
    known = (guess.held_out, held_out, outcomes, 0.002, 0.003, 0.002)
    for performance, p, y, accuracy, auc, share in (known, (guess.expected, now, truth, 0.03, 0.05, 0.03)):
        assert performance.accuracy == pytest.approx(((p[:, 0] >= 0.5) == y).mean(), abs=accuracy)
        assert performance.roc_auc == pytest.approx(roc_auc_score(y, p[:, 0]), abs=auc)
        assert performance.yes_share == pytest.approx(y.mean(), abs=share)


def test_without_known_outcomes_nothing_is_estimated() -> None:
    assert estimate.estimate(PROFILE, windows(0)[0]) is None

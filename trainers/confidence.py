"""How far a metric may be off because only so many rows were judged: intervals by the paired bootstrap.

The same resamples of rows judge the model and its baseline, so that what is easy or hard about the rows cancels out of the
difference (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapters 13 and 16). Called by `trainers.run`.
"""

import msgspec
import numpy as np

from trainers.arrays import Array
from trainers.objectives import Objective, flat

RESAMPLES = 400
"""The ends of a 95 % interval are then the 10th values from either end; ten times as many would move them by less than they say."""

RESAMPLED_ROWS_MAX = 10_000_000
"""Rows over all resamples: of a larger split fewer are drawn, at least `RESAMPLES_MIN`; their intervals are narrow anyway."""

RESAMPLES_MIN = 100
LEVEL = 95.0

Interval = tuple[float, float]


class Confidence(msgspec.Struct, frozen=True):
    """By metric: of the model, of the baseline, and of how much better the model is."""

    own: dict[str, Interval]
    baseline: dict[str, Interval]
    gains: dict[str, Interval]


def compare(
    objective: Objective, targets: Array, answers: Array, baseline: Array, *, seed: int = 0, level: float = LEVEL
) -> Confidence:
    """All three for answers [rows, ...] of both to the same rows; `level` in percent.

    A resample in which a metric is undefined does not count.
    """
    rng = np.random.default_rng(seed)
    answers, baseline = flat(answers).astype(np.float64), flat(baseline).astype(np.float64)
    resamples = min(RESAMPLES, max(RESAMPLES_MIN, RESAMPLED_ROWS_MAX // len(targets)))
    drawn: list[tuple[list[float], list[float]]] = []
    for _ in range(resamples):
        rows = rng.integers(0, len(targets), len(targets))
        if len(np.unique(targets[rows])) > 1:
            drawn.append((_measured(objective, targets, answers, rows), _measured(objective, targets, baseline, rows)))
    own, simple = np.array([one for one, _ in drawn]), np.array([other for _, other in drawn])
    names = [metric.name for metric in objective.metrics]
    signs = np.array([1.0 if metric.higher_is_better else -1.0 for metric in objective.metrics])
    gains = (own - simple) * signs
    return Confidence(*(_intervals(names, samples, level) for samples in (own, simple, gains)))


def _measured(objective: Objective, targets: Array, answers: Array, rows: Array) -> list[float]:
    return [metric.measure(targets[rows], answers[rows]) for metric in objective.metrics]


def _intervals(names: list[str], samples: Array, level: float) -> dict[str, Interval]:
    low, high = np.percentile(samples, (50 - level / 2, 50 + level / 2), axis=0)
    return {name: (float(a), float(b)) for name, a, b in zip(names, low, high, strict=True)}

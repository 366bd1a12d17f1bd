"""The model beside its baseline on the very same held-out rows, with intervals that say whether the difference is one.

Called by `trainers.run` once the variants are judged. Trains nothing but the baseline.
"""

from collections.abc import Sequence

import msgspec
import numpy as np

from gateway.contract.manifest import Evaluation
from trainers import confidence
from trainers.arrays import Array
from trainers.errors import DataError, SpecError
from trainers.evaluate.judge import SPLIT, Verdict
from trainers.job import Data, TrainJob

BASELINE = "baseline:"
"""A subject that starts so is no variant."""


class Compared(msgspec.Struct, frozen=True):
    """The baseline's evaluation and then every variant's, the served one with intervals; the judged rows and what it answered."""

    evaluations: tuple[Evaluation, ...]
    targets: Array
    answers: Array


def compare(job: TrainJob, data: Data, verdict: Verdict) -> Compared:
    """Raises `SpecError` for a baseline that does not answer every test row."""
    rows = data.test.spread(job.limits.rows_max)
    simple = np.asarray(job.baseline.predict(data))
    if len(simple) != data.test.rows:
        raise SpecError(
            f"baseline '{job.baseline.name}' answers {len(simple):,} rows; the test split has {data.test.rows:,}"
        )
    targets, simple = data.test.targets[rows], simple[rows]
    (answers,) = verdict.answers[verdict.serve].values()
    measured = _measured(job, targets, simple)
    sure = confidence.compare(job.objective, targets, answers, simple)
    baseline = Evaluation(
        subject=f"{BASELINE}{job.baseline.name}",
        split=SPLIT,
        rows=len(rows),
        metrics=measured,
        intervals=sure.baseline,
    )
    variants = [
        msgspec.structs.replace(evaluation, intervals=sure.own, gains=sure.gains)
        if evaluation.subject == verdict.serve
        else evaluation
        for evaluation in verdict.evaluations
    ]
    return Compared((baseline, *variants), targets, answers)


def _measured(job: TrainJob, targets: Array, answers: Array) -> dict[str, float]:
    """The baseline's metrics; what is wrong with its answers is said of it and not of the model."""
    try:
        return job.objective.measure(targets, answers)
    except DataError as error:
        raise DataError(f"baseline '{job.baseline.name}': {error}") from error


def doubtful(evaluations: Sequence[Evaluation]) -> list[str]:
    """The metrics by which the model is not surely better than its baseline."""
    found = [evaluation.gains for evaluation in evaluations if evaluation.gains is not msgspec.UNSET]
    return [name for gains in found for name, (low, _) in gains.items() if low <= 0]

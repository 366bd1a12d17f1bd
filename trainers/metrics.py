"""How good probabilities of a yes-or-no outcome are, in three numbers that every stage and every report names alike.

`fit` watches them on the validation split, `evaluate` gates on them on the test split. Higher is better but for `brier`.
"""

import numpy as np
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from trainers.errors import DataError
from trainers.job import Array


def binary_metrics(targets: Array, probabilities: Array) -> dict[str, float]:
    """`roc_auc` and `average_precision` judge the order, `brier` (mean squared error of the probability) also the calibration.

    Both arrays hold one value per row, targets 0 or 1. Raises `DataError` where a metric is undefined: one class only, or a
    probability that is not in [0, 1].
    """
    positives = int(np.count_nonzero(targets))
    if positives in (0, len(targets)):
        raise DataError(f"metrics need both outcomes; {positives} of {len(targets)} rows are positive")
    if not ((probabilities >= 0) & (probabilities <= 1)).all():
        raise DataError("a probability is NaN or outside [0, 1]; check the model's output")
    return {
        "roc_auc": float(roc_auc_score(targets, probabilities)),
        "average_precision": float(average_precision_score(targets, probabilities)),
        "brier": float(brier_score_loss(targets, probabilities)),
    }

"""Measures of a model's answers, by the names that every stage and every report use. Which ones a job has, its objective says.

`fit` watches the first of an objective's on the validation split, `evaluate` gates on all of them on the test split.
"""

from collections.abc import Callable

import msgspec
import numpy as np
from sklearn.metrics import average_precision_score, r2_score, roc_auc_score

from trainers.arrays import Array


class Metric(msgspec.Struct, frozen=True):
    """`measure` takes targets [rows] and answers [rows, ...] as served. An error's unit is the target's, hence `is_relative`."""

    name: str
    measure: Callable[[Array, Array], float]
    higher_is_better: bool = True
    is_relative: bool = False
    """Whether a change of it means something only as a share of its value."""

    def loss(self, before: float, after: float) -> float:
        """How much worse `after` is than `before`; negative when it is better."""
        worse = before - after if self.higher_is_better else after - before
        return worse / max(abs(before), 1e-12) if self.is_relative else worse

    @property
    def loss_name(self) -> str:
        return f"{self.name}_{'drop' if self.higher_is_better else 'rise'}"


def _roc_auc(targets: Array, answers: Array) -> float:
    return float(roc_auc_score(targets, answers))


def _average_precision(targets: Array, answers: Array) -> float:
    return float(average_precision_score(targets, answers))


def _brier(targets: Array, answers: Array) -> float:
    return float(np.mean((answers - targets) ** 2))


def _accuracy(targets: Array, answers: Array) -> float:
    return float(np.mean(answers.argmax(axis=1) == targets))


def _macro_f1(targets: Array, answers: Array) -> float:
    """The mean over the classes that occur, in truth or in answers; counted here, since intervals ask for it hundreds of times."""
    classes = answers.shape[1]
    counts = np.bincount(targets.astype(np.int64) * classes + answers.argmax(axis=1), minlength=classes**2)
    table = counts.reshape(classes, classes)
    found = table.sum(axis=0) + table.sum(axis=1)
    occurs = found > 0
    return float(np.mean(2 * table.diagonal()[occurs] / found[occurs]))


def _log_loss(targets: Array, answers: Array) -> float:
    own = np.take_along_axis(answers, targets.astype(np.int64)[:, None], axis=1)
    return float(-np.log(np.maximum(own, np.finfo(np.float32).tiny)).mean())


def _mae(targets: Array, answers: Array) -> float:
    return float(np.abs(answers - targets).mean())


def _rmse(targets: Array, answers: Array) -> float:
    return float(np.sqrt(((answers - targets) ** 2).mean()))


def _r2(targets: Array, answers: Array) -> float:
    return float(r2_score(targets, answers))


ROC_AUC = Metric("roc_auc", _roc_auc)
"""Judges the order alone. It does not depend on how frequent the outcome is, which in a split by time differs."""

AVERAGE_PRECISION = Metric("average_precision", _average_precision)
BRIER = Metric("brier", _brier, higher_is_better=False)
"""Mean squared error of the probability: order and calibration."""

ACCURACY = Metric("accuracy", _accuracy)
MACRO_F1 = Metric("macro_f1", _macro_f1)
LOG_LOSS = Metric("log_loss", _log_loss, higher_is_better=False)
MAE = Metric("mae", _mae, higher_is_better=False, is_relative=True)
RMSE = Metric("rmse", _rmse, higher_is_better=False, is_relative=True)
R2 = Metric("r2", _r2)

"""What a model is for: which loss trains it, what turns its outputs into the answers that are served, which metrics judge them.

`binary`, `multiclass`, `regression` and `embedding` are complete; an objective of your own is an `Objective` with another loss or
other metrics. torch is imported where a loss is computed: graphs that were trained elsewhere are judged without it.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import msgspec
import numpy as np

from trainers import metrics
from trainers.arrays import Array
from trainers.errors import DataError
from trainers.metrics import Metric

if TYPE_CHECKING:
    from torch import Tensor

Head = Literal["sigmoid", "softmax", "identity"]
Task = Literal["classify", "regress", "embed", "custom"]


class Objective(msgspec.Struct, frozen=True):
    """`loss` takes (outputs of the module, targets) of one batch and returns their mean. The first metric is the one to watch.

    `check` raises `DataError` for targets nothing can be learned from; it gets the split's name and its targets.
    """

    task: Task
    head: Head
    loss: Callable[["Tensor", "Tensor"], "Tensor"]
    metrics: tuple[Metric, ...]
    check: Callable[[str, Array], None]

    @property
    def watched(self) -> Metric:
        return self.metrics[0]

    def answers(self, outputs: "Tensor") -> "Tensor":
        """What is served for these outputs of the module, of the same shape."""
        if self.head == "sigmoid":
            return outputs.sigmoid()
        return outputs.softmax(dim=-1) if self.head == "softmax" else outputs

    def measure(self, targets: Array, answers: Array) -> dict[str, float]:
        """Every metric, for answers [rows] or [rows, k]; a last axis of 1 is dropped.

        Raises `DataError` for answers that are not finite, or no probabilities where they must be.
        """
        if not self.metrics:
            return {}
        self.check("judged", targets)
        answers = flat(answers).astype(np.float64)
        if not np.isfinite(answers).all():
            raise DataError("an answer is NaN or infinite; check the model's output")
        if self.head != "identity" and not ((answers >= 0) & (answers <= 1)).all():
            raise DataError("a probability is outside [0, 1]; check the model's output")
        return {metric.name: metric.measure(targets, answers) for metric in self.metrics}


def flat(answers: Array) -> Array:
    """[rows, 1] as [rows]."""
    return answers[:, 0] if answers.ndim == 2 and answers.shape[1] == 1 else answers


def binary() -> Objective:
    """Yes or no. The module returns logits [rows], targets are 0 or 1, the answer is the probability of 1."""
    return Objective(
        task="classify",
        head="sigmoid",
        loss=_cross_entropy_of_two,
        metrics=(metrics.ROC_AUC, metrics.AVERAGE_PRECISION, metrics.BRIER),
        check=_both_outcomes,
    )


def multiclass(classes: int, *, smoothing: float = 0.0) -> Objective:
    """One of `classes`. The module returns logits [rows, classes], targets are the class's index; answers add up to 1.

    `smoothing` is the share of the target that the loss spreads over all classes.
    """

    def loss(outputs: "Tensor", targets: "Tensor") -> "Tensor":
        from torch.nn import functional

        return functional.cross_entropy(outputs.float(), targets.long(), label_smoothing=smoothing)

    def check(split: str, targets: Array) -> None:
        found = np.unique(targets)
        if len(found) < 2:
            raise DataError(f"the {split} split needs at least two classes; it has {len(found)}")
        if found[0] < 0 or found[-1] >= classes or (found != found.astype(np.int64)).any():
            raise DataError(
                f"the {split} split has targets from {found[0]} to {found[-1]}; expected 0 to {classes - 1}"
            )

    return Objective(
        task="classify",
        head="softmax",
        loss=loss,
        metrics=(metrics.ACCURACY, metrics.MACRO_F1, metrics.LOG_LOSS),
        check=check,
    )


def _squared_error(outputs: "Tensor", targets: "Tensor") -> "Tensor":
    from torch.nn import functional

    return functional.mse_loss(outputs, targets)


def regression(loss: Callable[["Tensor", "Tensor"], "Tensor"] = _squared_error) -> Objective:
    """A number. The module returns [rows], targets and answers are in the same unit."""
    return Objective(
        task="regress",
        head="identity",
        loss=lambda outputs, targets: loss(outputs.float(), targets.float()),
        metrics=(metrics.RMSE, metrics.MAE, metrics.R2),
        check=_finite,
    )


def untargeted(task: Task, head: Head = "identity") -> Objective:
    """For a graph that comes as it is, without anything to learn or to score: its variants are compared with each other only."""

    def loss(outputs: "Tensor", targets: "Tensor") -> "Tensor":
        raise NotImplementedError("this objective cannot be trained")

    return Objective(task=task, head=head, loss=loss, metrics=(), check=lambda split, targets: None)


def as_targets(targets: Array) -> "Tensor":
    """Whole numbers as int64, others as float32."""
    import torch

    kind = np.int64 if targets.dtype.kind in "iub" else np.float32
    return torch.from_numpy(np.ascontiguousarray(targets, kind))


def _cross_entropy_of_two(outputs: "Tensor", targets: "Tensor") -> "Tensor":
    from torch.nn import functional

    return functional.binary_cross_entropy_with_logits(outputs.float(), targets.float())


def _both_outcomes(split: str, targets: Array) -> None:
    positives = int(np.count_nonzero(targets))
    if positives in (0, len(targets)):
        raise DataError(f"the {split} split needs both outcomes; {positives} of {len(targets)} rows are positive")


def _finite(split: str, targets: Array) -> None:
    if not np.isfinite(targets).all():
        missing = int((~np.isfinite(targets)).sum())
        raise DataError(f"the {split} split has {missing} targets that are NaN or infinite")
    if len(targets) < 2 or np.ptp(targets) == 0:
        raise DataError(f"the {split} split has the same target in every row")

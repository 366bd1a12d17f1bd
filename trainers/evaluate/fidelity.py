"""How good a graph's answers are, how near to fp32, and whether they depend on batch mates; each as a gate with its limit.

Knows nothing of time or size. The limits come from the job.
"""

import msgspec
import numpy as np
import onnxruntime as ort

from gateway.contract.manifest import Gate
from trainers.job import Array, Limits, Split
from trainers.metrics import binary_metrics

BATCH_DIFFERENCE = "batch_difference"
CHUNK_ROWS = 128
LABEL_AT = 0.5
ALONE_ROWS = 64
MATES = (1, 6, 31)
"""How many batch mates each row is answered with, after it was answered alone."""

HOSTILE = 1000.0
"""Half of the mates get numbers this much larger: a caller may send anything, and must not move another caller's answer."""


class Answers(msgspec.Struct, frozen=True):
    """One graph's probabilities on a split, their metrics, and how much batch mates changed them. Metrics need every answer."""

    probabilities: Array
    metrics: dict[str, float]
    batch_difference: float

    @property
    def missing(self) -> int:
        return int(np.isnan(self.probabilities).sum())


def answer(session: ort.InferenceSession, split: Split) -> Answers:
    chunks = [
        _run(session, {name: values[start : start + CHUNK_ROWS] for name, values in split.inputs.items()})
        for start in range(0, split.rows, CHUNK_ROWS)
    ]
    probabilities = np.concatenate(chunks)
    complete = not np.isnan(probabilities).any()
    return Answers(
        probabilities=probabilities,
        metrics=binary_metrics(split.targets, probabilities) if complete else {},
        batch_difference=batch_difference(session, split),
    )


def gates(variant: str, reference: Answers, own: Answers, limits: Limits) -> tuple[Gate, ...]:
    """Soundness first; nearness to the reference only for another graph with an answer for every row."""
    checks = [
        ("nan", float(own.missing), 0.0),
        (BATCH_DIFFERENCE, own.batch_difference, limits.batch_difference_max),
    ]
    if own is not reference and not own.missing:
        drift = np.abs(own.probabilities - reference.probabilities)
        checks += [
            ("roc_auc_drop", reference.metrics["roc_auc"] - own.metrics["roc_auc"], limits.metric_drop_max),
            (
                "average_precision_drop",
                reference.metrics["average_precision"] - own.metrics["average_precision"],
                limits.metric_drop_max,
            ),
            ("brier_rise", own.metrics["brier"] - reference.metrics["brier"], limits.metric_drop_max),
            ("probability_drift_p99", float(np.percentile(drift, 99)), limits.probability_drift_p99_max),
            ("label_disagreement", _disagreement(reference, own), 1 - limits.agreement_min),
        ]
    return tuple(
        Gate(name=name, variant=variant, passed=measured <= limit, measured=measured, limit=limit)
        for name, measured, limit in checks
    )


def batch_difference(session: ort.InferenceSession, split: Split, seed: int = 0) -> float:
    """The most that batch mates changed a row's probability; 1 when they made it appear or disappear."""
    rng = np.random.default_rng(seed)
    worst = 0.0
    for row in rng.integers(0, split.rows, ALONE_ROWS):
        alone = _run(session, {name: values[row : row + 1] for name, values in split.inputs.items()})[0]
        for count in MATES:
            mates = rng.integers(0, split.rows, count)
            batch = {
                name: np.concatenate([values[row : row + 1], values[mates]]) for name, values in split.inputs.items()
            }
            together = _run(session, {name: _hostile(values) for name, values in batch.items()})[0]
            worst = max(worst, _difference(float(alone), float(together)))
    return worst


def _hostile(values: Array) -> Array:
    """The second half of a batch, with huge numbers. The first row stays as it is."""
    if values.dtype == object:
        return values
    return np.concatenate(
        [values[: (len(values) + 1) // 2], values[(len(values) + 1) // 2 :] * values.dtype.type(HOSTILE)]
    )


def _difference(a: float, b: float) -> float:
    if np.isnan(a) or np.isnan(b):
        return float(np.isnan(a) != np.isnan(b))
    return abs(a - b)


def _disagreement(reference: Answers, own: Answers) -> float:
    """The share of rows that get another label."""
    return float(np.mean((own.probabilities >= LABEL_AT) != (reference.probabilities >= LABEL_AT)))


def _run(session: ort.InferenceSession, inputs: dict[str, Array]) -> Array:
    (probabilities,) = session.run(None, inputs)
    return np.asarray(probabilities, np.float64)[:, 0]

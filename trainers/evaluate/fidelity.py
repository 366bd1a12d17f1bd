"""How good a graph's answers are, how near to fp32, and whether they depend on batch mates; each as a gate with its limit.

Knows nothing of time or size. The limits come from the job. What near means depends on what the answers are: probabilities may
drift a little and should name the same class, embeddings should keep their neighbours, values their size.
"""

import zlib
from collections.abc import Mapping

import msgspec
import numpy as np
import onnxruntime as ort

from gateway.contract.manifest import Gate
from trainers.arrays import Array
from trainers.evaluate import paired
from trainers.job import Data, Split, Terms, trimmed
from trainers.objectives import flat

BATCH_DIFFERENCE = "batch_difference"
CHUNK_ROWS = 128
ALONE_ROWS = 64
MATES = (1, 6, 31)
"""How many batch mates each row is answered with, after it was answered alone."""

LONG_ALONE_ROWS = 16
"""Rows with a length cost more."""

HOSTILE = 1000.0
"""Half of the mates get numbers this much larger: a caller may send anything, and must not move another caller's answer."""

NEIGHBOURS = 10
NEIGHBOUR_ROWS_MAX = 1000

Outputs = dict[str, Array]
"""By name, float64 [rows, ...]."""


class Answers(msgspec.Struct, frozen=True):
    """One graph's answers to a split, their metrics, and how much batch mates changed them. Metrics need every answer."""

    outputs: Outputs
    metrics: dict[str, float]
    batch_difference: float

    @property
    def missing(self) -> int:
        """How many values are NaN or infinite."""
        return sum(int((~np.isfinite(values)).sum()) for values in self.outputs.values())


def answer(session: ort.InferenceSession, split: Split, data: Data, terms: Terms) -> Answers:
    """Rows are answered in the order of their length, so that little padding is computed; answers are in the split's order."""
    order = (
        np.argsort((split.inputs[data.mask] != 0).sum(axis=1), kind="stable") if data.mask else np.arange(split.rows)
    )
    chunk_rows = min(CHUNK_ROWS, terms.target.batch_max)
    chunks = [
        _run(session, split.picked(order[start : start + chunk_rows]).inputs, data)
        for start in range(0, split.rows, chunk_rows)
    ]
    back = np.argsort(order, kind="stable")
    outputs = {name: np.concatenate([chunk[name] for chunk in chunks])[back] for name in chunks[0]}
    answers = Answers(outputs=outputs, metrics={}, batch_difference=batch_difference(session, split, data))
    if answers.missing or not terms.objective.metrics:
        return answers
    (only,) = outputs.values()
    return msgspec.structs.replace(answers, metrics=terms.objective.measure(split.targets, only))


def gates(variant: str, reference: Answers, own: Answers, terms: Terms, targets: Array) -> tuple[Gate, ...]:
    """Soundness first; nearness to the reference only for another graph with an answer for every row.

    Answers that depend on batch mates pass where the target runs every row alone.
    """
    limits = terms.limits
    checks = [
        ("nan", float(own.missing), 0.0),
        (BATCH_DIFFERENCE, own.batch_difference, limits.batch_difference_max),
    ]
    if own is not reference and not own.missing:
        checks += [
            (
                metric.loss_name,
                metric.loss(reference.metrics[metric.name], own.metrics[metric.name]),
                limits.metric_drop_max,
            )
            for metric in terms.objective.metrics
        ]
        checks += _against_targets(reference, own, terms, targets)
        checks += _nearness(reference, own, terms)
    return tuple(_gate(variant, name, measured, limit, terms) for name, measured, limit in checks)


def _gate(variant: str, name: str, measured: float, limit: float, terms: Terms) -> Gate:
    """What one gate decided. Why a mate-dependent one was refused or let through is worth a word."""
    passed, detail = measured <= limit, ""
    if name == BATCH_DIFFERENCE and not passed:
        passed = terms.target.batch_max == 1
        batches = f"batches of up to {terms.target.batch_max} rows"
        detail = (
            "the target runs every row alone" if passed else f"the target expects {batches}, and mates move answers"
        )
    return Gate(name=name, variant=variant, passed=passed, measured=measured, limit=limit, detail=detail)


def _against_targets(reference: Answers, own: Answers, terms: Terms, targets: Array) -> list[tuple[str, float, float]]:
    """Of a classifier with known outcomes: what it may have lost in accuracy, and what calibration it has lost."""
    if terms.objective.head == "identity" or not terms.objective.metrics:
        return []
    before, after = (flat(next(iter(answers.outputs.values()))) for answers in (reference, own))
    lost = paired.accuracy_loss_bound(targets, paired.labels(before), paired.labels(after))
    rise = paired.calibration_error(targets, after) - paired.calibration_error(targets, before)
    return [
        ("accuracy_loss_bound", lost, terms.limits.accuracy_loss_max),
        ("calibration_error_rise", rise, terms.limits.calibration_rise_max),
    ]


def _nearness(reference: Answers, own: Answers, terms: Terms) -> list[tuple[str, float, float]]:
    """Every output against the reference's; where there are several the worst counts."""
    pairs = [(flat(reference.outputs[name]), flat(values)) for name, values in own.outputs.items()]
    limits = terms.limits
    if terms.objective.head != "identity":
        drift = max(float(np.percentile(np.abs(one - other), 99)) for one, other in pairs)
        disagreement = max(float(np.mean(paired.labels(one) != paired.labels(other))) for one, other in pairs)
        return [
            ("probability_drift_p99", drift, limits.probability_drift_p99_max),
            ("label_disagreement", disagreement, 1 - limits.agreement_min),
        ]
    if terms.objective.task == "embed":
        return [
            ("neighbours_lost", max(_neighbours_lost(*pair) for pair in pairs), 1 - limits.neighbours_min),
            ("cosine_distance_p99", max(_cosine_p99(*pair) for pair in pairs), 1 - limits.cosine_p1_min),
        ]
    return [("value_drift_p99", max(_value_drift(*pair) for pair in pairs), limits.value_drift_p99_max)]


def batch_difference(session: ort.InferenceSession, split: Split, data: Data, seed: int = 0) -> float:
    """The most that batch mates, and the padding they bring, changed a row's answer; 1 when they made it appear or disappear.

    Of values that are no probabilities it is relative to 1 + their size.
    """
    rng = np.random.default_rng(seed)
    worst = 0.0
    for row in rng.integers(0, split.rows, LONG_ALONE_ROWS if data.signature.has_length else ALONE_ROWS):
        alone = _run(session, split.picked(np.array([row])).inputs, data)
        padded = _answers(session, split.picked(np.array([row])).inputs, data)
        worst = max(worst, *(_difference(values[0], padded[name][0]) for name, values in alone.items()))
        for count in MATES:
            batch = split.picked(np.append(row, rng.integers(0, split.rows, count)))
            hostile = {name: _hostile(values) for name, values in batch.inputs.items()}
            together = _run(session, hostile, data)
            worst = max(worst, *(_difference(values[0], together[name][0]) for name, values in alone.items()))
    return worst


def _hostile(values: Array) -> Array:
    """The second half of a batch, with huge numbers. The first row stays as it is, and so do strings and whole numbers."""
    if values.dtype.kind != "f":
        return values
    half = (len(values) + 1) // 2
    return np.concatenate([values[:half], values[half:] * values.dtype.type(HOSTILE)])


def _difference(a: Array, b: Array) -> float:
    if a.shape != b.shape or (np.isnan(a) != np.isnan(b)).any():
        return 1.0
    apart = np.abs(np.nan_to_num(a) - np.nan_to_num(b)) / np.maximum(1.0, np.abs(np.nan_to_num(a)))
    return float(apart.max(initial=0.0))


def _neighbours_lost(reference: Array, own: Array) -> float:
    """The share of each row's nearest rows, by cosine, that are others than with the reference."""
    rows = np.linspace(0, len(reference) - 1, min(len(reference), NEIGHBOUR_ROWS_MAX)).astype(int)
    count = min(NEIGHBOURS, len(rows) - 1)
    nearest = [_nearest(_unit(vectors[rows]), count) for vectors in (reference, own)]
    kept = [len(set(a) & set(b)) for a, b in zip(*(found.tolist() for found in nearest), strict=True)]
    return 1.0 - float(np.mean(kept)) / max(1, count)


def _nearest(vectors: Array, count: int) -> Array:
    likeness = vectors @ vectors.T
    np.fill_diagonal(likeness, -np.inf)
    nearest: Array = np.argsort(-likeness, axis=1, kind="stable")[:, :count]
    return nearest


def _cosine_p99(reference: Array, own: Array) -> float:
    return float(np.percentile(1.0 - (_unit(reference) * _unit(own)).sum(axis=-1), 99))


def _unit(vectors: Array) -> Array:
    unit: Array = vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
    return unit


def _value_drift(reference: Array, own: Array) -> float:
    """In standard deviations of the reference."""
    return float(np.percentile(np.abs(own - reference), 99) / max(float(reference.std()), 1e-12))


def _run(session: ort.InferenceSession, inputs: Mapping[str, Array], data: Data) -> Outputs:
    return _answers(session, trimmed(inputs, data.signature, data.mask), data)


def _answers(session: ort.InferenceSession, inputs: Mapping[str, Array], data: Data) -> Outputs:
    """With whatever padding the rows have."""
    names = [tensor.name for tensor in data.signature.outputs]
    answers = session.run(names, dict(inputs))
    return {name: _numbers(np.asarray(values)) for name, values in zip(names, answers, strict=True)}


def _numbers(values: Array) -> Array:
    """Text as numbers that are equal where it is: a label is either the same or another one."""
    if values.dtype.kind not in "OUS":
        return values.astype(np.float64)
    numbers = [float(zlib.crc32(str(value).encode())) for value in values.ravel()]
    return np.array(numbers, np.float64).reshape(values.shape)

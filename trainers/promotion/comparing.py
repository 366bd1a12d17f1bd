"""Champion and candidate on the very same labelled rows: their metrics, how much the candidate gains, and in which slice least.

Two sets of rows: those that came with the champion, and the newest window, which is the candidate's own test split. Both versions
answer both anew, for a stored score was of other rows. Limits are none of its business: `trainers.promotion.gates` has them.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec
import numpy as np

from gateway.contract.promotions import Judged
from trainers import confidence
from trainers.arrays import Array
from trainers.confidence import Interval
from trainers.errors import DataError
from trainers.job import Data, Split
from trainers.objectives import Objective
from trainers.promotion import evaluation
from trainers.promotion.evaluation import Frozen
from trainers.promotion.sides import Side, answers
from trainers.rules import Rules

SURE = 95.0
"""Percent; shared out over the slices, of which any may be the worst one by chance."""


class Rows(msgspec.Struct, frozen=True):
    """Rows to judge, and why they should not be, if there is a reason."""

    name: Literal["frozen", "newest"]
    split: Split
    slices: Mapping[str, Array]
    excluded: int = 0
    skipped: str = ""


class SliceGain(msgspec.Struct, frozen=True):
    """Of the first metric: the gain in one slice and, with all confidence, the most that it can be."""

    name: str
    rows: int
    gain: float
    high: float


class Compared(msgspec.Struct, frozen=True):
    """`problem`: why there are no figures, where there should be. `slices` has those with enough rows, `small` how many had not."""

    judged: Judged
    slices: tuple[SliceGain, ...] = ()
    small: int = 0
    problem: str = ""


def newest(data: Data, rules: Rules) -> Rows:
    rows = data.test.spread(rules.newest_rows_max)
    return Rows("newest", data.test.picked(rows), {name: values[rows] for name, values in data.slices.items()})


def frozen(stored: Frozen, data: Data, rules: Rules) -> Rows:
    """The champion's rows without those that the candidate was trained or stopped on: it knows them by heart."""
    found = list(evaluation.keys(stored.split, data.signature, data.mask))
    known = seen(set(found), data)
    kept = np.flatnonzero([key not in known for key in found])
    skipped = ""
    if len(kept) < rules.rows_min:
        skipped = f"{len(kept)} rows that training has not seen; at least {rules.rows_min} are needed"
    return Rows(
        "frozen",
        stored.split.picked(kept),
        {name: values[kept] for name, values in stored.slices.items()},
        excluded=len(found) - len(kept),
        skipped=skipped,
    )


def seen(wanted: set[bytes], data: Data) -> set[bytes]:
    """Which of these rows the candidate's training or validation split holds."""
    splits = (data.train, data.validation)
    return set().union(*(evaluation.occurring(wanted, split, data.signature, data.mask) for split in splits))


def compare(
    rows: Rows, candidate: Side, champion: Side | None, data: Data, objective: Objective, rules: Rules
) -> Compared:
    """Without a champion only the candidate's metrics."""
    judged = Judged(rows.name, rows.split.rows, rows.excluded, skipped=rows.skipped)
    if rows.skipped:
        return Compared(judged)
    if not objective.metrics:
        return Compared(judged, problem="the objective has no metric")
    if rows.split.rows < rules.rows_min:
        return Compared(judged, problem=f"{rows.split.rows} rows; at least {rules.rows_min} are needed")
    output = (champion or candidate).manifest.signature.outputs[0].name
    targets = rows.split.targets
    try:
        own = answers(candidate, rows.split, data.mask, output)
        measured = objective.measure(targets, own)
        if champion is None:
            return Compared(msgspec.structs.replace(judged, candidate=measured))
        theirs = answers(champion, rows.split, data.mask, output)
        before = objective.measure(targets, theirs)
    except DataError as error:
        return Compared(judged, problem=str(error))
    gains = _gains(objective, targets, own, theirs)
    slices, small = _slices(rows, objective, own, theirs, rules)
    judged = msgspec.structs.replace(judged, candidate=measured, champion=before, gains=gains)
    return Compared(judged, slices, small)


def gain(objective: Objective, judged: Judged, metric: str) -> float:
    """How much better the candidate is, as measured on all rows."""
    found = next(one for one in objective.metrics if one.name == metric)
    return -found.loss(judged.champion[metric], judged.candidate[metric])


def _gains(objective: Objective, targets: Array, own: Array, theirs: Array, level: float = SURE) -> dict[str, Interval]:
    """Errors in the target's unit as shares of the champion's."""
    found = confidence.compare(objective, targets, own, theirs, level=level).gains
    before = objective.measure(targets, theirs)
    scales = {one.name: max(abs(before[one.name]), 1e-12) if one.is_relative else 1.0 for one in objective.metrics}
    return {name: (low / scales[name], high / scales[name]) for name, (low, high) in found.items()}


def _slices(
    rows: Rows, objective: Objective, own: Array, theirs: Array, rules: Rules
) -> tuple[tuple[SliceGain, ...], int]:
    """Holm's first step: whether any slice is worse is decided by the worst one, at a share of the doubt for each slice."""
    large = {name: np.flatnonzero(chosen) for name, chosen in rows.slices.items()}
    large = {name: chosen for name, chosen in large.items() if len(chosen) >= rules.slice_rows_min}
    level = 100.0 - 2 * (100.0 - SURE) / max(1, len(large))
    only = msgspec.structs.replace(objective, metrics=objective.metrics[:1])
    found = [_slice(name, only, rows.split.targets[at], own[at], theirs[at], level) for name, at in large.items()]
    measured = tuple(one for one in found if one is not None)
    return measured, len(rows.slices) - len(measured)


def _slice(name: str, only: Objective, targets: Array, own: Array, theirs: Array, level: float) -> SliceGain | None:
    """None where its targets cannot be judged, as when all are alike."""
    try:
        before, after = only.measure(targets, theirs), only.measure(targets, own)
    except DataError:
        return None
    (high,) = (high for _, high in _gains(only, targets, own, theirs, level).values())
    return SliceGain(name, len(targets), -only.watched.loss(before[only.watched.name], after[only.watched.name]), high)


def label_shift(objective: Objective, before: Array, after: Array) -> float:
    """Between two trainings' targets: the largest change of a label's share, or of the mean in standard deviations."""
    if objective.head == "identity":
        return float(abs(after.mean() - before.mean()) / max(float(before.std()), 1e-12))
    labels = np.union1d(before, after)
    return max(float(abs(np.mean(after == label) - np.mean(before == label))) for label in labels)


def overlap(rows: Rows, data: Data) -> float:
    """The share of these rows that the candidate's training or validation split holds."""
    found: Sequence[bytes] = list(evaluation.keys(rows.split, data.signature, data.mask))
    known = seen(set(found), data)
    return sum(key in known for key in found) / max(1, len(found))

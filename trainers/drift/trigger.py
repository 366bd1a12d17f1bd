"""Whether a model's rows have drifted so far, and for so long, that it should be trained again. A pure function of counts.

Three things must come together before a column counts as drifted: enough rows, a difference that chance does not explain (q-value,
false discoveries controlled over all columns of a window), and one that is large enough to matter (PSI): above a convention, and
above what stretches of the training rows differed by among themselves, for a week in January is not the year. And it must be so
in k of the last n windows: a single strange one is no reason to train. A window with too few rows is never evidence of anything.
"""

from collections.abc import Sequence
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta

from gateway.contract.features import ColumnProfile, FeatureProfile
from gateway.contract.words import Positive
from trainers.drift import statistics
from trainers.drift.windows import Window

STRETCH_MARGIN = 1.25
"""The most unusual of twenty stretches of training is not the most unusual there will be without drift."""

Share = Annotated[float, Meta(gt=0, lt=1)]


class Rule(msgspec.Struct, frozen=True):
    """`rows_min` per window. `alpha`: which share of the columns called different may be so by chance.

    `psi_min`: a convention of credit scoring says that 0.1 to 0.25 is a moderate shift and more a large one (Siddiqi, "Credit Risk
    Scorecards", 2006). With fewer than 500 rows chance alone comes near it. `k` of the last `n` windows must agree.
    """

    rows_min: Positive = 500
    alpha: Share = 0.01
    psi_min: Annotated[float, Meta(ge=0)] = 0.2
    k: Positive = 2
    n: Positive = 3

    def __post_init__(self) -> None:
        if self.k > self.n:
            raise ValueError(f"k is {self.k}, and there are only n = {self.n} windows to agree")


class ColumnVerdict(msgspec.Struct, frozen=True):
    """One column in one window, of so many `rows`. It is different when `q` is at most alpha and `psi` is above `psi_threshold`."""

    name: str
    side: str
    test: str
    statistic: float
    rows: int
    p: float
    q: float
    psi: float
    psi_threshold: float
    is_different: bool


class WindowVerdict(msgspec.Struct, frozen=True):
    """`columns` is empty where there were too few rows to judge."""

    from_ns: int
    to_ns: int
    rows: int
    is_judged: bool
    columns: tuple[ColumnVerdict, ...]


class ColumnDrift(msgspec.Struct, frozen=True):
    """One column over the last n windows: its latest figures (None where no window had rows enough), and what follows from all."""

    name: str
    side: str
    latest: ColumnVerdict | None
    different: int
    is_drifted: bool
    sentence: str


class Verdict(msgspec.Struct, frozen=True):
    """What is to be said and done. `judged` of the last n windows had rows enough; `windows` are all, oldest first."""

    is_drifted: bool
    rule: Rule
    judged: int
    columns: tuple[ColumnDrift, ...]
    windows: tuple[WindowVerdict, ...]
    sentence: str


def decide(profile: FeatureProfile, windows: Sequence[Window], rule: Rule) -> Verdict:
    """Every window by itself, oldest first, and the verdict on the last `rule.n` of them."""
    judged = tuple(judge(profile, window, rule) for window in windows)
    last = judged[-rule.n :]
    columns = tuple(_drift(column, at, last, rule) for at, column in enumerate(profile.columns))
    count = sum(window.is_judged for window in last)
    drifted = [column.name for column in columns if column.is_drifted]
    return Verdict(bool(drifted), rule, count, columns, judged, _sentence(drifted, last, count, rule))


def judge(profile: FeatureProfile, window: Window, rule: Rule) -> WindowVerdict:
    """One window by itself."""
    if window.rows < rule.rows_min:
        return WindowVerdict(window.from_ns, window.to_ns, window.rows, False, ())
    found = []
    for column, now, now_missing in zip(profile.columns, window.counts, window.missing, strict=True):
        reference = np.array(column.counts, np.float64)
        distance = statistics.psi(np.append(reference, column.missing), np.append(now, now_missing))
        is_number = column.kind == "number"
        found.append((distance, statistics.evidence(is_number, reference, column.missing, now, now_missing)))
    qs = statistics.adjusted([evidence.p for _, evidence in found])
    columns = tuple(
        ColumnVerdict(
            column.name, column.side, evidence.test, evidence.statistic, window.rows, evidence.p, q, distance,
            threshold, q <= rule.alpha and distance > threshold,
        )
        for column, (distance, evidence), q in zip(profile.columns, found, qs, strict=True)
        for threshold in (max(rule.psi_min, STRETCH_MARGIN * column.stretch_psi),)
    )  # fmt: skip
    return WindowVerdict(window.from_ns, window.to_ns, window.rows, True, columns)


def _drift(column: ColumnProfile, at: int, judged: Sequence[WindowVerdict], rule: Rule) -> ColumnDrift:
    seen = [window.columns[at] for window in judged if window.is_judged]
    different = sum(each.is_different for each in seen)
    is_drifted = different >= rule.k
    latest = seen[-1] if seen else None
    return ColumnDrift(
        column.name, column.side, latest, different, is_drifted, _why(latest, different, len(seen), is_drifted, rule)
    )


def _why(latest: ColumnVerdict | None, different: int, judged: int, is_drifted: bool, rule: Rule) -> str:
    if latest is None:
        return "not enough rows to judge"
    if is_drifted:
        return f"different in {different} of {judged} windows, {rule.k} are enough"
    if different:
        return f"different in {different} of {judged} windows, {rule.k} are needed"
    if latest.q <= rule.alpha:
        return (
            f"a real difference, too small to matter: PSI {latest.psi:.3f}, and {latest.psi_threshold:.3f} is allowed"
        )
    return "within what chance explains"


def _sentence(drifted: list[str], judged: Sequence[WindowVerdict], count: int, rule: Rule) -> str:
    if drifted:
        names = ", ".join(f"'{name}'" for name in drifted)
        return f"drift: {names} in at least {rule.k} of the last {rule.n} windows"
    if count < rule.k:
        rows = ", ".join(f"{window.rows:,}" for window in judged)
        return (
            f"not enough rows: {count} of the last {rule.n} windows have {rule.rows_min:,}, {rule.k} are needed "
            f"(counted rows per window: {rows}); wait, take a longer window, or raise the gateway's features.sample"
        )
    return f"no drift: no column is different in {rule.k} of the last {rule.n} windows"

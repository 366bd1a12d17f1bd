"""An estimate, not a measurement: how well a classifier of yes and no does on rows whose outcomes nobody knows yet.

Confidence-based performance estimation (the idea is NannyML's CBPE), from counts alone: the profile says which share of each bin of
predicted probability was truly a yes on held-out rows, and the window how many rows are in each bin now. It holds as long as a
probability still means what it meant, that is while the inputs move and their relation to the outcome does not: that kind of drift
no method sees without labels. Both figures are of binned probabilities, which makes the ROC AUC
up to two hundredths low: compare them with each other and with nothing else.
"""

import msgspec
import numpy as np
from numpy.typing import NDArray

from gateway.contract.features import ColumnProfile, FeatureProfile
from trainers.drift.windows import Window

YES_AT = 0.5


class Performance(msgspec.Struct, frozen=True):
    """`roc_auc` is None where all rows are expected to be of one class."""

    rows: int
    accuracy: float
    roc_auc: float | None
    yes_share: float


class Estimate(msgspec.Struct, frozen=True):
    """Of held-out rows with known outcomes, and of the window's as they would be now."""

    output: str
    held_out: Performance
    expected: Performance


def estimate(profile: FeatureProfile, window: Window) -> Estimate | None:
    """None where the profile knows no outcomes, or the window no rows."""
    for at, column in enumerate(profile.columns):
        if column.positives and window.counts[at].sum():
            rates = _rates(column)
            counts = np.array(column.counts, np.float64)
            return Estimate(
                column.name, _performance(column, counts, rates), _performance(column, window.counts[at], rates)
            )
    return None


def _rates(column: ColumnProfile) -> NDArray[np.float64]:
    """The share of yes per bin, half a row of each class added."""
    return (np.array(column.positives) + 0.5) / (np.array(column.counts) + 1.0)


def _performance(column: ColumnProfile, counts: NDArray[np.float64], rates: NDArray[np.float64]) -> Performance:
    yes, no = counts * rates, counts * (1 - rates)
    says_yes = np.append(-np.inf, column.edges) >= YES_AT
    right = yes[says_yes].sum() + no[~says_yes].sum()
    pairs = yes.sum() * no.sum()
    below = np.cumsum(no) - no
    roc_auc = float((yes * (below + no / 2)).sum() / pairs) if pairs else None
    rows = counts.sum()
    return Performance(int(rows), float(right / rows), roc_auc, float(yes.sum() / rows))

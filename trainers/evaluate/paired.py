"""Two graphs' answers to the same labelled rows: how much accuracy the second may have lost, and what it did to calibration.

Pure arithmetic. Rows are paired: on 1,000 rows the standard error of one accuracy is 1.4 points, which could not tell .711 from
.700; only rows that one gets right and the other wrong say anything.
"""

import numpy as np

from trainers.arrays import Array

RESAMPLES = 10_000
CONFIDENCE = 95.0
"""One-sided: at most one time in twenty is the loss larger."""

BINS = 15
LABEL_AT = 0.5


def labels(answers: Array) -> Array:
    """The class of each row, from probabilities [rows] of yes or [rows, classes]."""
    named: Array = (answers >= LABEL_AT).astype(np.int64) if answers.ndim == 1 else answers.argmax(axis=-1)
    return named


def accuracy_loss_bound(targets: Array, reference: Array, own: Array) -> float:
    """The upper confidence bound of the accuracy lost; all three are classes [rows].

    Paired bootstrap: resampling rows draws how many of them only the reference gets right and how many only the other, which is a
    multinomial of McNemar's two counts.
    """
    first, second = reference == targets, own == targets
    rows = len(targets)
    lost, won = int(np.sum(first & ~second)), int(np.sum(second & ~first))
    shares = np.array([lost, won, rows - lost - won], np.float64) / rows
    drawn = np.random.default_rng(0).multinomial(rows, shares, RESAMPLES)
    return float(np.percentile((drawn[:, 0] - drawn[:, 1]) / rows, CONFIDENCE))


def calibration_error(targets: Array, answers: Array) -> float:
    """Expected calibration error over `BINS` equal bins: of the probability of yes [rows], or of the likeliest class [rows, k]."""
    if answers.ndim == 1:
        confidence, happened = answers, targets == 1
    else:
        confidence, happened = answers.max(axis=-1), answers.argmax(axis=-1) == targets
    bins = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    gaps = np.bincount(bins, weights=confidence - happened, minlength=BINS)
    return float(np.abs(gaps).sum() / len(targets))

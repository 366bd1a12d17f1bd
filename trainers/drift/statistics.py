"""How far counted rows are from the reference, and how surprising that is: effect and evidence, column by column. No I/O.

The effect is the population stability index over the bins, missing values being one more. The evidence is a p-value of two samples
from one distribution: Kolmogorov and Smirnov's for numbers, chi-square for categories and for the share that is missing. All assume
that rows are independent. `adjusted` turns the p-values of one window's columns into q-values.
"""

from collections.abc import Sequence
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy import special

Counts = NDArray[np.float64]

SMOOTHING = 0.5
"""Added to each bin, so that one that nobody is in has a logarithm (Jeffreys' prior for proportions)."""

EXPECTED_MIN = 5.0
"""Bins with fewer expected rows are taken together: below that chi-square is no good approximation (Cochran, Biometrics 1954)."""


class Evidence(msgspec.Struct, frozen=True, order=True):
    """How likely a statistic of this size is without drift: the smaller `p`, the more surprising."""

    p: float
    test: Literal["ks", "chi2", "missing", "none"]
    statistic: float


def psi(reference: Counts, now: Counts) -> float:
    """Population stability index: the symmetric Kullback-Leibler divergence of two histograms, in nats.

    Without drift its mean is about (bins - 1) * (1 / n + 1 / m): 0.04 for 21 bins of 500 rows, which a threshold must be above
    (Yurdakul, "Statistical properties of the population stability index", Western Michigan University 2018).
    """
    p = (reference + SMOOTHING) / (reference + SMOOTHING).sum()
    q = (now + SMOOTHING) / (now + SMOOTHING).sum()
    return float(np.sum((q - p) * np.log(q / p)))


def evidence(is_number: bool, reference: Counts, missing: int, now: Counts, now_missing: int) -> Evidence:
    """The stronger of two tests, its p doubled (Bonferroni): of the values that are there, and of how many are missing.

    Without a missing value on either side there is one test, and without rows on one side none: p is 1.
    """
    found = []
    if reference.sum() and now.sum():
        found.append(ks(reference, now) if is_number else chi2(reference, now))
    if missing or now_missing:
        shares = chi2(np.array([reference.sum(), missing]), np.array([now.sum(), now_missing]))
        found.append(msgspec.structs.replace(shares, test="missing"))
    strongest = min(found, default=Evidence(1.0, "none", 0.0))
    return msgspec.structs.replace(strongest, p=min(1.0, strongest.p * len(found)))


def ks(reference: Counts, now: Counts) -> Evidence:
    """Kolmogorov and Smirnov's distance between two binned samples, with the asymptotic p-value of continuous ones.

    Bins hide part of the distance, so the p-value is too large rather than too small: fewer false alarms, not more.
    """
    n, m = reference.sum(), now.sum()
    distance = float(np.abs(np.cumsum(reference) / n - np.cumsum(now) / m).max())
    return Evidence(float(special.kolmogorov(np.sqrt(n * m / (n + m)) * distance)), "ks", distance)


def chi2(reference: Counts, now: Counts) -> Evidence:
    """Pearson's test of homogeneity; rare bins are one bin. Where that leaves a single bin there is nothing to compare."""
    both = _pooled(np.stack([reference, now]))
    if both.shape[1] < 2:
        return Evidence(1.0, "chi2", 0.0)
    expected = both.sum(axis=1, keepdims=True) * both.sum(axis=0, keepdims=True) / both.sum()
    statistic = float(((both - expected) ** 2 / expected).sum())
    return Evidence(float(special.chdtrc(both.shape[1] - 1, statistic)), "chi2", statistic)


def _pooled(both: Counts) -> Counts:
    """[2, bins], the rarest bins added up until each is expected to hold EXPECTED_MIN rows of the smaller sample."""
    sizes = both.sum(axis=0)
    both = both[:, np.argsort(sizes, kind="stable")]
    expected = np.sort(sizes) * both.sum(axis=1).min() / max(sizes.sum(), 1)
    rare = int(expected.searchsorted(EXPECTED_MIN))
    if rare:
        rare = max(rare, int(np.cumsum(expected).searchsorted(EXPECTED_MIN)) + 1)
    return np.column_stack([both[:, :rare].sum(axis=1), both[:, rare:]]) if rare else both


def adjusted(ps: Sequence[float]) -> list[float]:
    """q-values: calling those up to `alpha` drift makes the expected share of wrong ones among them at most `alpha`.

    Without any drift the chance of a single alarm is then at most `alpha` too (Benjamini and Hochberg, J. R. Statist. Soc. B 1995;
    for columns that are independent or move together).
    """
    if not ps:
        return []
    order = np.argsort(ps, kind="stable")
    count = len(ps)
    scaled = np.asarray(ps)[order] * count / np.arange(1, count + 1)
    ascending = np.minimum(1.0, np.minimum.accumulate(scaled[::-1])[::-1])
    q = np.empty(count)
    q[order] = ascending
    return [float(value) for value in q]

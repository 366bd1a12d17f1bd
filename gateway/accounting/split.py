"""Splitting one integer amount over integer weights so that nothing is lost: the largest remainder method.

Used where a charge becomes postings. No floats: a part is exact to less than one unit and the parts add up to the whole.
"""

from collections.abc import Sequence


def apportion(total: int, weights: Sequence[int]) -> tuple[int, ...]:
    """Parts of `total` in proportion to `weights`, in their order; `sum(parts) == total`.

    Each part is its exact share rounded down or up (Hamilton's method, 1792): the units that rounding down leaves go to the largest
    remainders, ties to the lowest index. Raises `ValueError` when `total` or a weight is negative, or when no weight is positive:
    who gets an amount that nobody used is the caller's decision.
    """
    whole = sum(weights)
    if total < 0 or min(weights, default=0) < 0:
        raise ValueError("an amount and its weights must not be negative")
    if whole == 0:
        raise ValueError("no weight is positive: nobody to apportion to")
    shares = [divmod(total * weight, whole) for weight in weights]
    parts = [part for part, _ in shares]
    left = total - sum(parts)
    assert 0 <= left < len(parts)
    by_remainder = sorted(range(len(shares)), key=lambda index: -shares[index][1])
    for index in by_remainder[:left]:
        parts[index] += 1
    return tuple(parts)


def apportion_signed(total: int, weights: Sequence[int]) -> tuple[int, ...]:
    """As `apportion`, also for what is taken back: parts of an amount below zero are none above it."""
    return apportion(total, weights) if total >= 0 else tuple(-part for part in apportion(-total, weights))

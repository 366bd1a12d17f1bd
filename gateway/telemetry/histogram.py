"""A fixed-bucket histogram of whole numbers: an index found by bisection and two additions per observation, nothing else.

Not thread-safe: the event loop's thread writes and reads it.
"""

from bisect import bisect_left

TIME_BOUNDS_NS: tuple[int, ...] = tuple(
    round(seconds * 1e9)
    for seconds in (5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
)
"""50 us (a small model's run) to 10 s, 2 to 4 apart: a quantile read from them is right within a factor of 2 at the median."""

ROW_BOUNDS: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


class Histogram:
    """`counts[i]` observations are at most `bounds[i]` and more than the bound before; the last count has no bound."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[int, ...] = TIME_BOUNDS_NS) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0

    @property
    def count(self) -> int:
        return sum(self.counts)

    def add(self, value: int) -> None:
        """Count one observation."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def add_many(self, value: int, count: int) -> None:
        """Count the same observation `count` times."""
        self.counts[bisect_left(self.bounds, value)] += count
        self.total += value * count

    def merge(self, other: "Histogram") -> None:
        """Count what another histogram of the same bounds has counted."""
        self.counts = [mine + theirs for mine, theirs in zip(self.counts, other.counts, strict=True)]
        self.total += other.total

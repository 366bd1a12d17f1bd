"""Which rows are of the sample: each with the same chance and independently, at next to no cost for the rows that are not.

Dice are thrown for the gaps between chosen rows (geometric; Vitter, "Faster methods for random sampling", CACM 1984), thousands at
once, so a request without a chosen row costs a comparison and a subtraction.
"""

from collections.abc import Iterator

import numpy as np

GAPS_AT_ONCE = 4096


class Sample:
    """`until_next` rows pass before the next chosen one."""

    __slots__ = ("_gaps", "_share", "until_next")

    def __init__(self, share: float, seed: int | None = None) -> None:
        self._share = share
        self._gaps = _gaps(share, np.random.default_rng(seed))
        self.until_next = next(self._gaps) - 1

    def expected(self, rows: int) -> float:
        """How many of so many rows are chosen, in the mean."""
        return rows * self._share

    def picks(self, rows: int) -> list[int]:
        """The chosen among so many rows, ascending; at least one when `until_next` is less than `rows`."""
        picks, at, gaps = [], self.until_next, self._gaps
        while at < rows:
            picks.append(at)
            at += next(gaps)
        self.until_next = at - rows
        return picks


def _gaps(share: float, generator: np.random.Generator) -> Iterator[int]:
    """Steps from one chosen row to the next."""
    while True:
        yield from generator.geometric(share, GAPS_AT_ONCE).tolist()

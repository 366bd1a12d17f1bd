"""Which rows are of the sample: each with the same chance and independently, at next to no cost for the rows that are not.

Dice are thrown for the gaps between chosen rows (geometric, Vitter, "Faster methods for random sampling", CACM 1984), so a request
without a chosen row costs a comparison and a subtraction.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Picks = NDArray[np.int64]


class Sample:
    """`until_next` rows pass before the next chosen one."""

    __slots__ = ("_generator", "_share", "until_next")

    def __init__(self, share: float, seed: int | None = None) -> None:
        self._share = share
        self._generator = np.random.default_rng(seed)
        self.until_next = int(self._gaps(1)[0]) - 1

    def expected(self, rows: int) -> float:
        """How many of so many rows are chosen, in the mean."""
        return rows * self._share

    def picks(self, rows: int) -> Picks:
        """The chosen among so many rows, ascending; at least one, for the caller has seen that `until_next` is less."""
        expected = self.expected(rows)
        gaps = self._gaps(int(expected + 6 * math.sqrt(expected)) + 8)  # enough, by six standard deviations
        places = self.until_next + np.concatenate((_FIRST, np.cumsum(gaps)))
        count = int(places[:-1].searchsorted(rows))
        self.until_next = max(0, int(places[count]) - rows)
        return places[:count]

    def _gaps(self, count: int) -> NDArray[Any]:  # Any: numpy's default integer
        return self._generator.geometric(self._share, count)


_FIRST = np.zeros(1, np.int64)

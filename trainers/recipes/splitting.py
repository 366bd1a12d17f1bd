"""Random splits that are the same every time, with the same share of every class in each part."""

from collections.abc import Sequence

import numpy as np

from trainers.arrays import Array


def stratified(targets: Array, shares: Sequence[float], seed: int = 0) -> tuple[Array, ...]:
    """Indices of the rows of each part, ascending; together every row once.

    The parts of each class are rounded on their running total, so none of them is off by more than one row.
    """
    rng = np.random.default_rng(seed)
    edges = np.cumsum(shares) / sum(shares)
    parts: list[list[Array]] = [[] for _ in shares]
    for target in np.unique(targets):
        rows = rng.permutation(np.flatnonzero(targets == target))
        stops = np.rint(edges * len(rows)).astype(int)
        for part, start, stop in zip(parts, (0, *stops[:-1]), stops, strict=True):
            part.append(rows[start:stop])
    return tuple(np.sort(np.concatenate(part)) for part in parts)

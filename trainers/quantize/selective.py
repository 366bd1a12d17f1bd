"""Rescue of a candidate that fails its gates: the nodes that hurt most stay fp32, as few as it takes.

Sensitivity is measured, not guessed: each node is quantized alone and the answers compared. Knows no recipe and no gate; both come
in as functions, and so does the clock. Bounded in trials and seconds, for every trial builds a graph and asks it.
"""

import time
from collections.abc import Callable, Sequence

import msgspec

TRIALS_MAX = 100
SECONDS_MAX = 300.0
"""36 nodes of a small text encoder took 40 s."""

Build = Callable[[frozenset[str]], bytes | None]


class Rescued(msgspec.Struct, frozen=True):
    """A graph that passes, the nodes left fp32 in it (most sensitive first), and how many graphs were built to find it."""

    graph: bytes
    excluded: tuple[str, ...]
    trials: int


class _Spent(Exception):
    """No trial or no second is left."""


class _Budget:
    """Counts what is built and looks at the clock."""

    def __init__(self, build: Build, trials_max: int, seconds_max: float, clock: Callable[[], float]) -> None:
        self._build, self._left, self._clock = build, trials_max, clock
        self._deadline = clock() + seconds_max
        self._half = clock() + seconds_max / 2
        self.trials = 0

    @property
    def is_half_spent(self) -> bool:
        return self.trials >= self._left // 2 or self._clock() >= self._half

    def build(self, excluded: frozenset[str]) -> bytes | None:
        if self.trials >= self._left or self._clock() >= self._deadline:
            raise _Spent
        self.trials += 1
        return self._build(excluded)


def rescue(
    build: Build,
    names: Sequence[str],
    *,
    distance: Callable[[bytes], float],
    passes: Callable[[bytes], bool],
    trials_max: int = TRIALS_MAX,
    seconds_max: float = SECONDS_MAX,
    clock: Callable[[], float] = time.monotonic,
) -> Rescued | None:
    """None when nothing passes within the budget, or only the graph with no node quantized would.

    `build` makes the graph with the nodes it is given left fp32. With half the budget spent on sensitivity the rest are taken as
    harmless; then the smallest number of excluded nodes is found by halving.
    """
    if len(names) < 2:
        return None
    budget = _Budget(build, trials_max, seconds_max, clock)
    try:
        order = _by_sensitivity(budget, names, distance)
        return _fewest(budget, order, passes)
    except _Spent:
        return None


def _by_sensitivity(budget: _Budget, names: Sequence[str], distance: Callable[[bytes], float]) -> list[str]:
    everything = frozenset(names)
    harm = dict.fromkeys(names, 0.0)
    for name in names:
        if budget.is_half_spent:
            break
        alone = budget.build(everything - {name})
        harm[name] = 0.0 if alone is None else distance(alone)
    return sorted(names, key=lambda name: -harm[name])


def _fewest(budget: _Budget, order: Sequence[str], passes: Callable[[bytes], bool]) -> Rescued | None:
    """Halving assumes that leaving more nodes fp32 never hurts; what is returned has passed itself."""
    found: Rescued | None = None
    low, high = 1, len(order) - 1
    while low <= high:
        count = (low + high) // 2
        try:
            graph = budget.build(frozenset(order[:count]))
        except _Spent:
            break
        if graph is not None and passes(graph):
            found = Rescued(graph=graph, excluded=tuple(order[:count]), trials=budget.trials)
            high = count - 1
        else:
            low = count + 1
    return found and msgspec.structs.replace(found, trials=budget.trials)
